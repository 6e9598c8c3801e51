package conf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"iscsictl/parser"
)

const me = "iqn.2012-06.com.example:me"

func TestMain(m *testing.M) {
	// The name of the machine that tests run on does not matter.
	dir, err := os.MkdirTemp("", "conf")
	if err != nil {
		panic(err)
	}
	InitiatorNameFile = filepath.Join(dir, "initiatorname.iscsi")
	if err := os.WriteFile(InitiatorNameFile, []byte("InitiatorName="+me+"\n"), 0o600); err != nil {
		panic(err)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// minimal is the session of the entries that text puts before its own.
func minimal() Session {
	s := NewSession()
	s.Nickname, s.TargetName, s.TargetAddress = "n", "iqn.2012-06.com.example:t", "h"
	return s
}

func withMinimal(entries string) string {
	return "n {\nTargetName = iqn.2012-06.com.example:t\nTargetAddress = h\n" + entries + "\n}\n"
}

func TestDefaults(t *testing.T) {
	f, err := ParseBytes("x", []byte(withMinimal("")))
	if err != nil || len(f.Warnings) > 0 {
		t.Fatal(f.Warnings, err)
	}
	want := []Session{{
		Nickname: "n", InitiatorName: me, TargetName: "iqn.2012-06.com.example:t", TargetAddress: "h",
		Enable: true, DSCP: -1, PCP: -1, PingTimeout: -1, LoginTimeout: -1, CommandTimeout: -1, RecoveryTimeout: -1,
	}}
	if diff := cmp.Diff(want, f.Sessions); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestVariables(t *testing.T) {
	const chap = "chapIName = u; chapSecret = p\n"
	withCHAP := func(s *Session) { s.AuthMethod, s.User, s.Secret = AuthCHAP, "u", "p" }
	for _, c := range []struct {
		entries string
		want    func(*Session)
	}{
		{"InitiatorName = iqn.2012-06.com.example:other", func(s *Session) { s.InitiatorName = "iqn.2012-06.com.example:other" }},
		{"InitiatorAddress = 10.0.0.1:4000", func(s *Session) { s.InitiatorAddress = "10.0.0.1:4000" }},
		{`InitiatorAlias = "my, host"`, func(s *Session) { s.InitiatorAlias = "my, host" }},
		{"initiatoralias = x", func(s *Session) { s.InitiatorAlias = "x" }},
		{"INITIATORALIAS = port", func(s *Session) { s.InitiatorAlias = "port" }},
		{chap, withCHAP},
		{chap + "AuthMethod = chap", withCHAP},
		{chap + "AuthMethod = NONE", func(s *Session) { s.User, s.Secret = "u", "p" }},
		{chap + "tgtChapName = v; tgtChapSecret = q", func(s *Session) { withCHAP(s); s.MutualUser, s.MutualSecret = "v", "q" }},
		{chap + "chapDigest = md5", func(s *Session) { withCHAP(s); s.CHAPDigest = "MD5" }},
		{"chapDigest = sha1", func(s *Session) { s.CHAPDigest = "SHA1" }},
		{"chapDigest = Sha-256", func(s *Session) { s.CHAPDigest = "SHA-256" }},
		{"chapDigest = SHA3-256", func(s *Session) { s.CHAPDigest = "SHA3-256" }},
		{"HeaderDigest = crc32c", func(s *Session) { s.HeaderDigest = true }},
		{"HeaderDigest = None", func(*Session) {}},
		{"DataDigest = CRC32C", func(s *Session) { s.DataDigest = true }},
		{"SessionType = NORMAL", func(*Session) {}},
		{"Enable = no", func(s *Session) { s.Enable = false }},
		{"enable = OFF", func(s *Session) { s.Enable = false }},
		{"enable = Yes", func(*Session) {}},
		{"enable = on", func(*Session) {}},
		{"Protocol = ISER", func(s *Session) { s.ISER = true }},
		{"protocol = iSCSI", func(*Session) {}},
		{"Offload = cxgbei", func(s *Session) { s.Offload = "cxgbei" }},
		{"Offload = None", func(*Session) {}},
		{"dscp = 0", func(s *Session) { s.DSCP = 0 }},
		{"dscp = 0x3f", func(s *Session) { s.DSCP = 63 }},
		{"dscp = 017", func(s *Session) { s.DSCP = 15 }},
		{"dscp = BE", func(s *Session) { s.DSCP = 0 }},
		{"dscp = ef", func(s *Session) { s.DSCP = 46 }},
		{"dscp = cs0", func(s *Session) { s.DSCP = 0 }},
		{"dscp = CS7", func(s *Session) { s.DSCP = 56 }},
		{"dscp = af11", func(s *Session) { s.DSCP = 10 }},
		{"dscp = af23", func(s *Session) { s.DSCP = 22 }},
		{"dscp = AF43", func(s *Session) { s.DSCP = 38 }},
		{"pcp = 7", func(s *Session) { s.PCP = 7 }},
		{"PingTimeout = 0", func(s *Session) { s.PingTimeout = 0 }},
		{"PingTimeout = 1k", func(s *Session) { s.PingTimeout = 1024 }},
		{"LoginTimeout = 1", func(s *Session) { s.LoginTimeout = 1 }},
		{"CommandTimeout = 0", func(s *Session) { s.CommandTimeout = 0 }},
		{"RecoveryTimeout = 1000000", func(s *Session) { s.RecoveryTimeout = maxTimeout }},
		{"LUNs = 0,3-5", func(s *Session) { s.LUNs = "0,3-5" }},
		{"Device = UBLK", func(s *Session) { s.Device = "ublk" }},
		{"Device = socket;", func(s *Session) { s.Device = "socket" }},
		{"LUNs = 5, 4, 3 ,0;", func(s *Session) { s.LUNs = "0,3-5" }},
		{`LUNs = "0, 3-5"`, func(s *Session) { s.LUNs = "0,3-5" }},
	} {
		want := minimal()
		c.want(&want)
		f, err := ParseBytes("x", []byte(withMinimal(c.entries)))
		if err != nil {
			t.Errorf("%s: %v", c.entries, err)
			continue
		}
		if diff := cmp.Diff([]Session{want}, f.Sessions); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.entries, diff)
		}
	}
}

func TestDiscovery(t *testing.T) {
	f, err := ParseBytes("x", []byte("n { TargetAddress = h; SessionType = discovery }"))
	if err != nil || !f.Sessions[0].Discovery {
		t.Errorf("%+v, %v", f.Sessions, err)
	}
}

// mistakes returns the messages of the errors, with line and column.
func mistakes(t *testing.T, err error) []string {
	t.Helper()
	var errs parser.Errors
	if err != nil && !errors.As(err, &errs) {
		t.Fatalf("error of type %T: %v", err, err)
	}
	var all []string
	for _, e := range errs {
		all = append(all, fmt.Sprintf("%d:%d %s", e.Pos.Line, e.Pos.Column, e.Msg))
	}
	return all
}

func TestMistakes(t *testing.T) {
	const near = "error in configuration file at line 4 near "
	name224 := "iqn." + strings.Repeat("x", 220)
	for _, c := range []struct{ entries, want string }{
		{"TargetName = x", "4:1 duplicated TargetName at line 4"},
		{"targetaddress = x", "4:1 duplicated TargetAddress at line 4"},
		{"pcp = 1 pcp = 1", "4:9 duplicated pcp at line 4"},
		{"dscp = ef dscp = 1", "4:11 duplicated dscp at line 4"},
		{"Enable = on enable = on", "4:13 duplicated enable at line 4"},
		{"Offload = none offload = x", "4:16 duplicated offload at line 4"},
		{"Protocol = iser Protocol = iser", "4:17 duplicated protocol at line 4"},
		{"AuthMethod = x", `4:14 invalid AuthMethod at line 4; must be either "none" or "CHAP"`},
		{"HeaderDigest = CRC32", `4:16 invalid HeaderDigest at line 4; must be either "none" or "CRC32C"`},
		{"DataDigest =\nyes", `5:1 invalid DataDigest at line 5; must be either "none" or "CRC32C"`},
		{"SessionType = x", `4:15 invalid SessionType at line 4; must be either "normal" or "discovery"`},
		{"Enable = true", `4:10 invalid enable at line 4; must be either "on" or "off"`},
		{"Protocol = tcp", `4:12 invalid protocol at line 4; must be either "iscsi" or "iser"`},
		{"dscp = af14", "4:8 " + near + "'af14': invalid numeric value"},
		{"dscp = 0x40", "4:8 " + near + "'0x40': invalid dscp value; must be 0 to 63"},
		{"pcp = 8", "4:7 " + near + "'8': invalid pcp value; must be 0 to 7"},
		{"pcp = -1", "4:7 " + near + "'-1': invalid numeric value"},
		{"PingTimeout = 5s", "4:15 " + near + "'5s': invalid numeric value"},
		{"PingTimeout = 1m", "4:15 " + near + "'1m': invalid PingTimeout value; must be 0 to 1000000"},
		{"LoginTimeout = 0", "4:16 " + near + "'0': invalid LoginTimeout value; must be 1 to 1000000"},
		{"CommandTimeout = 1e", "4:18 " + near + "'1e': invalid CommandTimeout value; must be 0 to 1000000"},
		{"RecoveryTimeout = 99999999999999999999", "4:19 " + near + "'99999999999999999999': invalid numeric value"},
		{"LUNs = 5-3", "4:8 " + near + "'5-3': invalid LUNs value; must be numbers and ranges such as 0,3-5"},
		{"Device = lop", "4:10 " + near + `'lop': there is no kind of device "lop": ublk, nbd, loop, socket are; did you mean loop?`},
		{"Device = 7", "4:10 " + near + `'7': there is no kind of device "7": ublk, nbd, loop, socket are`},
		{"Devise = loop", "4:1 " + near + "'Devise': unknown variable; did you mean Device?"},
		{"LUNs = 1,x", "4:8 " + near + "'1,x': invalid LUNs value; must be numbers and ranges such as 0,3-5"},
		{"InitiatorAlias = a,b", "4:19 " + near + "',': unexpected ,; put the value in quotes"},
		{"TargetNam = x", "4:1 " + near + "'TargetNam': unknown variable; did you mean TargetName?"},
		{"InitatorName = x", "4:1 " + near + "'InitatorName': unknown variable; did you mean InitiatorName?"},
		{"hcapsecret = x", "4:1 " + near + "'hcapsecret': unknown variable; did you mean chapSecret?"},
		{"password = x", "4:1 " + near + "'password': unknown variable"},
		{"InitiatorName = " + name224, ""},
		{"InitiatorName = \"a\tb\x7f\"", `4:17 invalid initiator name "a\tb\x7f"`},
		{"InitiatorAlias = \"\x00TargetName=x\"", `4:18 invalid InitiatorAlias for target "n"; must be UTF-8 without control characters`},
		{"InitiatorAlias = \"\xff\"", `4:18 invalid InitiatorAlias for target "n"; must be UTF-8 without control characters`},
		{"InitiatorAlias = " + strings.Repeat("x", 256), `4:18 overlong InitiatorAlias for target "n"; max length is 255 bytes`},
		{"InitiatorAddress = " + strings.Repeat("x", 513), `4:20 overlong InitiatorAddress for target "n"; max length is 512 bytes`},
		{"AuthMethod = CHAP; chapIName = u", `1:1 missing chapSecret for target "n"`},
		{"chapIName = u", `1:1 missing chapSecret for target "n"`},
		{"chapSecret = u", `1:1 missing chapIName for target "n"`},
		{"chapIName = u; chapSecret = p; tgtChapName = v", `1:1 missing tgtChapSecret for target "n"`},
		{"chapIName = u; chapSecret = p; tgtChapSecret = v", `1:1 missing tgtChapName for target "n"`},
		{"SessionType = discovery", `2:14 cannot specify TargetName for discovery sessions for target "n"`},
		{"chapSecret = file:x", "4:14 " + near + `'file:x': "file:" must be followed by an absolute path`},
	} {
		f, err := ParseBytes("x", []byte(withMinimal(c.entries)))
		want := []string{c.want}
		if strings.Contains(c.entries, name224) {
			want = []string{
				fmt.Sprintf("4:17 overlong name for %q; max length allowed by iSCSI specification is 223 characters", name224),
				fmt.Sprintf("4:17 invalid initiator name %q", name224),
			}
		}
		if diff := cmp.Diff(want, mistakes(t, err)); diff != "" {
			t.Errorf("%.40q: (-want +got)\n%s", c.entries, diff)
		}
		if f == nil || f.Sessions != nil {
			t.Errorf("%.40q: sessions are given in spite of the error", c.entries)
		}
	}
}

func TestMistakesOfFiles(t *testing.T) {
	for _, c := range []struct {
		src  string
		want []string
	}{
		{"n { }", []string{`1:1 missing TargetName for target "n"`, `1:1 missing TargetAddress for target "n"`}},
		{"n { TargetName = iqn.x }", []string{`1:1 missing TargetAddress for target "n"`}},
		{"n { SessionType = Discovery }", []string{`1:1 missing TargetAddress for target "n"`}},
		{withMinimal("") + "N { TargetName = iqn.x; TargetAddress = h }", []string{"6:1 duplicated target N"}},
		// One mistake of an entry hides what may be missing because of it, and nothing else.
		{"a { TargetNam = iqn.x }\nb { TargetName = iqn.x }\nc { d }", []string{
			"1:5 error in configuration file at line 1 near 'TargetNam': unknown variable; did you mean TargetName?",
			`2:1 missing TargetAddress for target "b"`,
			"3:7 error in configuration file at line 3 near '}': expected = after d",
		}},
		{`"` + strings.Repeat("x", 256) + `" { TargetName = iqn.x; TargetAddress = h }`, []string{
			fmt.Sprintf("1:1 overlong nickname for target %q; max length is 255 bytes", strings.Repeat("x", 256)),
		}},
	} {
		_, err := ParseBytes("x", []byte(c.src))
		if diff := cmp.Diff(c.want, mistakes(t, err)); diff != "" {
			t.Errorf("%.60q: (-want +got)\n%s", c.src, diff)
		}
	}
}

func TestMessageHasLineAndCaret(t *testing.T) {
	_, err := ParseBytes("/etc/iscsi.conf", []byte("n {\n\tEnable = maybe # never\n}"))
	want := "/etc/iscsi.conf:2:11: invalid enable at line 2; must be either \"on\" or \"off\"\n" +
		"    \tEnable = maybe # never\n" +
		"    \t         ^"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestTooManyErrors(t *testing.T) {
	_, err := ParseBytes("x", []byte(strings.Repeat("n { }\n", 1000)))
	if n := len(mistakes(t, err)); n > 20 {
		t.Errorf("%d errors", n)
	}
}

func TestWarnings(t *testing.T) {
	const chap = "chapIName = u; chapSecret = p;"
	for _, c := range []struct {
		entries string
		want    []string
	}{
		{"MaxConnections = 1\nPORT = 2 TAGS = 3", []string{
			"x:4:1: obsolete statement ignored at line 4",
			"x:5:1: obsolete statement ignored at line 5",
			"x:5:10: obsolete statement ignored at line 5",
		}},
		{"port = 1; port = 1", []string{"x:4:1: obsolete statement ignored at line 4", "x:4:11: obsolete statement ignored at line 4"}},
		{"chapDigest = foo", []string{"x:4:1: obsolete statement ignored at line 4"}},
		{"InitiatorName = foo", []string{`x:4:17: unusual iSCSI name "foo": it begins with none of "iqn.", "eui." and "naa."`}},
		{"InitiatorName = iqn.a_b", []string{`x:4:17: unusual iSCSI name "iqn.a_b": it has '_', and not just letters, digits, '-', '.' and ':'`}},
		{`InitiatorName = "iqn.ü/.."`, []string{`x:4:17: unusual iSCSI name "iqn.ü/..": it has 'ü', and not just letters, digits, '-', '.' and ':'`}},
		{"InitiatorName = iqn.", []string{`x:4:17: unusual iSCSI name "iqn.": nothing follows "iqn."`}},
		{"InitiatorName = eui.0123", []string{`x:4:17: unusual iSCSI name "eui.0123": "eui." is followed by 16 hexadecimal digits`}},
		{"InitiatorName = naa.xyz", []string{`x:4:17: unusual iSCSI name "naa.xyz": "naa." is followed by 16 or 32 hexadecimal digits`}},
		{"InitiatorName = eui.0123456789abcDEF", nil},
		{"InitiatorName = naa.52004567BA64678D", nil},
		{"InitiatorName = IQN.2001-04.com.Example", nil},
		{"InitiatorName = iqn." + strings.Repeat("x", 219), nil},
		{"InitiatorAddress = [::1", []string{`x:4:20: InitiatorAddress "[::1" for target "n": malformed address`}},
		{chap + "AuthMethod = None", []string{`x:4:44: AuthMethod is None, so CHAP names and secrets are not used for target "n"`}},
		{chap + "tgtChapName = v; tgtChapSecret = p", []string{`x:4:64: tgtChapSecret is the same as chapSecret for target "n"; targets may refuse that`}},
	} {
		f, err := ParseBytes("x", []byte(withMinimal(c.entries)))
		if err != nil {
			t.Errorf("%s: %v", c.entries, err)
		}
		if diff := cmp.Diff(c.want, f.Warnings); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.entries, diff)
		}
	}
}

