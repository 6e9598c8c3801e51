package session

import (
	"slices"
	"testing"
	"time"

	"iscsictl/iscsi"
)

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

// TestLimitChanged: a limit that is set while a command is under way holds for it.
func TestLimitChanged(t *testing.T) {
	n, w := newWire(10, limits{})
	n.submit(commands(1))
	start := n.now
	n.tick(start+time.Hour, limits{})
	if len(w.controls) != 0 {
		t.Fatal("a command without a limit was aborted")
	}
	n.tick(start+time.Hour+time.Second, limits{command: 2 * time.Hour})
	if len(w.controls) != 0 {
		t.Fatal("a command was aborted before its time was up")
	}
	n.tick(start+time.Hour+2*time.Second, limits{command: 3 * time.Second})
	if p := request(t, w.take(t, iscsi.OpTaskManagementRequest)); p.Function != 1 {
		t.Errorf("function %d, want 1 (ABORT TASK)", p.Function)
	}
}
