package iscsi

import "testing"

func TestLoginResponse(t *testing.T) {
	p := LoginResponse{
		Transit:           true,
		CurrentStage:      StageSecurity,
		NextStage:         StageOperational,
		VersionMax:        0x71,
		VersionActive:     0x72,
		ISID:              [6]byte{0x80, 1, 2, 3, 4, 5},
		TSIH:              0x0607,
		InitiatorTaskTag:  0x11121314,
		StatSN:            0x31323334,
		ExpCmdSN:          0x41424344,
		MaxCmdSN:          0x51525354,
		Status:            0,
		DataSegmentLength: 0x0a0b0c,
	}
	const begin = `
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength
		80 01 02 03 04 05 // ISID
		06 07 // TSIH (§11.13.3)
		11 12 13 14 // Initiator Task Tag
		00000000
		31 32 33 34 // StatSN (§11.13.4)
		41 42 43 44 // ExpCmdSN
		51 52 53 54 // MaxCmdSN
		`
	const reserved = `
		ff 00 00 00
		0000 00000000 0000
		00000000
		ffffffff
		00000000 00000000 00000000
		0000 ffff
		ffffffff ffffffff`
	testGolden(t, &p, "23 81 71 72 // §11.13: opcode 0x23; T, CSG, NSG; Version-max; Version-active\n"+
		begin+"00 00 00 00 00000000 00000000 // Status-Class, Status-Detail (§11.13.5)", "c0 30 00 00"+reserved)
	testNeedsTask(t, &p)

	p.Transit, p.Continue, p.CurrentStage, p.NextStage = false, true, StageOperational, 0
	p.Status = LoginServiceUnavailable
	testGolden(t, &p, "23 44 71 72 // C, CSG\n"+begin+"03 01 00 00 00000000 00000000", "c0 33 00 00"+reserved)
}

func TestLoginResponseStages(t *testing.T) {
	testRefused(t, &LoginResponse{Transit: true, Continue: true, NextStage: StageOperational}, "both transit and continue")
	testRefused(t, &LoginResponse{CurrentStage: 2}, "current stage 2")
	testRefused(t, &LoginResponse{Transit: true, CurrentStage: StageOperational, NextStage: StageOperational}, "back to operational")
	// Without success they mean nothing.
	testAccepted(t, &LoginResponse{CurrentStage: 2, Status: LoginTargetError})
	testAccepted(t, &LoginResponse{Transit: true, CurrentStage: 3, NextStage: 1, Status: LoginTargetMovedTemporarily})
}