func TestObsolete(t *testing.T) {
	for _, name := range strings.Fields(`port MaxConnections TargetAlias TargetPortalGroupTag InitialR2T ImmediateData
		MaxRecvDataSegmentLength MaxBurstLength FirstBurstLength DefaultTime2Wait DefaultTime2Retain MaxOutstandingR2T
		DataPDUInOrder DataSequenceInOrder ErrorRecoveryLevel tags maxluns sockbufsize`) {
		f, err := ParseBytes("x", []byte(withMinimal(name+" = x")))
		if err != nil || len(f.Warnings) != 1 {
			t.Errorf("%s: %q, %v", name, f.Warnings, err)
		}
	}
}

func TestDefaultNameWarnsOnce(t *testing.T) {
	defer func(path string) { InitiatorNameFile = path }(InitiatorNameFile)
	InitiatorNameFile = filepath.Join(t.TempDir(), "name")
	write(t, InitiatorNameFile, "InitiatorName=foo\n", 0o600)
	f, err := ParseBytes("x", []byte(withMinimal("")+strings.Replace(withMinimal(""), "n", "m", 1)))
	if err != nil || len(f.Sessions) != 2 || len(f.Warnings) != 1 {
		t.Errorf("%d sessions, %q, %v", len(f.Sessions), f.Warnings, err)
	}
}

