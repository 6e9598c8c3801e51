package iscsi

import "testing"

func TestDataIn(t *testing.T) {
	p := DataIn{
		Final:             true,
		Overflow:          true,
		HasStatus:         true,
		Status:            0x18,
		LUN:               0x0102030405060708,
		InitiatorTaskTag:  0x11121314,
		TargetTransferTag: 0x21222324,
		StatSN:            0x31323334,
		ExpCmdSN:          0x41424344,
		MaxCmdSN:          0x51525354,
		DataSN:            0x61626364,
		BufferOffset:      0x71727374,
		Residual:          0x81828384,
		DataSegmentLength: 0x0a0b0c,
	}
	const rest = `
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength (§11.7.7)
		01 02 03 04 05 06 07 08 // LUN
		11 12 13 14 // Initiator Task Tag
		21 22 23 24 // Target Transfer Tag (§11.7.4)
		31 32 33 34 // StatSN
		41 42 43 44 // ExpCmdSN
		51 52 53 54 // MaxCmdSN
		61 62 63 64 // DataSN (§11.7.5)
		71 72 73 74 // Buffer Offset (§11.7.6)
		81 82 83 84 // Residual Count`
	const reserved = `
		c0 38 ff 00
		ff 00 00 00
		00000000 00000000 00000000 00000000 00000000 00000000
		00000000 00000000 00000000 00000000`
	testGolden(t, &p, "25 85 00 18 // §11.7: opcode 0x25; F, O, S (§11.7.3); Status\n"+rest, reserved)
	testNeedsTask(t, &p)

	p.Overflow, p.Underflow = false, true
	testGolden(t, &p, "25 83 00 18 // F, U, S\n"+rest, reserved)

	p.Final, p.Acknowledge, p.Underflow, p.HasStatus = false, true, false, false
	testGolden(t, &p, "25 40 00 18 // A (§11.7.2)\n"+rest, reserved)
}

func TestDataInFlags(t *testing.T) {
	testAccepted(t, &DataIn{Final: true})
	testRefused(t, &DataIn{HasStatus: true}, "not final")
	testRefused(t, &DataIn{Final: true, HasStatus: true, Overflow: true, Underflow: true}, "both overflow and underflow")
	// Without status they mean nothing.
	testAccepted(t, &DataIn{Overflow: true, Underflow: true})
}

func TestDataInBeyondBuffer(t *testing.T) {
	testAccepted(t, &DataIn{BufferOffset: 0xffffff00, DataSegmentLength: 0xff})
	testRefused(t, &DataIn{BufferOffset: 0xffffff00, DataSegmentLength: 0x100}, "exceed any buffer")
}
