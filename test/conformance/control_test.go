package conformance

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"iscsictl/iscsi"
	"iscsictl/scsi"
	"iscsictl/target"
)

// Task management functions (RFC 7143 §11.5.1).
const (
	abortTask        = 1
	logicalUnitReset = 5
	targetWarmReset  = 6
)

// Asynchronous events (§11.9.1).
const (
	asyncSCSI      = 0
	asyncLogout    = 1
	asyncDrop      = 2
	asyncDropAll   = 3
	asyncNegotiate = 4
	asyncVendor    = 255
)

func fullFeatureControl() []group {
	return []group{
		{fullFeatureSuite, "asynchronous logout request", []item{
			{"FFP 14.1", "the initiator logs out in time, and in again", "§11.9.1", asynchronousLogout, ""},
			{"FFP 14.2", "a dropped connection: no logout, a new login", "§11.9.1", asynchronousDrop(asyncDrop), ""},
			{"FFP 14.3", "all connections dropped: the same", "§11.9.1", asynchronousDrop(asyncDropAll), ""},
			{"FFP 14.4", "negotiation is asked for: it is had by a new login", "§11.9.1", asynchronousNegotiation, ""},
		}},
		{fullFeatureSuite, "NOP", []item{
			{"FFP 15.1", "a ping of the target is answered with its tag", "§11.18", pingAnswered, ""},
			{"FFP 15.2", "a ping of the initiator", "§11.18", pingSent, ""},
			{"FFP 15.3", "a NOP-In that wants no answer gets none", "§11.19", silentNOPIn, ""},
			{"FFP 15.4", "pings that are not answered end the session", "§11.18", deadTarget, ""},
		}},
		{fullFeatureSuite, "SCSI command", []item{
			{"FFP 16.1", "flags, attribute and expected length of reads and writes", "§11.3", commandFields, ""},
			{"FFP 16.2", "BUSY: sent again later", "§11.4.2", forgiven(scsi.Busy), ""},
			{"FFP 16.3", "TASK SET FULL: sent again later", "§11.4.2", forgiven(scsi.TaskSetFull), ""},
			{"FFP 16.4", "RESERVATION CONFLICT: told to the host, not repeated", "§11.4.2", reservationConflict, ""},
			{"FFP 16.5", "a wrong header digest ends the session", "§7.8", wrongDigest(target.ActionHeaderDigest), ""},
			{"FFP 16.6", "a wrong data digest ends the session", "§7.8", wrongDigest(target.ActionDataDigest), ""},
			{"FFP 16.7", "a rejected command is not given out as done", "§11.17", rejectedCommand, ""},
			{"FFP 16.8", "an underflow is not given out as data", "§11.4.5", underflow, ""},
			{"FFP 16.9", "a response for an unknown tag ends the session", "§11.2.1.8", unknownTag, ""},
			{"FFP 16.10", "SNACK rejected", "§11.16", nil, "ErrorRecoveryLevel 0 is offered"},
		}},
		{fullFeatureSuite, "logout", []item{
			{"FFP 17.1", "closes the session; nothing comes after", "§11.14", logout, ""},
			{"FFP 17.2", "is not answered: the connection is closed all the same", "§11.14", logoutUnanswered, ""},
		}},
		{fullFeatureSuite, "text", []item{
			{"FFP 18.1", "SendTargets in a discovery session", "§4.3, appendix C", sendTargets(0), ""},
			{"FFP 18.2", "an answer in several PDUs is fetched by its tag", "§11.10, §11.11", sendTargets(17), ""},
		}},
		{fullFeatureSuite, "task management", []item{
			{"FFP 19.1", "ABORT TASK names the task, its CmdSN and LUN", "§11.5", abort, ""},
			{"FFP 19.2", "a refused ABORT TASK is followed by LOGICAL UNIT RESET", "§11.5.1", escalate(1, logicalUnitReset), ""},
			{"FFP 19.3", "and that by TARGET WARM RESET", "§11.5.1", escalate(2, targetWarmReset), ""},
			{"FFP 19.4", "and that by the end of the session", "§11.5.1", escalate(3, 0), ""},
			{"FFP 19.5", "TASK REASSIGN", "§11.5.1", nil, "ErrorRecoveryLevel 0 is offered"},
		}},
		{fullFeatureSuite, "asynchronous message", []item{
			{"FFP 20.1", "REPORTED LUNS DATA HAS CHANGED: the list is asked for", "§11.9.1", lunsChanged, ""},
			{"FFP 20.2", "a vendor's event is ignored", "§11.9.1", vendorEvent, ""},
		}},
	}
}

