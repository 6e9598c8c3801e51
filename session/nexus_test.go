package session

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"iscsictl/iscsi"
	"iscsictl/transport"
)

// wire is a mover that keeps what it is given.
type wire struct {
	commands []*transport.Task
	controls []iscsi.BHS
	data     [][]byte
	aborted  []*transport.Task
	nexus    *nexus
}

func (w *wire) Start()                    {}
func (w *wire) Flush()                    {}
func (w *wire) Close(error)               {}
func (w *wire) Command(t *transport.Task) { w.commands = append(w.commands, t) }
func (w *wire) Control(h *iscsi.BHS, data []byte) {
	w.controls = append(w.controls, *h)
	w.data = append(w.data, bytes.Clone(data))
}

func (w *wire) Abort(t *transport.Task) {
	w.aborted = append(w.aborted, t)
	_ = w.nexus.Done(t, &transport.Result{Aborted: true})
}

// take returns the one PDU that was sent since the last call.
func (w *wire) take(t *testing.T, op iscsi.Opcode) iscsi.BHS {
	t.Helper()
	if len(w.controls) != 1 || w.controls[0].Opcode() != op {
		t.Fatalf("%d PDUs were sent (%v), want one %v", len(w.controls), w.controls, op)
	}
	h := w.controls[0]
	w.controls, w.data = nil, nil
	return h
}

func newWire(maxActive int, l limits) (*nexus, *wire) {
	p := transport.Params{MaxSendDataSegmentLength: 8192}
	n := newNexus(7, numbers{cmdSN: 0xfffffffe, maxCmdSN: 29, expStatSN: 100}, p, maxActive, l, time.Hour)
	w := &wire{nexus: n}
	n.mover = w
	return n, w
}

func commands(n int) []*Command {
	list := make([]*Command, n)
	for i := range list {
		list[i] = &Command{LUN: 1 << 48}
	}
	return list
}

// answer ends a task as the target would.
func answer(t *testing.T, n *nexus, task *transport.Task) {
	t.Helper()
	if err := n.Done(task, &transport.Result{}); err != nil {
		t.Fatal(err)
	}
}

// TestCommandWindow: RFC 7143 §4.2.2.1. CmdSN wraps, and no command goes beyond MaxCmdSN.
func TestCommandWindow(t *testing.T) {
	n, w := newWire(1000, limits{})
	n.submit(commands(40))
	if len(w.commands) != 32 { // CmdSN to MaxCmdSN, both included
		t.Fatalf("%d commands were sent into a window of 32", len(w.commands))
	}
	for i, task := range w.commands {
		if want := uint32(0xfffffffe) + uint32(i); task.Command.CmdSN != want {
			t.Errorf("command %d has CmdSN %#x, want %#x", i, task.Command.CmdSN, want)
		}
	}
	for _, c := range []struct {
		what           string
		expCmd, maxCmd uint32
		sent           int
	}{
		{"MaxCmdSN below ExpCmdSN-1 is ignored", 0x40, 0x20, 32},
		{"an older MaxCmdSN is ignored", 0, 0x10, 32},
		{"a jump over half of the numbers is ignored", 0, 0x9000_0000, 32},
		{"two more", 2, 0x1f, 34},
		{"the rest", 2, 0x1000, 40},
	} {
		if err := n.Numbers(false, 0, c.expCmd, c.maxCmd); err != nil {
			t.Fatal(err)
		}
		n.pump()
		if len(w.commands) != c.sent {
			t.Errorf("%s: %d commands sent, want %d", c.what, len(w.commands), c.sent)
		}
	}
}

