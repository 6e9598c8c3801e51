package iscsi

import "fmt"

// LoginRequest is a Login Request PDU (RFC 7143 §11.12). It is always immediate.
type LoginRequest struct {
	Transit           bool // ready for NextStage
	Continue          bool // the keys go on in the next request
	CurrentStage      Stage
	NextStage         Stage // 0 without Transit
	VersionMax        uint8
	VersionMin        uint8
	ISID              [6]byte
	TSIH              uint16 // 0: a new session, or reinstatement of one
	InitiatorTaskTag  uint32
	CID               uint16
	CmdSN             uint32
	ExpStatSN         uint32
	DataSegmentLength int // keys
}

// Encode sets all of h.
func (p *LoginRequest) Encode(h *BHS) {
	h.start(OpLoginRequest, true, loginFlags(p.Transit, p.Continue, p.CurrentStage, p.NextStage))
	h[2], h[3] = p.VersionMax, p.VersionMin
	h.SetDataSegmentLength(p.DataSegmentLength)
	copy(h[8:14], p.ISID[:])
	h.setU16(14, p.TSIH)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU16(20, p.CID)
	h.setU32(24, p.CmdSN)
	h.setU32(28, p.ExpStatSN)
}

// Decode reads h and checks the stages (§11.12.1 to §11.12.3).
func (p *LoginRequest) Decode(h *BHS) error {
	if err := h.expectTask(OpLoginRequest); err != nil {
		return err
	}
	*p = LoginRequest{
		Transit:           h[1]&transitBit != 0,
		Continue:          h[1]&loginContinueBit != 0,
		CurrentStage:      Stage(h[1] >> currentShift & stageMask),
		VersionMax:        h[2],
		VersionMin:        h[3],
		ISID:              [6]byte(h[8:14]),
		TSIH:              h.u16(14),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		CID:               h.u16(20),
		CmdSN:             h.CmdSN(),
		ExpStatSN:         h.ExpStatSN(),
		DataSegmentLength: h.DataSegmentLength(),
	}
	if p.Transit {
		p.NextStage = Stage(h[1] & stageMask)
	}
	if err := checkStages(p.Transit, p.Continue, p.CurrentStage, p.NextStage); err != nil {
		return fmt.Errorf("%v: %w", OpLoginRequest, err)
	}
	return nil
}
