package iscsi

import "fmt"

// TaskFunction is a task management function (RFC 7143 §11.5.1).
type TaskFunction uint8

// The task management functions.
const (
	AbortTask        TaskFunction = 1
	AbortTaskSet     TaskFunction = 2
	ClearACA         TaskFunction = 3
	ClearTaskSet     TaskFunction = 4
	LogicalUnitReset TaskFunction = 5
	TargetWarmReset  TaskFunction = 6
	TargetColdReset  TaskFunction = 7
	TaskReassign     TaskFunction = 8
)

// String is the name of the function.
func (f TaskFunction) String() string {
	switch f {
	case AbortTask:
		return "ABORT TASK"
	case AbortTaskSet:
		return "ABORT TASK SET"
	case ClearACA:
		return "CLEAR ACA"
	case ClearTaskSet:
		return "CLEAR TASK SET"
	case LogicalUnitReset:
		return "LOGICAL UNIT RESET"
	case TargetWarmReset:
		return "TARGET WARM RESET"
	case TargetColdReset:
		return "TARGET COLD RESET"
	case TaskReassign:
		return "TASK REASSIGN"
	}
	return fmt.Sprintf("task management function %d", uint8(f))
}

// TaskManagementRequest is a Task Management Function Request PDU (RFC 7143 §11.5).
type TaskManagementRequest struct {
	Immediate         bool
	Function          TaskFunction
	LUN               uint64
	InitiatorTaskTag  uint32 // of this request
	ReferencedTaskTag uint32 // of the task, for AbortTask and TaskReassign; else ReservedTag
	CmdSN             uint32
	ExpStatSN         uint32
	RefCmdSN          uint32 // CmdSN of the task, for AbortTask
	ExpDataSN         uint32 // for TaskReassign
}

// Encode sets all of h.
func (p *TaskManagementRequest) Encode(h *BHS) {
	h.start(OpTaskManagementRequest, p.Immediate, finalBit|byte(p.Function)&^finalBit)
	h.setLUN(p.LUN)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.ReferencedTaskTag)
	h.setU32(24, p.CmdSN)
	h.setU32(28, p.ExpStatSN)
	h.setU32(32, p.RefCmdSN)
	h.setU32(36, p.ExpDataSN)
}

// Decode reads h.
func (p *TaskManagementRequest) Decode(h *BHS) error {
	if err := h.expectTask(OpTaskManagementRequest); err != nil {
		return err
	}
	*p = TaskManagementRequest{
		Immediate:         h.Immediate(),
		Function:          TaskFunction(h[1] &^ finalBit),
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		ReferencedTaskTag: h.u32(20),
		CmdSN:             h.CmdSN(),
		ExpStatSN:         h.ExpStatSN(),
		RefCmdSN:          h.u32(32),
		ExpDataSN:         h.u32(36),
	}
	return nil
}
