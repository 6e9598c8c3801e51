package iscsi

import "testing"

func TestDataOut(t *testing.T) {
	p := DataOut{
		Final:             true,
		LUN:               0x0102030405060708,
		InitiatorTaskTag:  0x11121314,
		TargetTransferTag: 0x21222324,
		ExpStatSN:         0x41424344,
		DataSN:            0x61626364,
		BufferOffset:      0x71727374,
		DataSegmentLength: 0x0a0b0c,
	}
	testGolden(t, &p, `
		05 80 00 00 // §11.7: opcode 0x05; F (§11.7.1)
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength (§11.7.7)
		01 02 03 04 05 06 07 08 // LUN
		11 12 13 14 // Initiator Task Tag
		21 22 23 24 // Target Transfer Tag (§11.7.4)
		00000000
		41 42 43 44 // ExpStatSN
		00000000
		61 62 63 64 // DataSN (§11.7.5)
		71 72 73 74 // Buffer Offset (§11.7.6)
		00000000`, `
		c0 7f ff ff
		ff 00 00 00
		00000000 00000000 00000000 00000000 ffffffff 00000000
		ffffffff 00000000 00000000 ffffffff`)
	testNeedsTask(t, &p)
	p.Final = false
	testAccepted(t, &p)
}

func TestDataOutBeyondBuffer(t *testing.T) {
	testAccepted(t, &DataOut{BufferOffset: 0xffffff00, DataSegmentLength: 0xff})
	testRefused(t, &DataOut{BufferOffset: 0xffffff00, DataSegmentLength: 0x100}, "exceed any buffer")
}
