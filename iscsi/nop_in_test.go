package iscsi

import "testing"

func TestNOPIn(t *testing.T) {
	p := NOPIn{
		LUN:               0x0102030405060708,
		InitiatorTaskTag:  ReservedTag,
		TargetTransferTag: 0x21222324,
		StatSN:            0x31323334,
		ExpCmdSN:          0x41424344,
		MaxCmdSN:          0x51525354,
		DataSegmentLength: 0x0a0b0c,
	}
	const begin = `
		20 80 00 00 // §11.19: opcode 0x20; 1
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength
		01 02 03 04 05 06 07 08 // LUN (§11.19.3)
		`
	const end = `
		31 32 33 34 // StatSN (§11.19.2)
		41 42 43 44 // ExpCmdSN
		51 52 53 54 // MaxCmdSN
		00000000 00000000 00000000`
	const reserved = `
		c0 7f ff ff
		ff 00 00 00
		00000000 00000000 00000000 00000000 00000000 00000000
		00000000 ffffffff ffffffff ffffffff`
	testGolden(t, &p, begin+"ffffffff 21 22 23 24 // Initiator Task Tag; Target Transfer Tag (§11.19.1)"+end, reserved)

	p.InitiatorTaskTag, p.TargetTransferTag = 0x11121314, ReservedTag
	testGolden(t, &p, begin+"11 12 13 14 ffffffff"+end, reserved)
}

func TestNOPInTags(t *testing.T) {
	testAccepted(t, &NOPIn{InitiatorTaskTag: ReservedTag, TargetTransferTag: ReservedTag})
	testRefused(t, &NOPIn{InitiatorTaskTag: 1, TargetTransferTag: 2}, "both an initiator task tag and a target transfer tag")
}
