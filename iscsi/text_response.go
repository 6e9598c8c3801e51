package iscsi

import "fmt"

// TextResponse is a Text Response PDU (RFC 7143 §11.11).
type TextResponse struct {
	Final             bool // the answer is complete
	Continue          bool // the keys go on in the next response
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32 // to be copied to the next request; with Final, ReservedTag
	StatSN            uint32
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	DataSegmentLength int // keys
}

// Encode sets all of h.
func (p *TextResponse) Encode(h *BHS) {
	h.start(OpTextResponse, false, 0)
	h.setBit(1, finalBit, p.Final)
	h.setBit(1, textContinueBit, p.Continue)
	h.SetDataSegmentLength(p.DataSegmentLength)
	h.setLUN(p.LUN)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.TargetTransferTag)
	h.setNumbers(p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
}

// Decode reads h. What goes on is not final (§11.11.2), and what is not final
// must have a tag to ask for the rest with (§11.11.4).
func (p *TextResponse) Decode(h *BHS) error {
	if err := h.expectTask(OpTextResponse); err != nil {
		return err
	}
	*p = TextResponse{
		Final:             h.Final(),
		Continue:          h[1]&textContinueBit != 0,
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		DataSegmentLength: h.DataSegmentLength(),
	}
	if p.Final && p.Continue {
		return fmt.Errorf("%v: both final and continue are set", OpTextResponse)
	}
	if !p.Final && p.TargetTransferTag == ReservedTag {
		return fmt.Errorf("%v: not final, but without a target transfer tag", OpTextResponse)
	}
	return nil
}