// asynchronousLogout: §11.9.1: within Parameter3 seconds, by closing the
// connection or the session (reason 1 or 0, §11.14.1).
func asynchronousLogout(t *testing.T) {
	g := newRig(t, target.Target{})
	c := g.up()
	begin := time.Now()
	g.must(g.server.Async(g.name, target.AsyncEvent{Event: asyncLogout, Parameters: [3]uint16{0, 0, 20}}))
	out := g.first("a logout", func(p *pdu) bool { return p.opcode() == logoutRequest })
	if took := out.at.Sub(begin); took > 20*time.Second {
		t.Errorf("the logout came after %v", took)
	}
	if reason := out.h[1] & 0x7f; reason > 1 {
		t.Errorf("reason code %d", reason)
	}
	g.reinstated()
	g.same(c, 0, 4096)
}

func asynchronousDrop(event iscsi.AsyncEvent) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, target.Target{})
		c := g.up()
		a := target.AsyncEvent{Event: event, Parameters: [3]uint16{0, 1, 0}} // Time2Wait of one second
		begin := time.Now()
		g.must(g.server.Async(g.name, a))
		g.same(c, 0, 4096)
		if n := len(all(g.trace(), logoutRequest)); n > 0 {
			t.Error("a logout on a connection that is dropped")
		}
		g.reinstated()
		for _, p := range all(g.trace(), loginRequest) {
			if p.conn == 2 {
				if waited := p.at.Sub(begin); waited < 900*time.Millisecond {
					t.Errorf("the login came after %v, before Time2Wait was over", waited)
				}
				break
			}
		}
	}
}

func asynchronousNegotiation(t *testing.T) {
	g := newRig(t, target.Target{})
	c := g.up()
	g.must(g.server.Async(g.name, target.AsyncEvent{Event: asyncNegotiate, Parameters: [3]uint16{0, 0, 10}}))
	g.reinstated()
	g.same(c, 0, 4096)
}

// pingAnswered: §11.18: I=1, ITT reserved, the target's tag and LUN copied.
func pingAnswered(t *testing.T) {
	g := newRig(t, target.Target{})
	g.up()
	g.must(g.server.Ping(g.name))
	answer := g.first("an answer", func(p *pdu) bool { return p.sent && p.opcode() == nopOut && p.ttt() != reserved })
	var ping *pdu
	for _, p := range all(g.trace(), nopIn) {
		if p.ttt() != reserved {
			ping = p
		}
	}
	if !answer.immediate() || answer.itt() != reserved || answer.ttt() != ping.ttt() || answer.lun() != ping.lun() {
		t.Errorf("%v\nanswers %v", answer, ping)
	}
	if answer.expStatSN() != ping.statSNField() {
		t.Errorf("ExpStatSN %d; such a NOP-In does not use up its StatSN %d (§11.19.2)", answer.expStatSN(), ping.statSNField())
	}
}

// pingSent: §11.18: a tag of its own, and the reserved one for the target's.
func pingSent(t *testing.T) {
	g := newRig(t, target.Target{})
	g.up("PingTimeout = 30")
	ping := g.first("a ping", func(p *pdu) bool { return p.sent && p.opcode() == nopOut })
	if ping.itt() == reserved || ping.ttt() != reserved || !ping.final() {
		t.Errorf("%v", ping)
	}
	g.first("the answer", func(p *pdu) bool { return p.opcode() == nopIn && p.itt() == ping.itt() })
}

func silentNOPIn(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "scsi-command", Command: "write", Action: target.ActionCloseWindow, Delay: target.Duration(50 * time.Millisecond)})
	c := g.up("PingTimeout = 0")
	g.same(c, 0, 512)
	g.first("a NOP-In that wants no answer", func(p *pdu) bool { return p.opcode() == nopIn && p.itt() == reserved && p.ttt() == reserved })
	g.same(c, 512, 512)
	if n := len(all(g.trace(), nopOut)); n > 0 {
		t.Errorf("%d NOP-Out, though nobody asked", n)
	}
}

func deadTarget(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "nop-out", Connection: 1, Action: target.ActionSilence})
	c := g.up("PingTimeout = 3")
	g.ended(1)
	g.reinstated()
	g.same(c, 0, 4096)
}

