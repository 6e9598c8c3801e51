package login_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"iscsictl/iscsi"
	"iscsictl/session/login"
)

// The words are those that the listing shows.
func TestStatus(t *testing.T) {
	for status, want := range map[iscsi.LoginStatus]string{
		0x0200: "Initiator error",
		0x0201: "Authentication failure",
		0x0202: "Authorization failure",
		0x0203: "Not found",
		0x0204: "Target removed",
		0x0205: "Unsupported version",
		0x0206: "Too many connections",
		0x0207: "Missing parameter",
		0x0208: "Can't include in session",
		0x0209: "Session type not supported",
		0x020a: "Session does not exist",
		0x020b: "Invalid during login",
		0x02ff: "unknown initiator error; Status-Class 0x2, Status-Detail 0xff",
		0x0300: "Target error",
		0x0301: "Service unavailable",
		0x0302: "Out of resources",
		0x0303: "unknown target error; Status-Class 0x3, Status-Detail 0x3",
		0x0103: "unknown redirection; Status-Class 0x1, Status-Detail 0x3",
		0x0401: "unknown error; Status-Class 0x4, Status-Detail 0x1",
	} {
		// Whatever else is in the header of a refusal means nothing.
		refuse := answer{edit: func(p *iscsi.LoginResponse) {
			*p = iscsi.LoginResponse{Status: status, CurrentStage: 2, VersionActive: 9}
		}}
		for _, script := range [][]answer{{refuse}, {none, refuse}} {
			_, _, err := run(t, normal(), script...)
			var got *login.StatusError
			if !errors.As(err, &got) || got.Status != status || got.Text != want || login.Reason(fmt.Errorf("x: %w", err)) != want {
				t.Errorf("%#04x: got %v, want %s", uint16(status), err, want)
			}
		}
	}
}

func TestRedirect(t *testing.T) {
	for _, c := range []struct {
		status  iscsi.LoginStatus
		keys    string
		address string // empty: an error
	}{
		{0x0101, "TargetAddress=10.0.0.2:3261,1", "10.0.0.2:3261"},
		{0x0101, "X-a=1|TargetAddress=host.example|TargetAddress=other", "host.example:3260"},
		{0x0102, "TargetAddress=[2001:db8::1]:860", "[2001:db8::1]:860"},
		{0x0102, "TargetAddress=[2001:db8::1]", "[2001:db8::1]:3260"},
		{0x0101, "", ""},
		{0x0101, "TargetName=iqn.x", ""},
		{0x0101, "TargetAddress=", ""},
		{0x0101, "TargetAddress=host:0", ""},
		{0x0101, "TargetAddress=host:65536", ""},
		{0x0101, "TargetAddress=a\nb", ""},
		{0x0101, "TargetAddress=[fe80::1%eth0]", ""},
		{0x0101, "TargetAddress=" + strings.Repeat("h", 300), ""},
		{0x0101, "TargetAddress", ""},
	} {
		_, _, err := run(t, normal(), answer{keys: c.keys, edit: func(p *iscsi.LoginResponse) { p.Status = c.status }})
		var got *login.Redirect
		switch {
		case !errors.As(err, &got):
			if c.address != "" || err == nil || errors.Is(err, errScriptEnds) {
				t.Errorf("%s: got %v", c.keys, err)
			}
		case c.address == "" || got.Address != c.address || got.Permanent != (c.status == 0x0102):
			t.Errorf("%s: got %+v", c.keys, got)
		case login.Reason(err) != c.status.String() || !strings.HasPrefix(err.Error(), "Target moved "):
			t.Errorf("%s: reason %q", c.keys, login.Reason(err))
		}
	}
}

