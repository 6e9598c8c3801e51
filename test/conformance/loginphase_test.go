package conformance

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"iscsictl/target"
)

const loginSuite = "Login"

func loginPhase() []group {
	return []group{
		{loginSuite, "login request", []item{
			{"Login 1.1", "the first PDU: version, CID, ISID, stages, keys", "§6.3, §11.12", firstLogin, ""},
			{"Login 1.2", "the ISID is that of a random one", "§11.12.5", randomISID, ""},
			{"Login 1.3", "login status of every class ends or moves the login", "§11.13.5", loginStatus, ""},
		}},
		{loginSuite, "TSIH", []item{
			{"Login 2.1", "0 for a new session, and in a reinstatement", "§11.12.6, §6.3.5", reinstatement, ""},
		}},
		{loginSuite, "T bit", []item{
			{"Login 3.1", "stages are left by the T bit alone, in their order", "§11.12.1", stages, ""},
		}},
		{loginSuite, "StatSN", []item{
			{"Login 4.1", "numbering goes on from the login into the full-feature phase", "§11.13.2", loginNumbers, ""},
		}},
		{loginSuite, "ExpStatSN", []item{
			{"Login 5.1", "each login request acknowledges the response before", "§11.12.9", loginNumbers, ""},
		}},
		{loginSuite, "negotiation once", []item{
			{"Login 6.1", "no key is negotiated twice", "§6.3", keysOnce, ""},
			{"Login 6.2", "a target that does ends the login", "§6.3", refusedAnswer(2, "MaxBurstLength=65536\x00MaxBurstLength=65536"), ""},
		}},
		{loginSuite, "lists and invalid values", []item{
			{"Login 7.1", "a list is offered in the order of preference", "§6.2.1", digestOffer, ""},
			{"Login 7.2", "a digest that was not offered ends the login", "§6.2.1", refusedAnswer(2, "HeaderDigest=CRC64"), ""},
			{"Login 7.3", "a value that is no number ends it", "§6.2.2", refusedAnswer(2, "MaxBurstLength=plenty"), ""},
			{"Login 7.4", "a key that is not known is NotUnderstood", "§6.2", unknownKey, ""},
		}},
		{loginSuite, "invalid PDU", []item{
			{"Login 8.1", "something else than a login response ends the login", "§6.3", garbageLogin, ""},
			{"Login 8.2", "text without end is not collected for ever", "§6.2", endlessLogin, ""},
		}},
		{loginSuite, "digests", []item{
			{"Login 9.1", "None and None", "§13.1", digests("None", "None"), ""},
			{"Login 9.2", "CRC32C in headers", "§13.1", digests("CRC32C", "None"), ""},
			{"Login 9.3", "CRC32C in data", "§13.1", digests("None", "CRC32C"), ""},
			{"Login 9.4", "CRC32C in both", "§13.1", digests("CRC32C", "CRC32C"), ""},
		}},
		{loginSuite, "MaxConnections", []item{
			{"Login 10.1", "one is offered", "§13.2", offered("MaxConnections", "1"), ""},
			{"Login 10.2", "a result above the offer ends the login", "§13.2", refusedAnswer(2, "MaxConnections=4"), ""},
		}},
		{loginSuite, "names", []item{
			{"Login 11.1", "InitiatorName and TargetName in the first request", "§13.4, §13.5", names, ""},
		}},
		{loginSuite, "markers", []item{
			{"Login 12.1", "are not offered, and refused", "§13.25", markers, ""},
		}},
		{loginSuite, "boolean keys", []item{
			{"Login 13.1", "what is neither Yes nor No ends the login", "§6.2.2", refusedAnswer(2, "ImmediateData=Maybe"), ""},
			{"Login 13.2", "ImmediateData=Yes in answer to what was offered as Yes", "§13.11", unsolicited("Yes", "Yes"), ""},
			{"Login 13.3", "DataSequenceInOrder=No in answer to Yes ends the login", "§13.19", refusedAnswer(2, "DataSequenceInOrder=No"), ""},
		}},
		{loginSuite, "MaxRecvDataSegmentLength", []item{
			{"Login 14.1", "is declared, and the target's is kept to", "§13.12", outSegments, ""},
			{"Login 14.2", "a target that sends more ends the session", "§13.12", oversize, ""},
			{"Login 14.3", "below 512 is not accepted", "§13.12", refusedAnswer(2, "MaxRecvDataSegmentLength=256"), ""},
		}},
		{loginSuite, "MaxBurstLength", []item{
			{"Login 15.1", "a result above the offer ends the login", "§13.13", refusedAnswer(2, "MaxBurstLength=16777215"), ""},
		}},
		{loginSuite, "FirstBurstLength", []item{
			{"Login 16.1", "bounds what is unsolicited", "§13.14", unsolicited("No", "Yes"), ""},
			{"Login 16.2", "is offered no larger than MaxBurstLength", "§13.14", firstBurst, ""},
		}},
		{loginSuite, "DefaultTime2Retain", []item{
			{"Login 17.1", "0 is offered: tasks are not retained at ErrorRecoveryLevel 0", "§13.16", offered("DefaultTime2Retain", "0"), ""},
		}},
		{loginSuite, "DefaultTime2Wait", []item{
			{"Login 18.1", "the result is the greater, and is waited for", "§13.15", time2Wait, ""},
		}},
		{loginSuite, "MaxOutstandingR2T", []item{
			{"Login 19.1", "a result above the offer ends the login", "§13.17", refusedAnswer(2, "MaxOutstandingR2T=65535"), ""},
		}},
		{loginSuite, "ErrorRecoveryLevel", []item{
			{"Login 20.1", "0 is offered", "§13.20", offered("ErrorRecoveryLevel", "0"), ""},
			{"Login 20.2", "a result above the offer ends the login", "§13.20", refusedAnswer(2, "ErrorRecoveryLevel=2"), ""},
		}},
		{loginSuite, "SessionType", []item{
			{"Login 21.1", "Normal", "§13.21", names, ""},
			{"Login 21.2", "Discovery", "§13.21", sendTargets(0), ""},
		}},
		{loginSuite, "AuthMethod", []item{
			{"Login 22.1", "None where nothing is configured", "§12.1", authMethod("None"), ""},
			{"Login 22.2", "None or CHAP where a secret is configured", "§12.1", authMethod("None,CHAP", chapLines...), ""},
			{"Login 22.3", "CHAP alone where the target has to show who it is", "§12.1", authMethod("CHAP", mutualLines...), ""},
			{"Login 22.4", "a method that was not offered ends the login", "§12.1", refusedAnswer(1, "AuthMethod=KRB5"), ""},
		}},
	}
}