// commandFields: §11.3.1: R is 0x40, W 0x20, SIMPLE is 1; the expected length is
// what the CDB asks for.
func commandFields(t *testing.T) {
	g := newRig(t, target.Target{})
	c := g.up()
	for _, n := range []int{512, 4096, 1536, 1 << 20} {
		g.same(c, 512, n)
	}
	for _, p := range commands(g.trace(), append(reads, writes...)...) {
		blocks := binary.BigEndian.Uint32(p.h[32+10:]) // READ(16), WRITE(16)
		if p.h[32]&0xf0 == 0x20 {
			blocks = uint32(binary.BigEndian.Uint16(p.h[32+7:])) // READ(10), WRITE(10)
		}
		direction := byte(0x40)
		if bytes.IndexByte(writes, p.h[32]) >= 0 {
			direction = 0x20
		}
		if p.h[1]&0x60 != direction || p.h[1]&0x07 != 1 || p.edtl() != blocks*512 {
			t.Errorf("flags 0x%02x, expected length %d for %d blocks: %v", p.h[1], p.edtl(), blocks, p)
		}
	}
}

func forgiven(s scsi.Status) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, target.Target{}, target.Fault{PDU: "scsi-command", Command: "write", Action: target.ActionStatus, Status: int(s), Times: 3})
		c := g.up()
		g.same(c, 0, 4096)
		if n := len(commands(g.trace(), writes...)); n != 4 {
			t.Errorf("the write was sent %d times, not 4", n)
		}
	}
}

func reservationConflict(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "scsi-command", Command: "write", Action: target.ActionStatus, Status: 0x18, Times: -1})
	c := g.up()
	if err := c.WriteAt(pattern(0, 512), 0); err == nil {
		t.Error("a write that was refused is done")
	}
	if n := len(commands(g.trace(), writes...)); n != 1 {
		t.Errorf("the write was sent %d times", n)
	}
}

// wrongDigest: §7.8: with ErrorRecoveryLevel 0 a digest error ends the session; a
// read whose data were wrong is repeated.
func wrongDigest(a target.Action) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, keys("HeaderDigest", "CRC32C", "DataDigest", "CRC32C"), target.Fault{PDU: "data-in", Nth: 12, Connection: 1, Action: a})
		c := g.up("HeaderDigest = CRC32C", "DataDigest = CRC32C")
		g.must(c.WriteAt(pattern(0, 64<<10), 0))
		for range 12 {
			g.reads(c, 0, 64<<10)
		}
		g.reinstated()
	}
}

func rejectedCommand(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "scsi-command", Command: "write", Action: target.ActionReject, Reason: 0x05, Times: -1})
	c := g.up()
	if err := c.WriteAt(pattern(0, 512), 0); err == nil {
		t.Error("a rejected write is done")
	}
	if n := len(commands(g.trace(), writes...)); n == 0 || n > 10 {
		t.Errorf("the write was sent %d times", n)
	}
}

func underflow(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "scsi-command", Command: "read", Action: target.ActionDataShort, Times: -1})
	c := g.up()
	g.must(c.WriteAt(pattern(0, 64<<10), 0))
	if err := c.ReadAt(make([]byte, 64<<10), 0); err == nil {
		t.Error("a read of which half did not come is done")
	}
}

func unknownTag(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "scsi-response", Phase: "full-feature", Nth: 2, Connection: 1, Action: target.ActionUnknownITT})
	c := g.up()
	g.same(c, 0, 4096)
	g.reinstated()
}

// logout: §11.14: reason 0 closes the session; no request follows on the
// connection, which ends.
func logout(t *testing.T) {
	g := newRig(t, target.Target{})
	c := g.up()
	g.same(c, 0, 4096)
	c.Close()
	if out, err := g.ctl("-R", "-t", g.name); err != nil {
		t.Fatalf("iscsictl -R: %v: %s", err, out)
	}
	out := g.first("a logout", func(p *pdu) bool { return p.opcode() == logoutRequest })
	if reason := out.h[1] & 0x7f; reason != 0 || !out.final() {
		t.Errorf("reason %d, F %v", reason, out.final())
	}
	g.first("the answer", func(p *pdu) bool { return p.opcode() == logoutResponse })
	g.ended(1)
	list := g.trace()
	for i, p := range list {
		if p == out {
			for _, q := range list[i+1:] {
				if q.sent {
					t.Errorf("after the logout: %v", q)
				}
			}
		}
	}
}

