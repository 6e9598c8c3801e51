package login_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"iscsictl/iscsi"
	"iscsictl/session/login"
	"iscsictl/transport"
)

func TestNone(t *testing.T) {
	reqs, res, err := run(t, normal(),
		answer{next: operational, keys: "AuthMethod=None|TargetAlias=the \x1b[31malias|TargetPortalGroupTag=0x10"}, agree)
	if err != nil {
		t.Fatal(err)
	}
	common := iscsi.LoginRequest{Transit: true, ISID: isid, InitiatorTaskTag: initiatorTaskTag, CID: 3, CmdSN: 77}
	one, two := request{common, first + "AuthMethod=None"}, request{common, offered}
	one.NextStage, one.DataSegmentLength = operational, len(one.keys)+1
	two.CurrentStage, two.NextStage, two.ExpStatSN, two.DataSegmentLength = operational, fullFeature, 1001, len(two.keys)+1
	if d := cmp.Diff([]request{one, two}, reqs, cmp.AllowUnexported(request{})); d != "" {
		t.Error("requests (-want +got):\n", d)
	}
	want := login.Result{
		Params: transport.Params{
			MaxRecvDataSegmentLength: 262144, MaxSendDataSegmentLength: 65536, MaxBurstLength: 262144, FirstBurstLength: 65536,
			ImmediateData: true, InitialR2T: true, MaxOutstandingR2T: 1, DataPDUInOrder: true, DataSequenceInOrder: true,
			DefaultTime2Wait: 2 * time.Second,
		},
		TSIH: 7, ExpStatSN: 1002, CmdSN: 77, ExpCmdSN: 77, MaxCmdSN: 108,
		TargetAlias: "the ?[31malias", TargetPortalGroupTag: 16, AuthMethod: "None", ProtocolLevel: 1,
	}
	if d := cmp.Diff(want, res); d != "" {
		t.Error("result (-want +got):\n", d)
	}
}

func TestDiscovery(t *testing.T) {
	cfg := with(func(c *login.Config) {
		c.Discovery, c.TargetName, c.HeaderDigest = true, "", true
		c.Offers.MaxBurstLength = 0 // is not offered, so it need not be right
		c.Offers.Extra = []iscsi.KeyValue{{Key: "RDMAExtensions", Value: "Yes"}}
		c.Offers.Check = func([]iscsi.KeyValue) error { return errors.New("checked") }
	})
	reqs, res, err := run(t, cfg, answer{next: operational, keys: "AuthMethod=None"},
		answer{keys: "HeaderDigest=None|DataDigest=None|MaxRecvDataSegmentLength=8192|DefaultTime2Wait=0|DefaultTime2Retain=0|" +
			"ErrorRecoveryLevel=0|MaxConnections=8|InitialR2T=No|MaxBurstLength=99|RDMAExtensions=Yes"},
		answer{next: fullFeature})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"InitiatorName=iqn.2012-06.com.example:host InitiatorAlias=host SessionType=Discovery AuthMethod=None",
		"HeaderDigest=None DataDigest=None MaxRecvDataSegmentLength=262144 DefaultTime2Wait=0 DefaultTime2Retain=0 ErrorRecoveryLevel=0",
		"MaxConnections=Irrelevant InitialR2T=Irrelevant MaxBurstLength=Irrelevant RDMAExtensions=NotUnderstood",
	} {
		if reqs[i].keys != want {
			t.Errorf("request %d: got  %s\nwant %s", i, reqs[i].keys, want)
		}
	}
	if len(res.Warnings) > 0 {
		t.Errorf("warnings %q", res.Warnings)
	}
}

// Targets that say little: no AuthMethod, empty answers, keys one at a time.
func TestReticentTargets(t *testing.T) {
	var single []answer
	for _, kv := range strings.Split(agreed, "|") {
		single = append(single, answer{keys: kv})
	}
	empty := answer{}
	for name, script := range map[string][]answer{
		"AuthMethod after an empty answer": {empty, empty, none, agree},
		"None, then the transition":        {{keys: "AuthMethod=None"}, {next: operational}, agree},
		"None, then nothing for a while":   {{keys: "AuthMethod=None"}, empty, {next: operational}, agree},
		"AuthMethod left out":              {{next: operational}, agree},
		"answers, then the transition":     {none, {keys: agreed}, {next: fullFeature}},
		"the transition after a while":     {none, empty, {keys: agreed}, empty, {next: fullFeature}},
		"one key a time":                   append(append([]answer{none}, single...), answer{next: fullFeature}),
		"NULs as padding":                  {none, {next: fullFeature, keys: "|" + agreed + "||"}},
	} {
		t.Run(name, func(t *testing.T) {
			reqs, res, err := run(t, normal(), script...)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range reqs {
				if !r.Transit {
					t.Errorf("request %d is not ready to go on", i)
				}
			}
			if res.Params.MaxBurstLength != 262144 || res.TSIH != 7 || res.ExpStatSN != targetStatSN+uint32(len(script)) {
				t.Errorf("result %+v", res)
			}
		})
	}
}

