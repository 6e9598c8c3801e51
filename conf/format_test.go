package conf

import (
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFormat(t *testing.T) {
	s := minimal()
	s.InitiatorAlias, s.HeaderDigest, s.DSCP, s.LUNs, s.Enable = "my # host", true, 0, "0,3-5", false
	want := `n {
	TargetName = iqn.2012-06.com.example:t
	TargetAddress = h
	InitiatorName = iqn.2012-06.com.example:me
	InitiatorAlias = "my # host"
	HeaderDigest = CRC32C
	Enable = off
	dscp = 0
	LUNs = "0,3-5"
}
`
	if diff := cmp.Diff(want, Format(s)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// full returns a session in which nothing is default, and fails where a field
// was forgotten.
func full(t *testing.T) Session {
	s := Session{
		Nickname: "a b", InitiatorName: "iqn.x:i", InitiatorAddress: "[::1]:1", InitiatorAlias: "ü,#;{}\t\\",
		TargetName: "iqn.x:t", TargetAddress: "fe80::1%eth0",
		AuthMethod: AuthCHAP, User: "u", Secret: " p ", MutualUser: "v", MutualSecret: "file", CHAPDigest: "SHA-256",
		HeaderDigest: true, DataDigest: true, Discovery: true, Enable: true, ISER: true, Offload: "x",
		DSCP: 1, PCP: 2, PingTimeout: 3, LoginTimeout: 4, CommandTimeout: 5, RecoveryTimeout: 6, LUNs: "1-2,7", Device: "nbd",
	}
	for v, i := reflect.ValueOf(s), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Fatalf("%s is not set", v.Type().Field(i).Name)
		}
	}
	return s
}

func TestFormatRoundTrip(t *testing.T) {
	for name, change := range map[string]func(*Session){
		"normal":                     func(s *Session) { s.Discovery = false },
		"discovery":                  func(s *Session) { s.TargetName = "" },
		"disabled":                   func(s *Session) { s.Discovery, s.Enable = false, false },
		"None with names":            func(s *Session) { s.Discovery, s.AuthMethod = false, AuthNone },
		"minimal":                    func(s *Session) { *s = minimal() },
		"nickname like a variable":   func(s *Session) { *s = minimal(); s.Nickname = "TargetName" },
		"secret with the file's end": func(s *Session) { *s = minimal(); s.AuthMethod, s.User, s.Secret = AuthCHAP, "}", "x\\" },
	} {
		s := full(t)
		change(&s)
		f, err := ParseBytes("x", []byte(Format(s)))
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, Format(s))
			continue
		}
		if diff := cmp.Diff([]Session{s}, f.Sessions); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

// TestFormatIsSafe has values that a hostile target could send to get entries
// of its own into somebody's file.
func TestFormatIsSafe(t *testing.T) {
	for _, evil := range []string{
		"iqn.x\"\n}\nevil { TargetName = iqn.e; TargetAddress = h }", "a\nb", "a\"b", "\x1b[2J", "\xff", "\r", "a } evil {",
	} {
		s := minimal()
		s.Nickname, s.TargetName, s.TargetAddress, s.InitiatorAlias = "", evil, evil, evil
		f, err := ParseBytes("x", []byte(Format(s)))
		for _, got := range f.Sessions {
			if got.TargetName != evil {
				t.Errorf("%q became %+v", evil, got)
			}
		}
		if err != nil && !strings.Contains(err.Error(), "missing TargetName") {
			t.Errorf("%q: %v", evil, err)
		}
	}
	s := minimal()
	s.Nickname, s.Secret = "", "file:/etc/shadow"
	if text := Format(s); strings.Contains(text, "shadow") || !strings.Contains(text, "# chapSecret is left out") {
		t.Error(text)
	}
	if got := Format(Session{}); !strings.HasPrefix(got, "target {") {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		withMinimal(""), withMinimal("chapIName = u; chapSecret = \"p q\"; dscp = af11; LUNs = 1,3-4"),
		"d { TargetAddress = [::1]:3260; SessionType = Discovery; Enable = off; pcp = 07 }", "n { port = 1 }", "",
		withMinimal("AuthMethod = None; tgtChapName = x; Offload = none; PingTimeout = 0x10; chapDigest = md5; protocol = iser"),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), secretFile) {
			t.Skip("would read files")
		}
		file, err := ParseBytes("x", data)
		if err != nil {
			if len(file.Sessions) > 0 {
				t.Error("sessions in spite of an error")
			}
			_ = err.Error()
			return
		}
		var text strings.Builder
		for i := range file.Sessions {
			if err := file.Sessions[i].Validate(); err != nil {
				t.Errorf("parsed, but not valid: %v", err)
			}
			text.WriteString(Format(file.Sessions[i]))
		}
		again, err := ParseBytes("x", []byte(text.String()))
		if err != nil {
			t.Fatalf("%v\n%s", err, text.String())
		}
		if diff := cmp.Diff(file.Sessions, again.Sessions); diff != "" {
			t.Errorf("(-first +again)\n%s", diff)
		}
	})
}

// large is a file of n targets of eight lines each.
func large(n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `target%d {
	TargetName = iqn.2012-06.com.example:target%d
	TargetAddress = 192.168.1.1:3260
	AuthMethod = CHAP
	chapIName = user
	chapSecret = "secret secret"
	HeaderDigest = CRC32C;
}
`, i, i)
	}
	return []byte(b.String())
}

func TestLarge(t *testing.T) {
	f, err := ParseBytes("x", large(10_000))
	if err != nil || len(f.Sessions) != 10_000 || len(f.Warnings) > 0 {
		t.Errorf("%d sessions, %d warnings, %v", len(f.Sessions), len(f.Warnings), err)
	}
}

// processorTime is what the process has used so far, in all threads.
func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkParse10000 fails where a file of 10,000 targets takes a second or
// more of processor time, which other load on the machine does not change much.
func BenchmarkParse10000(b *testing.B) {
	data := large(10_000)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	start := processorTime(b)
	for b.Loop() {
		if _, err := ParseBytes("x", data); err != nil {
			b.Fatal(err)
		}
	}
	per := (processorTime(b) - start) / time.Duration(b.N)
	b.ReportMetric(per.Seconds(), "cpu-s/op")
	if per >= time.Second {
		b.Errorf("%v for 10,000 targets; must be under 1 s", per)
	}
}
