package iscsi

import "testing"

func TestSCSICommand(t *testing.T) {
	p := SCSICommand{
		Immediate:                  true,
		Final:                      true,
		Read:                       true,
		Attribute:                  Simple,
		LUN:                        0x0102030405060708,
		InitiatorTaskTag:           0x11121314,
		ExpectedDataTransferLength: 0x21222324,
		CmdSN:                      0x31323334,
		ExpStatSN:                  0x41424344,
		CDB:                        [16]byte{0x51, 0x52, 0x53, 0x54, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x5f},
		AHSLength:                  12,
		DataSegmentLength:          0x0a0b0c,
	}
	const rest = `
		03 0a 0b 0c // TotalAHSLength in words; DataSegmentLength
		01 02 03 04 05 06 07 08 // LUN
		11 12 13 14 // Initiator Task Tag
		21 22 23 24 // Expected Data Transfer Length (§11.3.4)
		31 32 33 34 // CmdSN
		41 42 43 44 // ExpStatSN
		51 52 53 54 05 06 07 08 09 0a 0b 0c 0d 0e 0f 5f // CDB (§11.3.5)`
	const reserved = `
		80 18 ff ff
		00 00 00 00
		00000000 00000000 00000000 00000000 00000000 00000000
		00000000 00000000 00000000 00000000`
	testGolden(t, &p, "41 c1 00 00"+" // §11.3: I and opcode 0x01; F, R, ATTR\n"+rest, reserved)

	p.Immediate, p.Final, p.Read, p.Write, p.Attribute = false, false, false, true, ACA
	testGolden(t, &p, "01 24 00 00"+" // opcode 0x01; W, ATTR\n"+rest, reserved)

	p.Final, p.Attribute = true, HeadOfQueue
	testGolden(t, &p, "01 a3 00 00"+" // opcode 0x01; F, W, ATTR\n"+rest, reserved)
	testNeedsTask(t, &p)
}

// §11.3.1: what F, R, W and the expected length may be together.
func TestSCSICommandFlags(t *testing.T) {
	testAccepted(t, &SCSICommand{Final: true})
	testAccepted(t, &SCSICommand{Final: true, Read: true, Write: true, ExpectedDataTransferLength: 1})
	testAccepted(t, &SCSICommand{Final: true, Read: true})
	testAccepted(t, &SCSICommand{Write: true, ExpectedDataTransferLength: 1})
	testRefused(t, &SCSICommand{Read: true, ExpectedDataTransferLength: 1}, "neither final nor a write")
	testRefused(t, &SCSICommand{Final: true, ExpectedDataTransferLength: 1}, "neither a read nor a write")
}

func TestSCSICommandAHSLength(t *testing.T) {
	testAccepted(t, &SCSICommand{Final: true, AHSLength: MaxAHSLength, DataSegmentLength: MaxDataSegmentLength})
}
