package iscsi

import "testing"

func TestSNACKRequest(t *testing.T) {
	testGolden(t, &SNACKRequest{
		Type:              SNACKRData,
		LUN:               0x0102030405060708,
		InitiatorTaskTag:  0x11121314,
		TargetTransferTag: 0x21222324,
		ExpStatSN:         0x41424344,
		BegRun:            0x71727374,
		RunLength:         0x81828384,
	}, `
		10 83 00 00 // §11.16: opcode 0x10; 1, Type (§11.16.1)
		00 00 00 00 // TotalAHSLength; DataSegmentLength
		01 02 03 04 05 06 07 08 // LUN
		11 12 13 14 // Initiator Task Tag (§11.16.4)
		21 22 23 24 // Target Transfer Tag or SNACK Tag (§11.16.5)
		00000000
		41 42 43 44 // ExpStatSN
		00000000 00000000
		71 72 73 74 // BegRun (§11.16.6)
		81 82 83 84 // RunLength (§11.16.7)`, `
		c0 70 ff ff
		ff ff ff ff
		00000000 00000000 00000000 00000000 ffffffff 00000000
		ffffffff ffffffff 00000000 00000000`)
	// Of status, no task is named.
	testAccepted(t, &SNACKRequest{Type: SNACKStatus, InitiatorTaskTag: ReservedTag, TargetTransferTag: ReservedTag})
}

// The numbers of §11.16.1.
func TestSNACKTypes(t *testing.T) {
	testNames(t, map[SNACKType]string{
		0: "Data/R2T SNACK", 1: "Status SNACK", 2: "DataACK", 3: "R-Data SNACK", 4: "SNACK type 4",
	})
}
