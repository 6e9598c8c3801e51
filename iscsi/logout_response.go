package iscsi

import "fmt"

// LogoutResponseCode is the outcome of a logout (RFC 7143 §11.15.1).
type LogoutResponseCode uint8

// The outcomes.
const (
	LogoutSuccess              LogoutResponseCode = 0
	LogoutCIDNotFound          LogoutResponseCode = 1
	LogoutRecoveryNotSupported LogoutResponseCode = 2
	LogoutCleanupFailed        LogoutResponseCode = 3
)

// String says what the target answered.
func (r LogoutResponseCode) String() string {
	switch r {
	case LogoutSuccess:
		return "closed successfully"
	case LogoutCIDNotFound:
		return "connection ID not found"
	case LogoutRecoveryNotSupported:
		return "connection recovery not supported"
	case LogoutCleanupFailed:
		return "cleanup failed"
	}
	return fmt.Sprintf("logout response %d", uint8(r))
}

// LogoutResponse is a Logout Response PDU (RFC 7143 §11.15).
type LogoutResponse struct {
	Response         LogoutResponseCode
	InitiatorTaskTag uint32
	StatSN           uint32
	ExpCmdSN         uint32
	MaxCmdSN         uint32
	Time2Wait        uint16 // seconds before tasks may be taken up again
	Time2Retain      uint16 // seconds after that in which they may be
}

// Encode sets all of h.
func (p *LogoutResponse) Encode(h *BHS) {
	h.start(OpLogoutResponse, false, finalBit)
	h[2] = byte(p.Response)
	h.setU32(16, p.InitiatorTaskTag)
	h.setNumbers(p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	h.setU16(40, p.Time2Wait)
	h.setU16(42, p.Time2Retain)
}

// Decode reads h.
func (p *LogoutResponse) Decode(h *BHS) error {
	if err := h.expectTask(OpLogoutResponse); err != nil {
		return err
	}
	*p = LogoutResponse{
		Response:         LogoutResponseCode(h[2]),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		StatSN:           h.StatSN(),
		ExpCmdSN:         h.ExpCmdSN(),
		MaxCmdSN:         h.MaxCmdSN(),
		Time2Wait:        h.u16(40),
		Time2Retain:      h.u16(42),
	}
	return nil
}
