package iscsi

import "testing"

func TestLoginRequest(t *testing.T) {
	p := LoginRequest{
		Transit:           true,
		CurrentStage:      StageOperational,
		NextStage:         StageFullFeature,
		VersionMax:        0x71,
		VersionMin:        0x72,
		ISID:              [6]byte{0x80, 1, 2, 3, 4, 5},
		TSIH:              0x0607,
		InitiatorTaskTag:  0x11121314,
		CID:               0x2122,
		CmdSN:             0x31323334,
		ExpStatSN:         0x41424344,
		DataSegmentLength: 0x0a0b0c,
	}
	const rest = `
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength
		80 01 02 03 04 05 // ISID (§11.12.5)
		06 07 // TSIH (§11.12.6)
		11 12 13 14 // Initiator Task Tag
		21 22 00 00 // CID (§11.12.7)
		31 32 33 34 // CmdSN (§11.12.8)
		41 42 43 44 // ExpStatSN (§11.12.9)
		00000000 00000000 00000000 00000000`
	const reserved = `
		ff 00 00 00
		0000 00000000 0000
		00000000
		0000 ffff
		00000000 00000000
		ffffffff ffffffff ffffffff ffffffff`
	testGolden(t, &p, "43 87 71 72 // §11.12: I and opcode 0x03; T, CSG, NSG; Version-max; Version-min\n"+rest,
		"80 30 00 00"+reserved)
	testNeedsTask(t, &p)

	// NSG is reserved without T (§11.12.3).
	p.Transit, p.Continue, p.CurrentStage, p.NextStage = false, true, StageSecurity, 0
	testGolden(t, &p, "43 40 71 72 // C, CSG\n"+rest, "80 33 00 00"+reserved)
	p.Continue, p.CurrentStage = false, StageOperational
	testGolden(t, &p, "43 04 71 72 // CSG\n"+rest, "80 33 00 00"+reserved)
}

// Stages that do not exist, and transits that lead nowhere (§11.12.1 to §11.12.3).
func TestLoginRequestStages(t *testing.T) {
	testAccepted(t, &LoginRequest{Transit: true, CurrentStage: StageSecurity, NextStage: StageFullFeature})
	testRefused(t, &LoginRequest{Transit: true, Continue: true, NextStage: StageOperational}, "both transit and continue")
	testRefused(t, &LoginRequest{CurrentStage: 2}, "current stage 2")
	testRefused(t, &LoginRequest{CurrentStage: StageFullFeature}, "current stage 3")
	testRefused(t, &LoginRequest{Transit: true, NextStage: 2}, "next stage 2")
	testRefused(t, &LoginRequest{Transit: true, NextStage: StageSecurity}, "next stage 0")
	testRefused(t, &LoginRequest{Transit: true, CurrentStage: StageOperational, NextStage: StageOperational}, "back to operational")
}

func TestStages(t *testing.T) {
	testNames(t, map[Stage]string{
		0: "security negotiation", 1: "operational negotiation", 2: "stage 2", 3: "full-feature phase",
	})
}
