package iscsi

import "testing"

func TestLogoutResponse(t *testing.T) {
	p := LogoutResponse{
		Response:         LogoutCleanupFailed,
		InitiatorTaskTag: 0x11121314,
		StatSN:           0x31323334,
		ExpCmdSN:         0x41424344,
		MaxCmdSN:         0x51525354,
		Time2Wait:        0x7172,
		Time2Retain:      0x7374,
	}
	testGolden(t, &p, `
		26 80 03 00 // §11.15: opcode 0x26; 1; Response (§11.15.1)
		00 00 00 00 // TotalAHSLength; DataSegmentLength
		00000000 00000000
		11 12 13 14 // Initiator Task Tag
		00000000
		31 32 33 34 // StatSN
		41 42 43 44 // ExpCmdSN
		51 52 53 54 // MaxCmdSN
		00000000
		71 72 // Time2Wait (§11.15.3)
		73 74 // Time2Retain (§11.15.4)
		00000000`, `
		c0 7f 00 ff
		ff ff ff ff
		ffffffff ffffffff 00000000 ffffffff 00000000 00000000
		00000000 ffffffff 00000000 ffffffff`)
	testNeedsTask(t, &p)
}

// The numbers of §11.15.1.
func TestLogoutResponseCodes(t *testing.T) {
	testNames(t, map[LogoutResponseCode]string{
		0: "closed successfully", 1: "connection ID not found",
		2: "connection recovery not supported", 3: "cleanup failed", 4: "logout response 4",
	})
}
