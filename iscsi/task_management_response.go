package iscsi

import "fmt"

// TaskResponse is the outcome of a task management function (RFC 7143 §11.6.1).
type TaskResponse uint8

// The outcomes of task management functions.
const (
	TaskFunctionComplete            TaskResponse = 0
	TaskDoesNotExist                TaskResponse = 1
	TaskLUNDoesNotExist             TaskResponse = 2
	TaskStillAllegiant              TaskResponse = 3
	TaskReassignmentNotSupported    TaskResponse = 4
	TaskFunctionNotSupported        TaskResponse = 5
	TaskFunctionAuthorizationFailed TaskResponse = 6
	TaskFunctionRejected            TaskResponse = 255
)

// String says what the target answered.
func (r TaskResponse) String() string {
	switch r {
	case TaskFunctionComplete:
		return "function complete"
	case TaskDoesNotExist:
		return "task does not exist"
	case TaskLUNDoesNotExist:
		return "LUN does not exist"
	case TaskStillAllegiant:
		return "task still allegiant"
	case TaskReassignmentNotSupported:
		return "task allegiance reassignment not supported"
	case TaskFunctionNotSupported:
		return "task management function not supported"
	case TaskFunctionAuthorizationFailed:
		return "function authorization failed"
	case TaskFunctionRejected:
		return "function rejected"
	}
	return fmt.Sprintf("task management response %d", uint8(r))
}

// TaskManagementResponse is a Task Management Function Response PDU (RFC 7143 §11.6).
type TaskManagementResponse struct {
	Response         TaskResponse
	InitiatorTaskTag uint32
	StatSN           uint32
	ExpCmdSN         uint32
	MaxCmdSN         uint32
}

// Encode sets all of h.
func (p *TaskManagementResponse) Encode(h *BHS) {
	h.start(OpTaskManagementResponse, false, finalBit)
	h[2] = byte(p.Response)
	h.setU32(16, p.InitiatorTaskTag)
	h.setNumbers(p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
}

// Decode reads h.
func (p *TaskManagementResponse) Decode(h *BHS) error {
	if err := h.expectTask(OpTaskManagementResponse); err != nil {
		return err
	}
	*p = TaskManagementResponse{
		Response:         TaskResponse(h[2]),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		StatSN:           h.StatSN(),
		ExpCmdSN:         h.ExpCmdSN(),
		MaxCmdSN:         h.MaxCmdSN(),
	}
	return nil
}
