package iscsi

import "fmt"

// LoginResponse is a Login Response PDU (RFC 7143 §11.13). Where Status is of
// another class than ClassSuccess, the stages, StatSN, ExpCmdSN and MaxCmdSN
// mean nothing.
type LoginResponse struct {
	Transit           bool // the next PDU is of NextStage
	Continue          bool // the keys go on in the next response
	CurrentStage      Stage
	NextStage         Stage // 0 without Transit
	VersionMax        uint8
	VersionActive     uint8
	ISID              [6]byte
	TSIH              uint16 // the session's, in the last response of a login
	InitiatorTaskTag  uint32
	StatSN            uint32
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	Status            LoginStatus
	DataSegmentLength int // keys
}

// Encode sets all of h.
func (p *LoginResponse) Encode(h *BHS) {
	h.start(OpLoginResponse, false, loginFlags(p.Transit, p.Continue, p.CurrentStage, p.NextStage))
	h[2], h[3] = p.VersionMax, p.VersionActive
	h.SetDataSegmentLength(p.DataSegmentLength)
	copy(h[8:14], p.ISID[:])
	h.setU16(14, p.TSIH)
	h.setU32(16, p.InitiatorTaskTag)
	h.setNumbers(p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	h.setU16(36, uint16(p.Status))
}

// Decode reads h and, of a successful response, checks the stages.
func (p *LoginResponse) Decode(h *BHS) error {
	if err := h.expectTask(OpLoginResponse); err != nil {
		return err
	}
	*p = LoginResponse{
		Transit:           h[1]&transitBit != 0,
		Continue:          h[1]&loginContinueBit != 0,
		CurrentStage:      Stage(h[1] >> currentShift & stageMask),
		VersionMax:        h[2],
		VersionActive:     h[3],
		ISID:              [6]byte(h[8:14]),
		TSIH:              h.u16(14),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		Status:            LoginStatus(h.u16(36)),
		DataSegmentLength: h.DataSegmentLength(),
	}
	if p.Transit {
		p.NextStage = Stage(h[1] & stageMask)
	}
	if p.Status.Class() != ClassSuccess {
		return nil
	}
	if err := checkStages(p.Transit, p.Continue, p.CurrentStage, p.NextStage); err != nil {
		return fmt.Errorf("%v: %w", OpLoginResponse, err)
	}
	return nil
}