// firstLogin: §11.12: immediate (0x43), version 0, no TSIH; the security stage (0)
// or the operational one (1).
func firstLogin(t *testing.T) {
	g := newRig(t, target.Target{})
	g.up()
	p := g.trace()[0]
	if p.h[0] != 0x43 || p.h[2] != 0 || p.h[3] != 0 {
		t.Errorf("operation 0x%02x, versions %d to %d", p.h[0], p.h[2], p.h[3])
	}
	if stage := p.h[1] >> 2 & 3; stage > 1 {
		t.Errorf("the first stage is %d", stage)
	}
	if p.h[20] != 0 || p.h[21] != 0 {
		t.Logf("CID % x", p.h[20:22])
	}
	for _, key := range []string{"InitiatorName", "TargetName", "SessionType"} {
		if v, ok := p.text(key); !ok || v == "" {
			t.Errorf("no %s in the first request (§6.3, §13.21)", key)
		}
	}
	if len(p.data) > 8192 {
		t.Errorf("%d bytes of text (§13.12)", len(p.data))
	}
}

// randomISID: §11.12.5: T is 10b, in the two upper bits, for a random one.
func randomISID(t *testing.T) {
	g := newRig(t, target.Target{})
	g.up()
	if isid := g.trace()[0].h[8:14]; isid[0]>>6 != 2 {
		t.Errorf("ISID % x", isid)
	}
}

// loginStatus: classes 2 and 3 end the login, class 1 moves it (§11.13.5).
func loginStatus(t *testing.T) {
	for status, reason := range map[int]string{0x0203: "Not found", 0x0201: "Authentication failure", 0x0302: "resources", 0x0301: "unavailable", 0x0200: "", 0x02ff: "", 0x0400: ""} {
		t.Run(strconv.FormatInt(int64(status), 16), func(t *testing.T) {
			g := newRig(t, target.Target{}, target.Fault{Action: target.ActionLoginStatus, Status: status, Times: -1})
			g.fails(reason)
			g.ended(1)
		})
	}
	t.Run("101", func(t *testing.T) {
		g := newRig(t, target.Target{})
		g.must(g.server.AddFault(target.Fault{Action: target.ActionRedirect, Address: g.portal}))
		g.same(g.up(), 0, 4096)
	})
}

