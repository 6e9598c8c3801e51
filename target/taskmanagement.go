package target

import (
	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// onTaskManagement takes a task management request (RFC 7143 §11.5). Commands
// are carried out as they come, so only those that wait can be meant.
func (c *conn) onTaskManagement(h *iscsi.BHS) error {
	var p iscsi.TaskManagementRequest
	if err := p.Decode(h); err != nil {
		return c.broken("%v", err)
	}
	if err := c.skip(h.DataSegmentLength()); err != nil {
		return err
	}
	if ok, err := c.takeCmdSN(p.CmdSN, p.Immediate); err != nil || !ok {
		return err
	}
	response := c.manage(&p)
	c.mover.settle() // after the response, memory of aborted tasks must be left alone
	r := iscsi.TaskManagementResponse{
		Response: response, InitiatorTaskTag: p.InitiatorTaskTag, StatSN: c.nextStatSN(),
	}
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Encode(&c.h)
	c.send(nil, false)
	if p.Function == iscsi.TargetColdReset {
		if err := c.flush(); err != nil {
			return err
		}
		c.server.dropTarget(c.session.node)
		return errDone
	}
	return nil
}

func (c *conn) manage(p *iscsi.TaskManagementRequest) iscsi.TaskResponse {
	s := c.session
	lun, ok := lunNumber(p.LUN)
	exists := ok && s.node.units.Load().find(lun) != nil
	switch p.Function {
	case iscsi.AbortTask:
		t := s.tasks[p.ReferencedTaskTag]
		if t == nil {
			return iscsi.TaskDoesNotExist
		}
		t.abort()
		s.release(t)
		return iscsi.TaskFunctionComplete
	case iscsi.AbortTaskSet, iscsi.ClearTaskSet, iscsi.LogicalUnitReset:
		if !exists {
			return iscsi.TaskLUNDoesNotExist
		}
		s.abortTasks(lun)
		switch p.Function {
		case iscsi.LogicalUnitReset:
			c.others(lun, scsi.CodeDeviceReset)
			s.attend(lun, scsi.CodeDeviceReset)
		case iscsi.ClearTaskSet:
			c.others(lun, scsi.CodeClearedByOther)
		}
		return iscsi.TaskFunctionComplete
	case iscsi.TargetWarmReset, iscsi.TargetColdReset:
		s.abortTasks(-1)
		c.others(-1, scsi.CodeBusReset)
		s.attendAll(scsi.CodeBusReset)
		return iscsi.TaskFunctionComplete
	case iscsi.TaskReassign:
		return iscsi.TaskReassignmentNotSupported
	}
	return iscsi.TaskFunctionNotSupported
}

// others aborts the tasks that other sessions have at a LUN, or at all if lun
// is negative, and leaves them a unit attention. This connection's lock is let
// go meanwhile: two of them may be doing this to each other.
func (c *conn) others(lun int, code scsi.Code) {
	node := c.session.node
	c.mu.Unlock()
	defer c.mu.Lock()
	for _, o := range c.server.connections(node) {
		if o == c {
			continue
		}
		o.do(func() {
			o.session.abortTasks(lun)
			if lun < 0 {
				o.session.attendAll(code)
			} else {
				o.session.attend(lun, code)
			}
		})
	}
}