// Text of a target that goes on in further PDUs (RFC 7143 §6.2), split at every byte.
func TestSplitAnswers(t *testing.T) {
	split := func(a answer, at ...int) []answer {
		var out []answer
		s, from := text(a.keys), 0
		for _, to := range append(at, len(s)) {
			out = append(out, answer{raw: s[from:to:to], more: true})
			from = to
		}
		last := &out[len(out)-1]
		last.more, last.next = false, a.next
		return out
	}
	check := func(what string, script []answer) {
		t.Helper()
		reqs, res, err := run(t, mutual(), script...)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !res.Mutual || res.Params.MaxSendDataSegmentLength != 65536 || res.Params.FirstBurstLength != 65536 {
			t.Errorf("%s: result %+v", what, res)
		}
		for i, a := range script[:len(script)-1] {
			if a.more && reqs[i+1].DataSegmentLength != 0 {
				t.Errorf("%s: request %d was to be empty: %q", what, i+1, reqs[i+1].keys)
			}
		}
	}
	whole := []answer{{keys: "AuthMethod=CHAP|TargetPortalGroupTag=1"}, {keys: challenge}, {next: operational, keys: theirAnswer}, agree}
	for i := range whole {
		for at := range len(whole[i].keys) + 1 {
			script := append([]answer{}, whole[:i]...)
			script = append(script, split(whole[i], at)...)
			check("split", append(script, whole[i+1:]...))
		}
	}
	var script []answer
	for _, a := range whole {
		var at []int
		for n := 5; n < len(a.keys); n += 5 {
			at = append(at, n)
		}
		script = append(script, split(a, at...)...)
	}
	check("many pieces", script)
}