func reinstatement(t *testing.T) {
	g := newRig(t, target.Target{})
	c := g.up()
	for _, p := range all(g.trace(), loginRequest) {
		if p.h[14] != 0 || p.h[15] != 0 {
			t.Errorf("TSIH % x", p.h[14:16])
		}
	}
	g.server.DropAll()
	g.same(c, 0, 4096)
	g.reinstated()
}

// stages: §11.12.1: T, C, CSG and NSG are in byte 1: 0x80, 0x40, 0x0c and 0x03;
// the full-feature phase is 3.
func stages(t *testing.T) {
	g := newRig(t, target.Target{})
	g.up()
	list := g.trace()
	stage, over := byte(0xff), false
	for _, p := range list {
		if p.opcode() != loginRequest && p.opcode() != loginResponse {
			continue
		}
		if over {
			t.Fatalf("after the transition: %v", p)
		}
		current, next, transit := p.h[1]>>2&3, p.h[1]&3, p.h[1]&0x80 != 0
		if p.sent {
			if stage != 0xff && current != stage {
				t.Errorf("stage %d where the target is in %d", current, stage)
			}
			if transit && next <= current || !transit && next != 0 || transit && p.h[1]&0x40 != 0 {
				t.Errorf("T %v from stage %d to %d", transit, current, next)
			}
			continue
		}
		stage = current
		if transit {
			stage, over = next, next == 3
		}
	}
	if !over {
		t.Error("no transition to the full-feature phase")
	}
}

// loginNumbers: §11.13.2 and §11.12.9; always judges the full-feature phase.
func loginNumbers(t *testing.T) {
	g := newRig(t, target.Target{TextChunk: 20}) // several login PDUs
	g.up()
	var last *pdu
	n := 0
	for _, p := range g.trace() {
		switch p.opcode() {
		case loginResponse:
			last = p
		case loginRequest:
			if last != nil && p.expStatSN() != last.statSNField()+1 {
				t.Errorf("ExpStatSN %d after StatSN %d", p.expStatSN(), last.statSNField())
			}
			n++
		case scsiCommand:
			if p.expStatSN() != last.statSNField()+1 {
				t.Errorf("the first command acknowledges %d after the login's StatSN %d", p.expStatSN(), last.statSNField())
			}
			if n < 3 {
				t.Errorf("%d login requests", n)
			}
			return
		}
	}
	t.Error("no command")
}

func keysOnce(t *testing.T) {
	g := newRig(t, target.Target{})
	g.up()
	seen := map[string]bool{}
	for _, p := range all(g.trace(), loginRequest) {
		for _, pair := range strings.Split(string(p.data), "\x00") {
			key, _, ok := strings.Cut(pair, "=")
			if ok && seen[key] {
				t.Errorf("%s was sent twice", key)
			}
			seen[key] = true
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d keys", len(seen))
	}
}

// refusedAnswer has the target answer with a text that must end the login: at its
// n-th request, the first of which is of the security stage. The next login, in
// which nothing is wrong, succeeds.
func refusedAnswer(n int, text string) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, target.Target{}, target.Fault{Action: target.ActionAnswer, Text: text, Connection: 1, Nth: n})
		g.refused(text)
	}
}

// refused judges a session whose first login has met with something that must
// end it.
func (g *rig) refused(what string, lines ...string) {
	g.Helper()
	c := g.up(lines...)
	if e := g.ended(1); !e.byInitiator {
		g.Errorf("it was the target that closed the connection after %.60q", what)
	}
	key, _, _ := strings.Cut(what, "=")
	said := false
	for _, p := range g.trace() {
		if p.conn != 1 {
			continue
		}
		if _, ok := p.text(key); ok && p.opcode() == loginResponse {
			said = true
			continue
		}
		if said && p.sent {
			g.Errorf("after %.60q: %v", what, p)
		}
	}
	if !said {
		g.Errorf("the target has not said %.60q", what)
	}
	g.same(c, 0, 4096)
}

func digestOffer(t *testing.T) {
	g := newRig(t, keys("HeaderDigest", "None", "DataDigest", "None"))
	g.up("HeaderDigest = CRC32C")
	for key, want := range map[string]string{"HeaderDigest": "CRC32C,None", "DataDigest": "None"} {
		if got := g.offer(key); got != want {
			t.Errorf("%s=%s, not %s", key, got, want)
		}
	}
}

// offer returns what the initiator has offered for a key.
func (g *rig) offer(key string) string {
	for _, p := range all(g.trace(), loginRequest) {
		if v, ok := p.text(key); ok {
			return v
		}
	}
	return ""
}

func offered(key, want string) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, target.Target{})
		g.up()
		if got := g.offer(key); got != want {
			t.Errorf("%s=%q, not %q", key, got, want)
		}
	}
}

