package iscsi

import "testing"

// The table of §11.13.5.
func TestLoginStatus(t *testing.T) {
	testNames(t, map[LoginStatus]string{
		0x0000: "Success",
		0x0101: "Target moved temporarily",
		0x0102: "Target moved permanently",
		0x0200: "Initiator error",
		0x0201: "Authentication failure",
		0x0202: "Authorization failure",
		0x0203: "Not found",
		0x0204: "Target removed",
		0x0205: "Unsupported version",
		0x0206: "Too many connections",
		0x0207: "Missing parameter",
		0x0208: "Can't include in session",
		0x0209: "Session type not supported",
		0x020a: "Session does not exist",
		0x020b: "Invalid during login",
		0x0300: "Target error",
		0x0301: "Service unavailable",
		0x0302: "Out of resources",

		0x0001: "unknown success; Status-Class 0x0, Status-Detail 0x1",
		0x0103: "unknown redirection; Status-Class 0x1, Status-Detail 0x3",
		0x02ff: "unknown initiator error; Status-Class 0x2, Status-Detail 0xff",
		0x0310: "unknown target error; Status-Class 0x3, Status-Detail 0x10",
		0x0400: "unknown error; Status-Class 0x4, Status-Detail 0x0",
	})
}

func TestLoginStatusParts(t *testing.T) {
	s := LoginStatus(0x0207)
	if s.Class() != ClassInitiatorError || s.Detail() != 7 {
		t.Errorf("class %d, detail %d", s.Class(), s.Detail())
	}
}