// Our own text that goes on: further keys of more than one PDU.
func TestSplitRequests(t *testing.T) {
	var got []iscsi.KeyValue
	cfg := with(func(c *login.Config) {
		for _, k := range []string{"X-a", "X-b", "X-c"} {
			c.Offers.Extra = append(c.Offers.Extra, iscsi.KeyValue{Key: k, Value: strings.Repeat(k, 2500)})
		}
		c.Offers.Check = func(answers []iscsi.KeyValue) error { got = answers; return nil }
	})
	last := answer{next: fullFeature, keys: agreed + "|X-b=yes|X-a=NotUnderstood"}
	reqs, res, err := run(t, cfg, none, answer{}, answer{}, last)
	if err != nil {
		t.Fatal(err)
	}
	if len(reqs) != 4 {
		t.Fatalf("%d requests", len(reqs))
	}
	for i, r := range reqs[1:] {
		if end := i == 2; r.Continue == end || r.Transit != end || !end && r.DataSegmentLength != 8192 {
			t.Errorf("piece %d: C %v, T %v, %d bytes", i, r.Continue, r.Transit, r.DataSegmentLength)
		}
	}
	want := []iscsi.KeyValue{{Key: "X-b", Value: "yes"}, {Key: "X-a", Value: "NotUnderstood"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error("answers for Check (-want +got):\n", d)
	}
	if d := cmp.Diff(want, res.Params.Extra); d != "" {
		t.Error("Params.Extra (-want +got):\n", d)
	}
	for name, a := range map[string]answer{
		"keys while ours go on": {keys: "MaxBurstLength=512"},
		"C while ours go on":    {more: true},
		"T while ours go on":    {next: fullFeature},
	} {
		if _, _, err := run(t, cfg, none, a, answer{}, last); err == nil || errors.Is(err, errScriptEnds) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg.Offers.Check = func([]iscsi.KeyValue) error { return errors.New("no RDMA") }
	if _, _, err := run(t, cfg, none, answer{}, answer{}, last); err == nil || !strings.Contains(err.Error(), "no RDMA") {
		t.Errorf("Check's error was lost: %v", err)
	}
}

// Keys that a target offers by itself.
func TestUnasked(t *testing.T) {
	for _, c := range []struct{ keys, want string }{
		{"X-com.example.thing=1", "X-com.example.thing=NotUnderstood"}, // §6.2
		{"IFMarker=No|OFMarker=Yes", "IFMarker=No OFMarker=No"},        // §13.25
		{"IFMarkInt=2048|OFMarkInt=1~9", "IFMarkInt=Reject OFMarkInt=Reject"},
		{"TaskReporting=FastAbort,RFC3720", "TaskReporting=RFC3720"}, // §13.23
		{"TaskReporting=FastAbort", "TaskReporting=Reject"},
		{"X-other=Irrelevant|X-more=NotUnderstood", ""}, // answers to nothing
	} {
		reqs, _, err := run(t, normal(), none, answer{keys: agreed + "|" + c.keys}, answer{next: fullFeature})
		if err != nil {
			t.Errorf("%s: %v", c.keys, err)
			continue
		}
		if got := reqs[2]; got.keys != c.want || !got.Transit {
			t.Errorf("%s: answered %q, T %v; want %q", c.keys, got.keys, got.Transit, c.want)
		}
	}
	// In the security stage, the answer goes with whatever is next.
	reqs, _, err := run(t, normal(), answer{next: operational, keys: "X-early=1|AuthMethod=None"}, agree)
	if err != nil || !strings.HasPrefix(reqs[1].keys, "X-early=NotUnderstood iSCSIProtocolLevel=2") {
		t.Errorf("%v, %+v", err, reqs)
	}
	// Too late for an answer.
	_, res, err := run(t, normal(), none, answer{next: fullFeature, keys: agreed + "|X-late=1"})
	if err != nil || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "X-late") {
		t.Errorf("%v, %q", err, res.Warnings)
	}
}

func TestMaxRecvDataSegmentLengthNotOffered(t *testing.T) {
	cfg := with(func(c *login.Config) { c.Offers.MaxRecvDataSegmentLength = 0 })
	reqs, res, err := run(t, cfg, none, answer{next: fullFeature, keys: agreedBut("MaxRecvDataSegmentLength", "")})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(reqs[1].keys, "MaxRecvDataSegmentLength") {
		t.Errorf("sent %s", reqs[1].keys)
	}
	if p := res.Params; p.MaxRecvDataSegmentLength != 8192 || p.MaxSendDataSegmentLength != 8192 {
		t.Errorf("params %+v", p)
	}
}

func TestReinstatement(t *testing.T) {
	cfg := with(func(c *login.Config) { c.TSIH = 9 })
	same := func(p *iscsi.LoginResponse) { p.TSIH = 9 }
	a, b := none, agree
	a.edit, b.edit = same, same
	reqs, res, err := run(t, cfg, a, b)
	if err != nil || reqs[0].TSIH != 9 || res.TSIH != 9 {
		t.Errorf("%v, %+v", err, res)
	}
}

// After its end, a login stays ended.
func TestNextAfterEnd(t *testing.T) {
	m := login.New(login.Config{})
	_, _, _, err := m.Next(nil, nil)
	if err == nil {
		t.Fatal("an empty configuration was accepted")
	}
	var h iscsi.BHS
	if _, _, _, again := m.Next(&h, nil); again != err {
		t.Errorf("got %v, want %v again", again, err)
	}
	m = login.New(normal())
	if _, _, _, err := m.Next(&h, nil); err == nil {
		t.Error("an answer before the first request was accepted")
	}
	m = login.New(normal())
	if _, _, _, err := m.Next(nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := m.Next(nil, nil); err == nil {
		t.Error("no answer was accepted")
	}
}

func TestConfigRefused(t *testing.T) {
	long := strings.Repeat("n", 256)
	for name, edit := range map[string]func(*login.Config){
		"no initiator name":        func(c *login.Config) { c.InitiatorName = "" },
		"long initiator name":      func(c *login.Config) { c.InitiatorName = long[:224] },
		"NUL in initiator name":    func(c *login.Config) { c.InitiatorName = "iqn\x00" },
		"no target name":           func(c *login.Config) { c.TargetName = "" },
		"long alias":               func(c *login.Config) { c.InitiatorAlias = long },
		"reserved tag":             func(c *login.Config) { c.InitiatorTaskTag = iscsi.ReservedTag },
		"bursts":                   func(c *login.Config) { c.Offers.FirstBurstLength = c.Offers.MaxBurstLength + 1 },
		"MaxBurstLength":           func(c *login.Config) { c.Offers.MaxBurstLength = 1 << 24 },
		"FirstBurstLength":         func(c *login.Config) { c.Offers.FirstBurstLength = 511 },
		"MaxRecvDataSegmentLength": func(c *login.Config) { c.Offers.MaxRecvDataSegmentLength = 511 },
		"MaxOutstandingR2T":        func(c *login.Config) { c.Offers.MaxOutstandingR2T = 0 },
		"further key of ours":      func(c *login.Config) { c.Offers.Extra = []iscsi.KeyValue{{Key: "MaxBurstLength", Value: "1"}} },
		"NUL in further key":       func(c *login.Config) { c.Offers.Extra = []iscsi.KeyValue{{Key: "X-a", Value: "1\x00b=2"}} },
		"CHAP without secret":      func(c *login.Config) { c.CHAP = &login.CHAPConfig{User: "alice"} },
	} {
		if reqs, _, err := run(t, with(edit)); err == nil || len(reqs) > 0 {
			t.Errorf("%s: accepted", name)
		}
	}
}
