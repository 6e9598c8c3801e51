package iscsi

import "fmt"

// LogoutReason is why an initiator logs out (RFC 7143 §11.14.1).
type LogoutReason uint8

// The reasons.
const (
	LogoutCloseSession      LogoutReason = 0
	LogoutCloseConnection   LogoutReason = 1
	LogoutRemoveForRecovery LogoutReason = 2
)

// String says what the reason is.
func (r LogoutReason) String() string {
	switch r {
	case LogoutCloseSession:
		return "close the session"
	case LogoutCloseConnection:
		return "close the connection"
	case LogoutRemoveForRecovery:
		return "remove the connection for recovery"
	}
	return fmt.Sprintf("logout reason %d", uint8(r))
}

// LogoutRequest is a Logout Request PDU (RFC 7143 §11.14).
type LogoutRequest struct {
	Immediate        bool
	Reason           LogoutReason
	InitiatorTaskTag uint32
	CID              uint16 // the connection; means nothing with LogoutCloseSession
	CmdSN            uint32
	ExpStatSN        uint32
}

// Encode sets all of h.
func (p *LogoutRequest) Encode(h *BHS) {
	h.start(OpLogoutRequest, p.Immediate, finalBit|byte(p.Reason)&^finalBit)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU16(20, p.CID)
	h.setU32(24, p.CmdSN)
	h.setU32(28, p.ExpStatSN)
}

// Decode reads h.
func (p *LogoutRequest) Decode(h *BHS) error {
	if err := h.expectTask(OpLogoutRequest); err != nil {
		return err
	}
	*p = LogoutRequest{
		Immediate:        h.Immediate(),
		Reason:           LogoutReason(h[1] &^ finalBit),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		CID:              h.u16(20),
		CmdSN:            h.CmdSN(),
		ExpStatSN:        h.ExpStatSN(),
	}
	return nil
}
