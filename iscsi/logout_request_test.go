package iscsi

import "testing"

func TestLogoutRequest(t *testing.T) {
	p := LogoutRequest{
		Immediate:        true,
		Reason:           LogoutRemoveForRecovery,
		InitiatorTaskTag: 0x11121314,
		CID:              0x2122,
		CmdSN:            0x31323334,
		ExpStatSN:        0x41424344,
	}
	testGolden(t, &p, `
		46 82 00 00 // §11.14: I and opcode 0x06; 1, Reason Code (§11.14.1)
		00 00 00 00 // TotalAHSLength; DataSegmentLength
		00000000 00000000
		11 12 13 14 // Initiator Task Tag
		21 22 00 00 // CID (§11.14.3)
		31 32 33 34 // CmdSN
		41 42 43 44 // ExpStatSN (§11.14.4)
		00000000 00000000 00000000 00000000`, `
		80 00 ff ff
		ff ff ff ff
		ffffffff ffffffff 00000000 0000ffff 00000000 00000000
		ffffffff ffffffff ffffffff ffffffff`)
	testNeedsTask(t, &p)
}

// The numbers of §11.14.1.
func TestLogoutReasons(t *testing.T) {
	testNames(t, map[LogoutReason]string{
		0: "close the session", 1: "close the connection",
		2: "remove the connection for recovery", 3: "logout reason 3",
	})
}