// unknownKey: §6.2: "X-" keys of the target's are answered with NotUnderstood.
func unknownKey(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{Action: target.ActionAnswer, Text: "X-com.example.colour=blue"})
	g.same(g.up(), 0, 4096)
	if got := g.offer("X-com.example.colour"); got != "NotUnderstood" {
		t.Errorf("the answer is %q", got)
	}
}

func garbageLogin(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "login-request", Action: target.ActionGarbage, Bytes: 48, Times: -1})
	g.fails("")
	if e := g.ended(1); !e.byInitiator {
		t.Error("it was the target that closed the connection")
	}
}

func endlessLogin(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "login-request", Action: target.ActionEndlessText, Bytes: 8000, Times: -1})
	g.fails("")
	g.ended(1)
	if n := len(all(g.trace(), loginRequest)); n > 2000 {
		t.Errorf("%d login requests", n)
	}
}

// digests: the recorder checks those of the initiator, the initiator those of the
// target.
func digests(header, data string) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, keys("HeaderDigest", header, "DataDigest", data))
		c := g.up("HeaderDigest = CRC32C", "DataDigest = CRC32C")
		for _, n := range []int{512, 4096, 65536 + 512} {
			g.same(c, 1024, n)
		}
		for key, want := range map[string]string{"HeaderDigest": header, "DataDigest": data} {
			for _, p := range all(g.trace(), loginResponse) {
				if v, ok := p.text(key); ok && v != want {
					t.Errorf("%s=%s", key, v)
				}
			}
		}
		if n := len(all(g.trace(), loginRequest)); n > 3 {
			t.Error("the session was made anew")
		}
	}
}

func names(t *testing.T) {
	g := newRig(t, target.Target{})
	g.up()
	p := g.trace()[0]
	for key, start := range map[string]string{"InitiatorName": "iqn.", "TargetName": g.name, "SessionType": "Normal"} {
		if v, _ := p.text(key); !strings.HasPrefix(v, start) {
			t.Errorf("%s=%q", key, v)
		}
	}
}

// markers: §13.25 of RFC 7143 has taken them away; an old target's offer is
// answered with No or Reject.
func markers(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{Action: target.ActionAnswer, Text: "OFMarker=Yes"})
	g.same(g.up(), 0, 4096)
	first := all(g.trace(), loginRequest)[0]
	for _, key := range []string{"OFMarker", "IFMarker"} {
		if v, ok := first.text(key); ok {
			t.Errorf("%s=%s is offered", key, v)
		}
	}
	if v := g.offer("OFMarker"); v != "No" && v != "Reject" && v != "NotUnderstood" {
		t.Errorf("OFMarker=Yes is answered with %q", v)
	}
}

func oversize(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "data-in", Nth: 8, Connection: 1, Action: target.ActionOversize, Bytes: 1 << 20})
	c := g.up()
	g.must(c.WriteAt(pattern(0, 4096), 0))
	for range 8 {
		g.reads(c, 0, 4096)
	}
	g.reinstated()
}

func firstBurst(t *testing.T) {
	g := newRig(t, target.Target{})
	g.up()
	first, _ := strconv.Atoi(g.offer("FirstBurstLength"))
	most, _ := strconv.Atoi(g.offer("MaxBurstLength"))
	if first < 512 || first > most || most > 1<<24-1 {
		t.Errorf("FirstBurstLength=%d, MaxBurstLength=%d", first, most)
	}
}

// time2Wait: §13.15: the maximum; §7.5: the session is not reinstated before.
func time2Wait(t *testing.T) {
	g := newRig(t, keys("DefaultTime2Wait", "3"))
	c := g.up()
	begin := time.Now()
	g.server.DropAll()
	g.same(c, 0, 4096)
	g.reinstated()
	for _, p := range all(g.trace(), loginRequest) {
		if p.conn == 2 {
			if waited := p.at.Sub(begin); waited < 2900*time.Millisecond {
				t.Errorf("a login %v after the loss, with DefaultTime2Wait=3", waited)
			}
			return
		}
	}
}

// authMethod: that None goes before CHAP is FreeBSD's way, for targets that
// answer with CHAP and then ask for nothing.
func authMethod(want string, lines ...string) func(*testing.T) {
	return func(t *testing.T) {
		shape := target.Target{}
		if len(lines) > 0 {
			shape = withMutual()
		}
		g := newRig(t, shape)
		g.up(lines...)
		if got := g.offer("AuthMethod"); got != want {
			t.Errorf("AuthMethod=%s, not %s", got, want)
		}
	}
}
