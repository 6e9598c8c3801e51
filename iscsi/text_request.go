package iscsi

import "fmt"

const textContinueBit = 0x40

// TextRequest is a Text Request PDU (RFC 7143 §11.10).
type TextRequest struct {
	Immediate         bool
	Final             bool // the initiator has nothing more to say
	Continue          bool // the keys go on in the next request
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32 // copied from the response that is answered, else ReservedTag
	CmdSN             uint32
	ExpStatSN         uint32
	DataSegmentLength int // keys
}

// Encode sets all of h.
func (p *TextRequest) Encode(h *BHS) {
	h.start(OpTextRequest, p.Immediate, 0)
	h.setBit(1, finalBit, p.Final)
	h.setBit(1, textContinueBit, p.Continue)
	h.SetDataSegmentLength(p.DataSegmentLength)
	h.setLUN(p.LUN)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.TargetTransferTag)
	h.setU32(24, p.CmdSN)
	h.setU32(28, p.ExpStatSN)
}

// Decode reads h. What goes on is not final (§11.10.2).
func (p *TextRequest) Decode(h *BHS) error {
	if err := h.expectTask(OpTextRequest); err != nil {
		return err
	}
	*p = TextRequest{
		Immediate:         h.Immediate(),
		Final:             h.Final(),
		Continue:          h[1]&textContinueBit != 0,
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		CmdSN:             h.CmdSN(),
		ExpStatSN:         h.ExpStatSN(),
		DataSegmentLength: h.DataSegmentLength(),
	}
	if p.Final && p.Continue {
		return fmt.Errorf("%v: both final and continue are set", OpTextRequest)
	}
	return nil
}
