package session

import (
	"fmt"
	"time"

	"iscsictl/iscsi"
)

// managementTimeout is how long a task management function may take.
const managementTimeout = 10 * time.Second

// maxManaging bounds the requests that are under way or were never answered.
const maxManaging = 3

// management is what is being done about a command whose time is up: abort the
// task, reset the logical unit, reset the target, each when the one before has
// failed; then the connection is dropped (RFC 7143 §11.5).
type management struct {
	function iscsi.TaskFunction // 0: nothing is under way
	tag      uint32             // of the request under way
	victim   uint32             // tag of the command
	lun      uint64
	deadline time.Duration
}

// blocks reports whether new commands must wait: a reset is under way, which
// would end them as well.
func (m *management) blocks() bool {
	return m.function > iscsi.AbortTask
}

// watchCommands looks for commands whose time is up.
func (n *nexus) watchCommands() {
	if n.bye.sent {
		return
	}
	if n.manage.function != 0 {
		if n.now >= n.manage.deadline {
			n.escalate("was not answered")
		}
		return
	}
	var oldest *slot
	for i := range n.slots {
		s := &n.slots[i]
		if s.kind == kindCommand && !s.timedOut && n.late(s) && (oldest == nil || s.issued < oldest.issued) {
			oldest = s
		}
	}
	switch {
	case oldest != nil:
		oldest.timedOut = true
		n.warnf("command %#02x to LUN %#x was not answered in time; aborting it", oldest.cmd.CDB[0], oldest.cmd.LUN)
		n.manage = management{victim: oldest.tag(), lun: oldest.cmd.LUN}
		n.perform(iscsi.AbortTask)
	case n.head != nil && n.active == 0 && n.limits.command > 0 && n.now-n.head.started >= n.limits.command:
		n.fail(fmt.Errorf("the target has not opened its command window for %v", n.limits.command))
	}
}

// late reports whether a command's time is up. A limit that is changed holds for
// those that are under way, too.
func (n *nexus) late(s *slot) bool {
	limit := s.cmd.Timeout
	if limit == 0 {
		limit = n.limits.command
	}
	return limit > 0 && n.now >= s.issued+limit
}

// perform sends a task management request.
func (n *nexus) perform(f iscsi.TaskFunction) {
	m := &n.manage
	if n.managing == maxManaging {
		n.fail(fmt.Errorf("the target has left %d task management requests unanswered", maxManaging))
		return
	}
	n.managing++
	s := n.take(kindTaskManagement)
	m.function, m.tag, m.deadline = f, s.tag(), n.now+managementTimeout
	p := iscsi.TaskManagementRequest{
		Immediate: true, Function: f, LUN: m.lun,
		InitiatorTaskTag: s.tag(), ReferencedTaskTag: iscsi.ReservedTag, CmdSN: n.cmdSN,
	}
	if f == iscsi.AbortTask {
		victim := n.find(m.victim, kindCommand)
		p.ReferencedTaskTag = m.victim
		p.RefCmdSN = victim.task.Command.CmdSN
	}
	if f == iscsi.TargetWarmReset {
		p.LUN = 0
	}
	n.control(&p, nil)
}

func (n *nexus) taskManagementResponse(h *iscsi.BHS) error {
	var p iscsi.TaskManagementResponse
	if err := p.Decode(h); err != nil {
		return err
	}
	if err := n.Numbers(true, p.StatSN, p.ExpCmdSN, p.MaxCmdSN); err != nil {
		return err
	}
	s := n.find(p.InitiatorTaskTag, kindTaskManagement)
	if s == nil {
		return fmt.Errorf("Task Management Response for the unknown initiator task tag %#x", p.InitiatorTaskTag)
	}
	n.managed(s, p.Response)
	return nil
}

// managed takes in how a function has ended. An answer that comes after the
// next function was begun only frees its tag.
func (n *nexus) managed(s *slot, r iscsi.TaskResponse) {
	current := n.manage.function != 0 && s.tag() == n.manage.tag
	n.release(s)
	n.managing--
	if !current {
		return
	}
	f := n.manage.function
	if r != iscsi.TaskFunctionComplete && !(f == iscsi.AbortTask && r == iscsi.TaskDoesNotExist) {
		n.escalate(fmt.Sprintf("was answered with %v", r))
		return
	}
	m := n.manage
	n.manage = management{}
	for i := range n.slots {
		s := &n.slots[i]
		if s.kind == kindCommand && (f == iscsi.TargetWarmReset ||
			f == iscsi.LogicalUnitReset && s.cmd.LUN == m.lun ||
			f == iscsi.AbortTask && s.tag() == m.victim) {
			n.mover.Abort(&s.task)
		}
	}
	n.warnf("%v has succeeded; the commands will be sent again", f)
}

// escalate goes on to the next function after one that has failed.
func (n *nexus) escalate(how string) {
	f := n.manage.function
	n.warnf("%v %s", f, how)
	switch {
	case f == iscsi.AbortTask && n.find(n.manage.victim, kindCommand) == nil:
		n.manage = management{} // it was answered meanwhile
	case f == iscsi.AbortTask:
		n.perform(iscsi.LogicalUnitReset)
	case f == iscsi.LogicalUnitReset:
		n.perform(iscsi.TargetWarmReset)
	default:
		n.fail(fmt.Errorf("a command was not answered, and %v %s", f, how))
	}
}
