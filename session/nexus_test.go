package session

import (
	"bytes"
	"slices"
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
