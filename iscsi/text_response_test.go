package iscsi

import "testing"

func TestTextResponse(t *testing.T) {
	p := TextResponse{
		Final:             true,
		LUN:               0x0102030405060708,
		InitiatorTaskTag:  0x11121314,
		TargetTransferTag: 0x21222324,
		StatSN:            0x31323334,
		ExpCmdSN:          0x41424344,
		MaxCmdSN:          0x51525354,
		DataSegmentLength: 0x0a0b0c,
	}
	const rest = `
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength
		01 02 03 04 05 06 07 08 // LUN
		11 12 13 14 // Initiator Task Tag (§11.11.3)
		21 22 23 24 // Target Transfer Tag (§11.11.4)
		31 32 33 34 // StatSN
		41 42 43 44 // ExpCmdSN
		51 52 53 54 // MaxCmdSN
		00000000 00000000 00000000`
	const reserved = `
		c0 3f ff ff
		ff 00 00 00
		00000000 00000000 00000000 00000000 00000000 00000000
		00000000 ffffffff ffffffff ffffffff`
	testGolden(t, &p, "24 80 00 00 // §11.11: opcode 0x24; F\n"+rest, reserved)
	testNeedsTask(t, &p)

	p.Final, p.Continue = false, true
	testGolden(t, &p, "24 40 00 00 // C\n"+rest, reserved)

	p.Final = true
	testRefused(t, &p, "both final and continue")
}

// There has to be a tag to ask for the rest with (§11.11.4).
func TestTextResponseTag(t *testing.T) {
	testAccepted(t, &TextResponse{Final: true, TargetTransferTag: ReservedTag})
	testRefused(t, &TextResponse{TargetTransferTag: ReservedTag}, "without a target transfer tag")
}
