package conf

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSessionJSON(t *testing.T) {
	want := minimal()
	want.AuthMethod, want.User, want.Secret, want.LUNs, want.Discovery = AuthCHAP, "u", "p", "0,3-5", true
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"targetName":"iqn.2012-06.com.example:t"`, `"authMethod":"CHAP"`, `"luns":"0,3-5"`, `"dscp":-1`, `"iser":false`} {
		if !strings.Contains(string(data), part) {
			t.Errorf("no %s in %s", part, data)
		}
	}
	var got Session
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, bad := range []string{`{"authMethod":"SRP"}`, `{"luns":"5-3"}`, `{"luns":7}`, `{"dscp":"x"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	if _, err := json.Marshal(Session{AuthMethod: 7}); err == nil {
		t.Error("an authentication method that does not exist is written")
	}
	if got := AuthMethod(7).String() + AuthNone.String() + AuthCHAP.String(); got != "AuthMethod(7)NoneCHAP" {
		t.Error(got)
	}
}

// TestValidate has what a client could send and a file cannot say.
func TestValidate(t *testing.T) {
	good := minimal()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   string
		change func(*Session)
	}{
		{`missing TargetName for target "n"`, func(s *Session) { s.TargetName = "" }},
		{`missing TargetName for target "h"`, func(s *Session) { s.TargetName, s.Nickname = "", "" }},
		{"missing TargetName for target \"\"\nmissing TargetAddress for target \"\"", func(s *Session) { s.TargetName, s.Nickname, s.TargetAddress = "", "", "" }},
		{`cannot specify TargetName for discovery sessions for target "n"`, func(s *Session) { s.Discovery = true }},
		{`invalid initiator name ""`, func(s *Session) { s.InitiatorName = "" }},
		{`invalid target name "a\nb"`, func(s *Session) { s.TargetName = "a\nb" }},
		{`invalid target name "\xff"`, func(s *Session) { s.TargetName = "\xff" }},
		{`invalid AuthMethod for target "n"`, func(s *Session) { s.AuthMethod = 2 }},
		{`invalid chapDigest "md5" for target "n"`, func(s *Session) { s.CHAPDigest = "md5" }},
		{`invalid dscp value for target "n"; must be 0 to 63`, func(s *Session) { s.DSCP = 64 }},
		{`invalid dscp value for target "n"; must be 0 to 63`, func(s *Session) { s.DSCP = -2 }},
		{`invalid pcp value for target "n"; must be 0 to 7`, func(s *Session) { s.PCP = 8 }},
		{`invalid PingTimeout value for target "n"; must be 0 to 1000000`, func(s *Session) { s.PingTimeout = 1 << 40 }},
		{`invalid LoginTimeout value for target "n"; must be 1 to 1000000`, func(s *Session) { s.LoginTimeout = 0 }},
		{`invalid CommandTimeout value for target "n"; must be 0 to 1000000`, func(s *Session) { s.CommandTimeout = -2 }},
		{`invalid RecoveryTimeout value for target "n"; must be 0 to 1000000`, func(s *Session) { s.RecoveryTimeout = -2 }},
		{`invalid Device "lopp" for target "n"`, func(s *Session) { s.Device = "lopp" }},
		{`invalid Device "LOOP" for target "n"`, func(s *Session) { s.Device = "LOOP" }},
		{`invalid LUNs for target "n"`, func(s *Session) { s.LUNs = "3,1" }},
		{`overlong nickname for target "` + strings.Repeat("x", 223) + `..."; max length is 255 bytes`, func(s *Session) { s.Nickname = strings.Repeat("x", 300) }},
		{`overlong TargetAddress for target "n"; max length is 512 bytes`, func(s *Session) { s.TargetAddress = strings.Repeat("x", 513) }},
		{`overlong offload for target "n"; max length is 255 bytes`, func(s *Session) { s.Offload = strings.Repeat("x", 256) }},
		{`overlong chapIName for target "n"; max length is 255 bytes`, func(s *Session) { s.User = strings.Repeat("x", 256) }},
		{`overlong chapSecret for target "n"; max length is 1024 bytes`, func(s *Session) { s.Secret = strings.Repeat("x", 1025) }},
		{`invalid tgtChapName for target "n"; must be UTF-8 without control characters`, func(s *Session) { s.MutualUser = "\x00" }},
		{`invalid tgtChapSecret for target "n"; must be UTF-8 without control characters`, func(s *Session) { s.MutualSecret = "\n" }},
	} {
		s := minimal()
		c.change(&s)
		if err := s.Validate(); err == nil || err.Error() != c.want {
			t.Errorf("got %v\nwant %s", err, c.want)
		}
	}
}