func logoutUnanswered(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "logout-request", Action: target.ActionSwallow})
	g.up().Close()
	if out, err := g.ctl("-R", "-t", g.name); err != nil {
		t.Fatalf("iscsictl -R: %v: %s", err, out)
	}
	if e := g.ended(1); !e.byInitiator {
		t.Error("the target has closed the connection")
	}
}

// sendTargets: appendix C: the key in a Text Request, whose first has the reserved
// target transfer tag; an answer with C=1 or F=0 is continued by its tag
// (§11.10.4).
func sendTargets(chunk int) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, target.Target{})
		if chunk > 0 {
			g.must(g.server.AddFault(target.Fault{PDU: "text-request", Action: target.ActionSplitText, Bytes: chunk}))
		}
		var out string
		var err error
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if out, err = g.ctl("--discover", g.portal); !strings.Contains(out, "is not running") {
				break
			}
		}
		if err != nil || !strings.Contains(out, g.name) {
			t.Fatalf("iscsictl --discover: %v: %s", err, out)
		}
		list := g.trace()
		asks := all(list, textRequest)
		answers := all(list, textResponse)
		if v, ok := asks[0].text("SendTargets"); !ok || v != "All" || asks[0].ttt() != reserved || !asks[0].final() {
			t.Errorf("%v: SendTargets %q", asks[0], v)
		}
		if chunk > 0 && len(answers) < 3 {
			t.Fatalf("%d answers", len(answers))
		}
		for i, p := range asks[1:] {
			if p.ttt() != answers[i].ttt() || p.itt() != asks[0].itt() || len(p.data) > 0 {
				t.Errorf("%v\ncontinues %v", p, answers[i])
			}
		}
		if v, _ := all(list, loginRequest)[0].text("SessionType"); v != "Discovery" {
			t.Errorf("SessionType=%s", v)
		}
	}
}

// stalled is a target that never answers a write, and a session with a limit.
func stalled(t *testing.T, refused int) *rig {
	g := newRig(t, target.Target{}, target.Fault{PDU: "scsi-command", Command: "write", Action: target.ActionHold})
	if refused > 0 {
		g.must(g.server.AddFault(target.Fault{PDU: "task-management-request", Action: target.ActionReject, Reason: 0x05, Times: refused}))
	}
	c := g.up("CommandTimeout = 1")
	g.same(c, 0, 4096)
	return g
}

// abort: §11.5: function, referenced tag, RefCmdSN and LUN are the task's.
func abort(t *testing.T) {
	g := stalled(t, 0)
	list := g.trace()
	w, m := commands(list, writes...)[0], all(list, taskManagement)
	if len(m) != 1 {
		t.Fatalf("%d task management requests", len(m))
	}
	p := m[0]
	if p.h[1]&0x7f != abortTask || p.ttt() != w.itt() || p.u32(32) != w.cmdSN() || p.lun() != w.lun() || !p.immediate() {
		t.Errorf("%v\nfor %v", p, w)
	}
}

func escalate(refused int, last byte) func(*testing.T) {
	return func(t *testing.T) {
		g := stalled(t, refused)
		list := all(g.trace(), taskManagement)
		want := []byte{abortTask, logicalUnitReset, targetWarmReset}[:min(refused+1, 3)]
		if len(list) != len(want) {
			t.Fatalf("%d task management requests, not %d", len(list), len(want))
		}
		for i, p := range list {
			if p.h[1]&0x7f != want[i] {
				t.Errorf("function %d in place %d, not %d", p.h[1]&0x7f, i, want[i])
			}
		}
		if last == 0 {
			g.reinstated()
		}
	}
}

// lunsChanged: REPORT LUNS is 0xa0 (SPC-4 §6.33).
func lunsChanged(t *testing.T) {
	g := newRig(t, target.Target{})
	c := g.up()
	before := len(commands(g.trace(), 0xa0))
	g.must(g.server.Async(g.name, target.AsyncEvent{Event: asyncSCSI, Sense: target.Sense{Key: 6, Code: 0x3f0e}}))
	g.until("REPORT LUNS", func(list []*pdu) bool { return len(commands(list, 0xa0)) > before })
	g.same(c, 0, 4096)
}

func vendorEvent(t *testing.T) {
	g := newRig(t, target.Target{})
	c := g.up()
	g.must(g.server.Async(g.name, target.AsyncEvent{Event: asyncVendor, VendorCode: 7}))
	g.first("the event", func(p *pdu) bool { return p.opcode() == asyncMessage })
	g.same(c, 0, 4096)
	if n := len(all(g.trace(), loginRequest)); n > 3 {
		t.Error("the session was made anew")
	}
}