func TestFind(t *testing.T) {
	f := File{Sessions: []Session{{Nickname: "a"}, {Nickname: "Bc"}}}
	if s := f.Find("bC"); s != &f.Sessions[1] {
		t.Errorf("found %v", s)
	}
	if s := f.Find("d"); s != nil {
		t.Errorf("found %v", s)
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	missing, socket, large := filepath.Join(dir, "missing"), filepath.Join(dir, "socket"), filepath.Join(dir, "large")
	if err := syscall.Mknod(socket, syscall.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	write(t, large, "", 0o600)
	if err := os.Truncate(large, 1<<40); err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{
		missing: "no such file or directory",
		dir:     "is a directory",
		socket:  "not a regular file",
		large:   "larger than 16777216 bytes",
	}
	if os.Getuid() != 0 {
		secret := filepath.Join(dir, "secret")
		write(t, secret, "", 0)
		cases[secret] = "permission denied"
	}
	for path, why := range cases {
		f, err := Parse(path)
		if want := "unable to open configuration file " + path + ": " + why; err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
		if f == nil {
			t.Errorf("%s: no File", path)
		}
	}
	if _, err := Parse(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v is not os.ErrNotExist", err)
	}
}

func TestPipeAndDevNull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o666); err != nil {
		t.Fatal(err)
	}
	written := make(chan error)
	go func() { written <- os.WriteFile(path, []byte(withMinimal("")), 0) }()
	f, err := Parse(path)
	if err != nil || len(f.Sessions) != 1 || len(f.Warnings) > 0 {
		t.Errorf("pipe: %+v, %v", f, err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	if f, err := Parse(os.DevNull); err != nil || len(f.Sessions) > 0 || len(f.Warnings) > 0 {
		t.Errorf("%s: %+v, %v", os.DevNull, f, err)
	}
}

func TestBinaryGarbage(t *testing.T) {
	for _, data := range []string{"\x00", "\x7fELF\x02\x01\x01\x00", "\xff\xfea\x00{\x00", strings.Repeat("\x00", 1<<20)} {
		f, err := ParseBytes("x", []byte(data))
		if n := len(mistakes(t, err)); n != 1 || len(f.Sessions) > 0 {
			t.Errorf("%.10q: %d errors", data, n)
		}
	}
}

func TestDefaultInitiatorName(t *testing.T) {
	defer func(path string) { InitiatorNameFile = path }(InitiatorNameFile)
	InitiatorNameFile = filepath.Join(t.TempDir(), "initiatorname.iscsi")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	fallback := "iqn.1994-09.org.freebsd:" + host
	if got := DefaultInitiatorName(); got != fallback {
		t.Errorf("without the file: %s", got)
	}
	for text, want := range map[string]string{
		"InitiatorName=iqn.a\n":                                "iqn.a",
		"# InitiatorName=iqn.a\n\n InitiatorName = iqn.b \r\n": "iqn.b",
		"InitiatorName=iqn.a\nInitiatorName=iqn.b":             "iqn.a",
		"GenerateName=yes\n":                                   fallback,
		"InitiatorName=\n":                                     fallback,
		"":                                                     fallback,
		strings.Repeat("x", 1<<17):                             fallback,
	} {
		write(t, InitiatorNameFile, text, 0o600)
		if got := DefaultInitiatorName(); got != want {
			t.Errorf("%.40q: got %s, want %s", text, got, want)
		}
	}
}