func TestLongestAreAccepted(t *testing.T) {
	s := minimal()
	s.TargetName = "iqn." + strings.Repeat("x", 219)
	s.InitiatorName = s.TargetName
	s.InitiatorAlias = strings.Repeat("x", 255)
	s.AuthMethod, s.User, s.Secret = AuthCHAP, strings.Repeat("x", 255), strings.Repeat("x", 1024)
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

func TestSessionWarnings(t *testing.T) {
	s := minimal()
	if got := s.Warnings(); got != nil {
		t.Errorf("%q", got)
	}
	s.TargetName, s.TargetAddress = "foo", "a:b:c"
	want := []string{
		`unusual iSCSI name "foo": it begins with none of "iqn.", "eui." and "naa."`,
		`TargetAddress "a:b:c" for target "n": malformed address`,
	}
	if diff := cmp.Diff(want, s.Warnings()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestSplitAddress(t *testing.T) {
	for _, c := range []struct{ in, host, port, err string }{
		{"h", "h", "3260", ""},
		{"h.example.com:860", "h.example.com", "860", ""},
		{"10.0.0.1", "10.0.0.1", "3260", ""},
		{"10.0.0.1:03260", "10.0.0.1", "3260", ""},
		{"::1", "::1", "3260", ""},
		{"2001:db8::1:3260", "2001:db8::1:3260", "3260", ""},
		{"fe80::1%eth0", "fe80::1%eth0", "3260", ""},
		{"[::1]", "::1", "3260", ""},
		{"[fe80::1%eth0]:860", "fe80::1%eth0", "860", ""},
		{"[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1", "1", ""},
		{"", "", "", "empty address"},
		{":", "", "", "malformed address"},
		{":3260", "", "", "malformed address"},
		{"h:", "", "", "malformed address"},
		{"h:0", "", "", "malformed address"},
		{"h:65536", "", "", "malformed address"},
		{"h:-1", "", "", "malformed address"},
		{"h:iscsi", "", "", "malformed address"},
		{"h:1:2", "", "", "malformed address"},
		{"[", "", "", "malformed address"},
		{"[]", "", "", "malformed address"},
		{"[::1", "", "", "malformed address"},
		{"[::1]1", "", "", "malformed address"},
		{"[::1]:", "", "", "malformed address"},
		{"[10.0.0.1]:1", "", "", "malformed address"},
		{"h]:1", "", "", "malformed address"},
		{"a b", "", "", "malformed address"},
		{"../x:1", "", "", "malformed address"},
	} {
		host, port, err := SplitAddress(c.in)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if host != c.host || port != c.port || text != c.err {
			t.Errorf("%q: %q %q %q", c.in, host, port, text)
		}
	}
	for in, want := range map[string]string{"h": "0", "h:0": "0", "[::1]": "0", "h:7": "7"} {
		if _, port, err := SplitLocalAddress(in); port != want || err != nil {
			t.Errorf("local %q: %q, %v", in, port, err)
		}
	}
}

func TestLUNSet(t *testing.T) {
	for in, want := range map[string]LUNSet{
		"0": "0", "3-5,0": "0,3-5", " 1 , 2 - 3 ": "1-3", "5-5": "5", "007": "7", "1-4,2-3": "1-4", "1-3,2-9,20": "1-9,20",
		"18446744073709551615,0-18446744073709551615": "0-18446744073709551615",
	} {
		got, err := ParseLUNSet(in)
		if got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
		if again, err := ParseLUNSet(got.String()); again != got || err != nil {
			t.Errorf("%q read again: %q, %v", got, again, err)
		}
	}
	for _, bad := range []string{"", ",", "1,", "x", "-", "1-", "-1", "1--2", "2-1", "0x1", "+1", "18446744073709551616", strings.Repeat("1,", 3000) + "1"} {
		if got, err := ParseLUNSet(bad); err == nil {
			t.Errorf("%.20q: %q", bad, got)
		}
	}
	set := LUNSet("0,3-5")
	for lun, want := range map[uint64]bool{0: true, 1: false, 2: false, 3: true, 4: true, 5: true, 6: false, 1 << 63: false} {
		if set.Contains(lun) != want {
			t.Errorf("Contains(%d) = %v", lun, !want)
		}
	}
	if !LUNSet("").Contains(9) {
		t.Error("the empty set does not stand for all")
	}
}

func TestExpandNumber(t *testing.T) {
	for in, want := range map[string]uint64{
		"0": 0, "10": 10, "010": 8, "0x10": 16, "0XfF": 255, "0x1b": 27, "0x1e": 30, "1b": 1, "1B": 1, "0b": 0,
		"2k": 2048, "2M": 2 << 20, "0x2g": 2 << 30, "3t": 3 << 40, "3P": 3 << 50, "15e": 15 << 60,
		"18446744073709551615": 1<<64 - 1,
	} {
		if got, err := expandNumber(in); got != want || err != nil {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "k", "x", "-1", "+1", "1_000", "0b1", "0o7", "08", "0x", "0xg", "0xk", "1kk", "1 k", "1.5", "16e", "18446744073709551616", "1h"} {
		if got, err := expandNumber(bad); err == nil {
			t.Errorf("%q: %d", bad, got)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "bac", 1}, {"kitten", "sitting", 3}, {"ab", "ab12", 2},
	} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