func TestTaskTable(t *testing.T) {
	n, w := newWire(3, limits{})
	list := commands(5)
	n.submit(list)
	if len(w.commands) != 3 {
		t.Fatalf("%d commands on the wire with a limit of 3", len(w.commands))
	}
	first := w.commands[0]
	old := first.Command.InitiatorTaskTag
	if n.Task(old) != first {
		t.Fatal("the task is not found by its tag")
	}
	answer(t, n, first)
	n.pump()
	if len(w.commands) != 4 || !slices.Equal(n.done, list[:1]) {
		t.Fatalf("%d commands sent, %d done", len(w.commands), len(n.done))
	}
	if n.Task(old) != nil || n.Task(0xffffffff) != nil || n.Task(old+1<<16) != w.commands[3] {
		t.Error("a tag of an earlier user is taken for that of the next, or the next is not found")
	}
	other := &transport.Task{Index: 0}
	if err := n.Done(other, &transport.Result{}); err == nil {
		t.Error("a task that is not in the table has ended")
	}
	seen := map[uint32]bool{}
	for range 200_000 { // tags are not used again soon, and never reserved
		n.done = n.done[:0]
		task := w.commands[len(w.commands)-1]
		w.commands = w.commands[:0]
		answer(t, n, task)
		n.submit([]*Command{list[0]})
		itt := w.commands[len(w.commands)-1].Command.InitiatorTaskTag
		if itt == iscsi.ReservedTag {
			t.Fatal("the reserved tag was used")
		}
		if len(seen) < 60_000 && seen[itt] {
			t.Fatalf("tag %#x was used again after %d commands", itt, len(seen))
		}
		seen[itt] = true
		n.maxCmdSN = n.cmdSN + 10
	}
}

func TestStatSN(t *testing.T) {
	n, _ := newWire(3, limits{})
	for _, sn := range []uint32{100, 101} {
		if err := n.Numbers(true, sn, 0, 0); err != nil {
			t.Errorf("StatSN %d: %v", sn, err)
		}
	}
	if n.ExpStatSN() != 102 {
		t.Errorf("ExpStatSN is %d, want 102", n.ExpStatSN())
	}
	for _, sn := range []uint32{101, 103, 0} {
		if err := n.Numbers(true, sn, 0, 0); err == nil {
			t.Errorf("StatSN %d was accepted where 102 is due", sn)
		}
	}
	if err := n.Numbers(false, 999, 0, 0); err != nil || n.ExpStatSN() != 102 {
		t.Error("a PDU without status has changed ExpStatSN")
	}
}

func TestLost(t *testing.T) {
	n, _ := newWire(3, limits{})
	list := commands(5)
	n.submit(list)
	n.lost()
	if len(n.done) != 5 {
		t.Fatalf("%d of 5 commands completed", len(n.done))
	}
	for _, c := range list {
		if c.Err != ErrNexusLost || c.Nexus != 7 || !slices.Contains(n.done, c) {
			t.Errorf("error %v, nexus %d", c.Err, c.Nexus)
		}
	}
}

// control hands the nexus a PDU of the target.
func control(n *nexus, p interface{ Encode(*iscsi.BHS) }, data []byte) error {
	var h iscsi.BHS
	p.Encode(&h)
	h.SetDataSegmentLength(len(data))
	return n.Control(&h, data)
}

// TestSilence: a ping goes out in each silent second, and the connection is
// given up after the ping timeout, but never before a ping had its second.
func TestSilence(t *testing.T) {
	for _, c := range []struct {
		timeout int
		pings   int // until the connection is given up
		after   int // seconds; 0: it never is
	}{{5, 4, 5}, {2, 1, 2}, {1, 1, 2}, {0, 0, 0}} {
		n, w := newWire(3, limits{ping: time.Duration(c.timeout) * time.Second})
		now := n.now
		n.tick(now, n.limits)
		after := 0
		for s := 1; s <= 20 && n.failed == nil; s++ {
			n.tick(now+time.Duration(s)*time.Second, n.limits)
			if n.failed != nil {
				after = s
			}
		}
		if len(w.controls) != c.pings || after != c.after {
			t.Errorf("timeout %d: %d pings and the end after %d s, want %d and %d", c.timeout, len(w.controls), after, c.pings, c.after)
		}
		for _, h := range w.controls {
			var p iscsi.NOPOut
			if err := p.Decode(&h); err != nil || !p.Immediate || p.InitiatorTaskTag == 0xffffffff || p.TargetTransferTag != 0xffffffff || p.CmdSN != n.cmdSN {
				t.Errorf("ping %+v, %v", p, err)
			}
		}
	}
}

