package iscsi

import "testing"

func TestTaskManagementRequest(t *testing.T) {
	p := TaskManagementRequest{
		Immediate:         true,
		Function:          AbortTask,
		LUN:               0x0102030405060708,
		InitiatorTaskTag:  0x11121314,
		ReferencedTaskTag: 0x21222324,
		CmdSN:             0x31323334,
		ExpStatSN:         0x41424344,
		RefCmdSN:          0x51525354,
		ExpDataSN:         0x61626364,
	}
	testGolden(t, &p, `
		42 81 00 00 // §11.5: I and opcode 0x02; 1, Function (§11.5.1)
		00 00 00 00 // TotalAHSLength; DataSegmentLength
		01 02 03 04 05 06 07 08 // LUN (§11.5.3)
		11 12 13 14 // Initiator Task Tag
		21 22 23 24 // Referenced Task Tag (§11.5.4)
		31 32 33 34 // CmdSN
		41 42 43 44 // ExpStatSN
		51 52 53 54 // RefCmdSN (§11.5.5)
		61 62 63 64 // ExpDataSN (§11.5.6)
		00000000 00000000`, `
		80 00 ff ff
		ff ff ff ff
		00000000 00000000 00000000 00000000 00000000 00000000
		00000000 00000000 ffffffff ffffffff`)
	testNeedsTask(t, &p)
}

// The numbers of §11.5.1.
func TestTaskFunctions(t *testing.T) {
	testNames(t, map[TaskFunction]string{
		1: "ABORT TASK", 2: "ABORT TASK SET", 3: "CLEAR ACA", 4: "CLEAR TASK SET",
		5: "LOGICAL UNIT RESET", 6: "TARGET WARM RESET", 7: "TARGET COLD RESET",
		8: "TASK REASSIGN", 9: "task management function 9",
	})
}
