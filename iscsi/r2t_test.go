package iscsi

import "testing"

func TestR2T(t *testing.T) {
	p := R2T{
		LUN:               0x0102030405060708,
		InitiatorTaskTag:  0x11121314,
		TargetTransferTag: 0x21222324,
		StatSN:            0x31323334,
		ExpCmdSN:          0x41424344,
		MaxCmdSN:          0x51525354,
		R2TSN:             0x61626364,
		BufferOffset:      0x71727374,
		DesiredLength:     0x81828384,
	}
	testGolden(t, &p, `
		31 80 00 00 // §11.8: opcode 0x31; 1
		00 00 00 00 // TotalAHSLength; DataSegmentLength (§11.8.1)
		01 02 03 04 05 06 07 08 // LUN
		11 12 13 14 // Initiator Task Tag
		21 22 23 24 // Target Transfer Tag (§11.8.5)
		31 32 33 34 // StatSN (§11.8.3)
		41 42 43 44 // ExpCmdSN
		51 52 53 54 // MaxCmdSN
		61 62 63 64 // R2TSN (§11.8.2)
		71 72 73 74 // Buffer Offset
		81 82 83 84 // Desired Data Transfer Length (§11.8.4)`, `
		c0 7f ff ff
		ff ff ff ff
		00000000 00000000 00000000 00000000 00000000 00000000
		00000000 00000000 00000000 00000000`)
	testNeedsTask(t, &p)
}

func TestR2TRefused(t *testing.T) {
	testAccepted(t, &R2T{BufferOffset: 0xffffff00, DesiredLength: 0xff})
	testRefused(t, &R2T{BufferOffset: 0xffffff00, DesiredLength: 0x100}, "exceed any buffer")
	testRefused(t, &R2T{BufferOffset: 1, DesiredLength: 0xffffffff}, "exceed any buffer")
	testRefused(t, &R2T{}, "asks for no data")
	testRefused(t, &R2T{TargetTransferTag: ReservedTag, DesiredLength: 1}, "target transfer tag is reserved")
}