func TestPing(t *testing.T) {
	n, w := newWire(3, limits{ping: 5 * time.Second})
	now := n.now
	for s := 1; s <= 100; s++ { // answered each time: it goes on for ever
		n.tick(now+time.Duration(2*s-1)*time.Second, n.limits)
		n.tick(now+time.Duration(2*s)*time.Second, n.limits)
		h := w.take(t, iscsi.OpNOPOut)
		if err := control(n, &iscsi.NOPIn{InitiatorTaskTag: h.InitiatorTaskTag(), TargetTransferTag: 0xffffffff, StatSN: n.expStatSN}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n.failed != nil {
		t.Fatal(n.failed)
	}
	// The target's ping: its data comes back, up to what it takes, its tag
	// and LUN too; StatSN does not advance.
	sn := n.expStatSN
	big := bytes.Repeat([]byte{1, 2, 3}, 4000)
	if err := control(n, &iscsi.NOPIn{LUN: 5, InitiatorTaskTag: 0xffffffff, TargetTransferTag: 0x1234, StatSN: sn}, big); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.data[0], big[:8192]) || n.expStatSN != sn {
		t.Errorf("%d bytes came back, ExpStatSN %d", len(w.data[0]), n.expStatSN)
	}
	var p iscsi.NOPOut
	h := w.take(t, iscsi.OpNOPOut)
	if err := p.Decode(&h); err != nil || p.TargetTransferTag != 0x1234 || p.LUN != 5 || p.InitiatorTaskTag != 0xffffffff || !p.Immediate {
		t.Errorf("pong %+v, %v", p, err)
	}
	if err := control(n, &iscsi.NOPIn{InitiatorTaskTag: 3, TargetTransferTag: 0xffffffff, StatSN: sn}, nil); err == nil {
		t.Error("an answer to no ping was accepted")
	}
}

// stuck makes a nexus with commands to two LUNs whose time is up.
func stuck(t *testing.T) (n *nexus, w *wire, list []*Command, later func(time.Duration)) {
	n, w = newWire(10, limits{command: 30 * time.Second})
	list = commands(4)
	list[1].LUN = 2 << 48
	n.submit(list[:3])
	now := n.now
	later = func(d time.Duration) {
		now += d
		n.tick(now, n.limits)
	}
	later(30 * time.Second)
	if len(w.controls) != 0 {
		t.Fatal("a command was aborted before its time was up")
	}
	later(time.Second)
	return n, w, list, later
}

func request(t *testing.T, h iscsi.BHS) iscsi.TaskManagementRequest {
	t.Helper()
	var p iscsi.TaskManagementRequest
	if err := p.Decode(&h); err != nil || !p.Immediate {
		t.Fatalf("%+v: %v", p, err)
	}
	return p
}

func respond(t *testing.T, n *nexus, itt uint32, r iscsi.TaskResponse) {
	t.Helper()
	if err := control(n, &iscsi.TaskManagementResponse{Response: r, InitiatorTaskTag: itt, StatSN: n.expStatSN}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestAbort: RFC 7143 §11.5.1, function 1, with the tag and the CmdSN of the task.
func TestAbort(t *testing.T) {
	for _, r := range []iscsi.TaskResponse{0, 1} { // function complete; task does not exist
		n, w, list, later := stuck(t)
		victim := w.commands[0].Command
		p := request(t, w.take(t, iscsi.OpTaskManagementRequest))
		if p.Function != 1 || p.ReferencedTaskTag != victim.InitiatorTaskTag || p.RefCmdSN != victim.CmdSN || p.LUN != victim.LUN {
			t.Errorf("abort %+v of %+v", p, victim)
		}
		respond(t, n, p.InitiatorTaskTag, r)
		if !slices.Equal(n.done, list[:1]) || list[0].Err != ErrTimedOut {
			t.Errorf("response %d: %d commands done, error %v", r, len(n.done), list[0].Err)
		}
		later(time.Second) // the next one
		if p := request(t, w.take(t, iscsi.OpTaskManagementRequest)); p.Function != 1 || p.LUN != 2<<48 {
			t.Errorf("then %+v", p)
		}
	}
}

// TestEscalation: abort, logical unit reset, target warm reset, the end.
func TestEscalation(t *testing.T) {
	n, w, list, _ := stuck(t)
	p := request(t, w.take(t, iscsi.OpTaskManagementRequest))
	respond(t, n, p.InitiatorTaskTag, 5) // not supported
	p = request(t, w.take(t, iscsi.OpTaskManagementRequest))
	if p.Function != 5 || p.LUN != 1<<48 || p.ReferencedTaskTag != 0xffffffff {
		t.Fatalf("after an abort: %+v", p)
	}
	n.submit(list[3:])
	if len(w.commands) != 3 {
		t.Error("a command was sent into a reset")
	}
	respond(t, n, p.InitiatorTaskTag, 0)
	if len(n.done) != 2 || list[0].Err != ErrTimedOut || list[2].Err != ErrTimedOut || list[1].Err != nil {
		t.Errorf("a reset of LUN 1 has ended %d commands", len(n.done))
	}
	n.pump()
	if len(w.commands) != 4 {
		t.Error("commands are held after the reset")
	}

	n, w, _, later := stuck(t)
	w.controls = nil
	later(10 * time.Second)
	late := request(t, w.take(t, iscsi.OpTaskManagementRequest))
	later(10 * time.Second)
	if p := request(t, w.take(t, iscsi.OpTaskManagementRequest)); p.Function != 6 {
		t.Fatalf("after a logical unit reset: %+v", p)
	}
	respond(t, n, late.InitiatorTaskTag, 0) // too late to matter
	if len(n.done) != 0 || n.failed != nil {
		t.Error("a late answer was taken for that of the target reset")
	}
	later(10 * time.Second)
	if n.failed == nil {
		t.Error("the connection goes on after all has failed")
	}
}

func TestWarmReset(t *testing.T) {
	n, w, list, later := stuck(t)
	w.controls = nil
	later(10 * time.Second)
	w.controls = nil
	later(10 * time.Second)
	p := request(t, w.take(t, iscsi.OpTaskManagementRequest))
	respond(t, n, p.InitiatorTaskTag, 0)
	if len(n.done) != 3 || list[1].Err != ErrTimedOut || n.failed != nil {
		t.Errorf("%d commands ended, failed %v", len(n.done), n.failed)
	}
}

func TestAnswerDuringAbort(t *testing.T) {
	n, w, list, later := stuck(t)
	p := request(t, w.take(t, iscsi.OpTaskManagementRequest))
	answer(t, n, w.commands[0])
	respond(t, n, p.InitiatorTaskTag, 1)
	if len(n.done) != 1 || list[0].Err != nil {
		t.Errorf("%d commands ended, error %v", len(n.done), list[0].Err)
	}
	later(time.Second)
	p = request(t, w.take(t, iscsi.OpTaskManagementRequest))
	answer(t, n, w.commands[1])
	respond(t, n, p.InitiatorTaskTag, 255)
	if n.manage.function != 0 {
		t.Error("a reset was begun for a command that was answered")
	}
}

func TestClosedWindow(t *testing.T) {
	n, _ := newWire(10, limits{command: 30 * time.Second})
	n.maxCmdSN = n.cmdSN - 1
	n.submit(commands(1))
	n.tick(n.now+29*time.Second, n.limits)
	if n.failed != nil {
		t.Error("too early")
	}
	n.tick(n.now+time.Second, n.limits)
	if n.failed == nil {
		t.Error("a window that never opens is waited for for ever")
	}
}

func TestLogout(t *testing.T) {
	n, w := newWire(10, limits{})
	n.logout()
	n.logout()
	h := w.take(t, iscsi.OpLogoutRequest)
	var p iscsi.LogoutRequest
	if err := p.Decode(&h); err != nil || !p.Immediate || p.Reason != 0 || p.CmdSN != n.cmdSN {
		t.Fatalf("%+v: %v", p, err)
	}
	n.submit(commands(1))
	if len(w.commands) != 0 {
		t.Error("a command was sent after the logout")
	}
	if err := control(n, &iscsi.LogoutResponse{InitiatorTaskTag: p.InitiatorTaskTag + 1, StatSN: n.expStatSN}, nil); err == nil || errors.Is(err, errLoggedOut) {
		t.Errorf("the answer to another logout gave %v", err)
	}
	if err := control(n, &iscsi.LogoutResponse{InitiatorTaskTag: p.InitiatorTaskTag, StatSN: n.expStatSN, Time2Wait: 3}, nil); !errors.Is(err, errLoggedOut) || n.bye.wait != 3*time.Second {
		t.Errorf("%v, wait %v", err, n.bye.wait)
	}
}

// TestAsync: RFC 7143 §11.9.1.
func TestAsync(t *testing.T) {
	n, _ := newWire(10, limits{})
	async := func(p iscsi.AsyncMessage, data []byte) error {
		p.StatSN = n.expStatSN
		return control(n, &p, data)
	}
	if err := async(iscsi.AsyncMessage{Event: 0, LUN: 4}, []byte{0, 3, 0x70, 0, 6}); err != nil {
		t.Fatal(err)
	}
	if len(n.async) != 1 || n.async[0].lun != 4 || !bytes.Equal(n.async[0].sense, []byte{0x70, 0, 6}) {
		t.Errorf("sense %+v", n.async)
	}
	for range 1000 {
		if err := async(iscsi.AsyncMessage{Event: 0}, []byte{0, 1, 0x70}); err != nil {
			t.Fatal(err)
		}
	}
	if len(n.async) > pendingMax {
		t.Errorf("%d messages are kept", len(n.async))
	}
	if err := async(iscsi.AsyncMessage{Event: 255, VendorCode: 9}, nil); err != nil {
		t.Errorf("a vendor's event: %v", err)
	}
	for _, e := range []iscsi.AsyncEvent{2, 3} {
		if err := async(iscsi.AsyncMessage{Event: e, Parameter2: 7}, nil); err == nil || n.bye.wait != 7*time.Second {
			t.Errorf("event %d: %v, wait %v", e, err, n.bye.wait)
		}
	}
	for _, e := range []iscsi.AsyncEvent{1, 4} {
		n, w := newWire(10, limits{})
		if err := control(n, &iscsi.AsyncMessage{Event: e, Parameter3: 10, StatSN: n.expStatSN}, nil); err != nil {
			t.Fatal(err)
		}
		w.take(t, iscsi.OpLogoutRequest)
	}
}

func TestReject(t *testing.T) {
	n, w := newWire(10, limits{command: 30 * time.Second, ping: 5 * time.Second})
	list := commands(2)
	n.submit(list)
	reject := func(bad iscsi.BHS, reason iscsi.RejectReason) error {
		return control(n, &iscsi.Reject{Reason: reason, StatSN: n.expStatSN}, bad[:])
	}
	var h iscsi.BHS
	w.commands[0].Command.Encode(&h)
	if err := reject(h, 2); err != nil || len(n.done) != 0 {
		t.Errorf("a data digest error: %v, %d done; the target ends the command with a status", err, len(n.done))
	}
	if err := reject(h, 9); err != nil || len(n.done) != 1 || list[0].Err != ErrRejected {
		t.Errorf("%v, %d done, error %v", err, len(n.done), list[0].Err)
	}
	now := n.now
	n.tick(now, n.limits)
	n.tick(now+time.Second, n.limits)
	ping := w.take(t, iscsi.OpNOPOut)
	if err := reject(ping, 6); err != nil || n.ping.outstanding != 0 {
		t.Errorf("a rejected ping: %v, %d outstanding", err, n.ping.outstanding)
	}
	(&iscsi.LogoutRequest{Immediate: true, InitiatorTaskTag: 1}).Encode(&h)
	if err := reject(h, 4); err == nil || !strings.Contains(err.Error(), "Logout") {
		t.Errorf("a rejected logout: %v", err)
	}
	if err := control(n, &iscsi.Reject{Reason: 4, StatSN: n.expStatSN}, []byte{1}); err == nil {
		t.Error("a Reject without the header was accepted")
	}
}

func TestUnexpectedPDU(t *testing.T) {
	n, _ := newWire(10, limits{})
	var h iscsi.BHS
	for op := range 64 {
		switch iscsi.Opcode(op) {
		case iscsi.OpNOPIn, iscsi.OpTaskManagementResponse, iscsi.OpLogoutResponse, iscsi.OpAsyncMessage, iscsi.OpReject:
		default:
			h[0] = byte(op)
			if err := n.Control(&h, nil); err == nil {
				t.Errorf("opcode %#x was accepted", op)
			}
		}
	}
}

func TestSubmitDoesNotAllocate(t *testing.T) {
	n, w := newWire(10, limits{})
	list := commands(4)
	if a := testing.AllocsPerRun(1000, func() {
		n.maxCmdSN = n.cmdSN + 100
		w.commands = w.commands[:0]
		n.submit(list)
		for _, task := range w.commands {
			_ = n.Done(task, &transport.Result{})
		}
		n.done = n.done[:0]
	}); a != 0 {
		t.Errorf("%v allocations for 4 commands", a)
	}
}
