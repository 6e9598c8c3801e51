package iscsi

import "testing"

func TestTextRequest(t *testing.T) {
	p := TextRequest{
		Immediate:         true,
		Final:             true,
		LUN:               0x0102030405060708,
		InitiatorTaskTag:  0x11121314,
		TargetTransferTag: 0x21222324,
		CmdSN:             0x31323334,
		ExpStatSN:         0x41424344,
		DataSegmentLength: 0x0a0b0c,
	}
	const rest = `
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength
		01 02 03 04 05 06 07 08 // LUN
		11 12 13 14 // Initiator Task Tag (§11.10.3)
		21 22 23 24 // Target Transfer Tag (§11.10.4)
		31 32 33 34 // CmdSN
		41 42 43 44 // ExpStatSN
		00000000 00000000 00000000 00000000`
	const reserved = `
		80 3f ff ff
		ff 00 00 00
		00000000 00000000 00000000 00000000 00000000 00000000
		ffffffff ffffffff ffffffff ffffffff`
	testGolden(t, &p, "44 80 00 00 // §11.10: I and opcode 0x04; F\n"+rest, reserved)
	testNeedsTask(t, &p)

	p.Immediate, p.Final, p.Continue = false, false, true
	testGolden(t, &p, "04 40 00 00 // C\n"+rest, reserved)

	p.Final = true
	testRefused(t, &p, "both final and continue")
}
