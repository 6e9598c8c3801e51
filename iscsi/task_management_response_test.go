package iscsi

import "testing"

func TestTaskManagementResponse(t *testing.T) {
	p := TaskManagementResponse{
		Response:         TaskFunctionNotSupported,
		InitiatorTaskTag: 0x11121314,
		StatSN:           0x31323334,
		ExpCmdSN:         0x41424344,
		MaxCmdSN:         0x51525354,
	}
	testGolden(t, &p, `
		22 80 05 00 // §11.6: opcode 0x22; 1; Response (§11.6.1)
		00 00 00 00 // TotalAHSLength; DataSegmentLength
		00000000 00000000
		11 12 13 14 // Initiator Task Tag
		00000000
		31 32 33 34 // StatSN
		41 42 43 44 // ExpCmdSN
		51 52 53 54 // MaxCmdSN
		00000000 00000000 00000000`, `
		c0 7f 00 ff
		ff ff ff ff
		ffffffff ffffffff 00000000 ffffffff 00000000 00000000
		00000000 ffffffff ffffffff ffffffff`)
	testNeedsTask(t, &p)
}

// The numbers of §11.6.1.
func TestTaskResponses(t *testing.T) {
	testNames(t, map[TaskResponse]string{
		0: "function complete", 1: "task does not exist", 2: "LUN does not exist",
		3: "task still allegiant", 4: "task allegiance reassignment not supported",
		5: "task management function not supported", 6: "function authorization failed",
		255: "function rejected", 7: "task management response 7",
	})
}
