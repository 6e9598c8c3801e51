package iscsi

import "testing"

func TestNOPOut(t *testing.T) {
	testGolden(t, &NOPOut{
		Immediate:         true,
		LUN:               0x0102030405060708,
		InitiatorTaskTag:  0x11121314,
		TargetTransferTag: 0x21222324,
		CmdSN:             0x31323334,
		ExpStatSN:         0x41424344,
		DataSegmentLength: 0x0a0b0c,
	}, `
		40 80 00 00 // §11.18: I and opcode 0x00; 1
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength
		01 02 03 04 05 06 07 08 // LUN
		11 12 13 14 // Initiator Task Tag (§11.18.1)
		21 22 23 24 // Target Transfer Tag (§11.18.2)
		31 32 33 34 // CmdSN
		41 42 43 44 // ExpStatSN
		00000000 00000000 00000000 00000000`, `
		80 7f ff ff
		ff 00 00 00
		00000000 00000000 00000000 00000000 00000000 00000000
		ffffffff ffffffff ffffffff ffffffff`)
}

func TestNOPOutWithoutAnswer(t *testing.T) {
	testAccepted(t, &NOPOut{Immediate: true, InitiatorTaskTag: ReservedTag, TargetTransferTag: 1})
	testAccepted(t, &NOPOut{Immediate: true, InitiatorTaskTag: ReservedTag, TargetTransferTag: ReservedTag})
	testAccepted(t, &NOPOut{InitiatorTaskTag: 1, TargetTransferTag: ReservedTag})
	testRefused(t, &NOPOut{InitiatorTaskTag: ReservedTag, TargetTransferTag: 1}, "not immediate")
}