// Headers that do not fit the request (RFC 7143 §11.13).
func TestHeaderRefused(t *testing.T) {
	for name, edit := range map[string]func(*iscsi.LoginResponse){
		"version":              func(p *iscsi.LoginResponse) { p.VersionActive = 1 },
		"tag":                  func(p *iscsi.LoginResponse) { p.InitiatorTaskTag++ },
		"reserved tag":         func(p *iscsi.LoginResponse) { p.InitiatorTaskTag = iscsi.ReservedTag },
		"ISID":                 func(p *iscsi.LoginResponse) { p.ISID[5]++ },
		"another stage":        func(p *iscsi.LoginResponse) { p.CurrentStage = operational },
		"reserved stage":       func(p *iscsi.LoginResponse) { p.CurrentStage = 2 },
		"a stage skipped":      func(p *iscsi.LoginResponse) { p.NextStage = fullFeature },
		"back to security":     func(p *iscsi.LoginResponse) { p.NextStage = security },
		"T with C":             func(p *iscsi.LoginResponse) { p.Continue = true },
		"less data than said":  func(p *iscsi.LoginResponse) { p.DataSegmentLength++ },
		"more data than said":  func(p *iscsi.LoginResponse) { p.DataSegmentLength-- },
		"unknown success code": func(p *iscsi.LoginResponse) { p.Status = 0x0001 },
	} {
		a := none
		a.edit = edit
		if _, _, err := run(t, normal(), a, agree); err == nil || errors.Is(err, errScriptEnds) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	a := agree
	a.edit = func(p *iscsi.LoginResponse) { p.TSIH = 0 }
	if _, _, err := run(t, normal(), none, a); err == nil {
		t.Error("a session without a TSIH was accepted")
	}
	cfg := with(func(c *login.Config) { c.TSIH = 9 })
	if _, _, err := run(t, cfg, none, agree); err == nil {
		t.Error("another TSIH was accepted")
	}
	a = none
	a.next = 0
	if _, _, err := run(t, mutual(), answer{next: operational, keys: "AuthMethod=CHAP"}); err == nil {
		t.Error("a transition without being asked was accepted")
	}
}

func TestOtherPDUs(t *testing.T) {
	next := func(h *iscsi.BHS) error {
		m := login.New(normal())
		if _, _, _, err := m.Next(nil, nil); err != nil {
			t.Fatal(err)
		}
		_, _, _, err := m.Next(h, nil)
		return err
	}
	var h iscsi.BHS
	reject := iscsi.Reject{Reason: iscsi.RejectProtocolError}
	reject.Encode(&h)
	if err := next(&h); err == nil || !strings.Contains(err.Error(), "protocol error") {
		t.Errorf("Reject: %v", err)
	}
	for op := range 64 {
		if h = (iscsi.BHS{byte(op)}); op != int(iscsi.OpLoginResponse) && next(&h) == nil {
			t.Errorf("%v was accepted", h.Opcode())
		}
	}
}

func TestNumbers(t *testing.T) {
	a, b := none, agree
	a.edit = func(p *iscsi.LoginResponse) { p.StatSN = 0xffffffff }
	b.edit = func(p *iscsi.LoginResponse) { p.StatSN, p.ExpCmdSN, p.MaxCmdSN = 0, 77, 76 }
	reqs, res, err := run(t, normal(), a, b)
	if err != nil || reqs[1].ExpStatSN != 0 || res.ExpStatSN != 1 || res.MaxCmdSN != 76 || len(res.Warnings) > 0 {
		t.Errorf("wrap: %v, %+v", err, res)
	}
	b.edit = func(p *iscsi.LoginResponse) { p.StatSN, p.ExpCmdSN, p.MaxCmdSN = 5, 78, 70 }
	_, res, err = run(t, normal(), a, b)
	if err != nil || res.ExpStatSN != 6 || len(res.Warnings) != 2 {
		t.Errorf("wrong StatSN: %v, %+v", err, res)
	}
	if res.ExpCmdSN != 77 || res.MaxCmdSN != 108 { // those of the answer before
		t.Errorf("an impossible window was taken: %+v", res)
	}
}

func TestTextRefused(t *testing.T) {
	for name, keys := range map[string]string{
		"no value":            "MaxBurstLength",
		"no key":              "=1",
		"long key":            strings.Repeat("k", 64) + "=1",
		"key twice":           agreed + "|MaxBurstLength=512",
		"unknown key twice":   "X-a=1|X-a=1",
		"tag out of range":    "TargetPortalGroupTag=65536",
		"name not understood": "InitiatorName=NotUnderstood",
		"type rejected":       "SessionType=Reject",
		"AuthMethod too late": "AuthMethod=None",
		"CHAP too late":       "CHAP_A=5",
	} {
		if _, _, err := run(t, normal(), none, answer{next: fullFeature, keys: keys}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// A key that was answered must not come again in a later answer.
	_, _, err := run(t, normal(), none, answer{keys: "MaxBurstLength=512|FirstBurstLength=512"}, answer{keys: "MaxBurstLength=512"})
	if err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("renegotiation: %v", err)
	}
	_, _, err = run(t, normal(), answer{next: operational, keys: "AuthMethod=None|TargetAlias=a"}, answer{keys: "TargetAlias=a"})
	if err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("redeclaration: %v", err)
	}
}

// Every truncation of an answer, within a pair, must fail.
func TestTruncated(t *testing.T) {
	whole := text(agreed)
	for n := 1; n < len(whole); n++ {
		_, res, err := run(t, normal(), none, answer{next: fullFeature, raw: whole[:n]})
		switch boundary := whole[n-1] == 0; {
		case boundary && err != nil:
			t.Errorf("%d bytes, whole pairs: %v", n, err)
		// What comes from there on is the default, on which a target may be silent.
		case boundary && len(res.Warnings) == 0 && n < strings.Index(string(whole), iscsi.KeyDataPDUInOrder):
			t.Errorf("%d bytes: no warning of what is missing", n)
		case !boundary && err == nil:
			t.Errorf("%d bytes ending in %q were accepted", n, whole[max(0, n-8):n])
		}
	}
}

func TestBounds(t *testing.T) {
	big := []byte("X-a=" + strings.Repeat("a", 8187) + "\x00")
	many := func(n int, a answer) []answer {
		var out []answer
		for range n {
			out = append(out, a)
		}
		return out
	}
	for name, script := range map[string][]answer{
		"64 KiB with C":        append([]answer{none}, many(9, answer{raw: big, more: true})...),
		"more than 8 KiB":      {{raw: append(big, 0)}},
		"for ever":             append([]answer{none}, many(256, answer{})...),
		"for ever with C":      many(257, answer{more: true}),
		"for ever in security": many(257, answer{}),
	} {
		_, _, err := run(t, normal(), script...)
		if err == nil || errors.Is(err, errScriptEnds) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Many offers of a target, whose answers take several PDUs.
	var keys []string
	for i := range 1000 {
		keys = append(keys, fmt.Sprintf("X-%d=1", i))
	}
	more := answer{keys: strings.Join(keys, "|")}
	reqs, _, err := run(t, normal(), none, more, answer{}, answer{}, answer{next: fullFeature, keys: agreed})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range reqs[2:] {
		n += strings.Count(r.keys, "=NotUnderstood") + strings.Count(r.keys, "=NotUnder ")
	}
	if !reqs[2].Continue || !reqs[3].Continue || reqs[4].Continue || n < 998 {
		t.Errorf("%d answers in %d requests", n, len(reqs))
	}
}

func TestReasonIsClean(t *testing.T) {
	for err, want := range map[error]string{
		errors.New("a\x1b[2Jb\nc\xff"):          "a?[2Jb?c?",
		errors.New(strings.Repeat("long", 100)): strings.Repeat("long", 100)[:255],
		login.ErrMutualCHAPFailed:               "Mutual CHAP failed",
	} {
		if got := login.Reason(err); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := login.Reason(nil); got != "" {
		t.Errorf("no error has the reason %q", got)
	}
}
