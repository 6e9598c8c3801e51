package iscsi

import "fmt"

// NOPIn is a NOP-In PDU (RFC 7143 §11.19): a target's ping (it has a target
// transfer tag), the answer to an initiator's (an initiator task tag), or news
// of the sequence numbers alone (neither; then StatSN is the next one, not its own).
type NOPIn struct {
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	StatSN            uint32
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	DataSegmentLength int // ping data
}

// Encode sets all of h.
func (p *NOPIn) Encode(h *BHS) {
	h.start(OpNOPIn, false, finalBit)
	h.SetDataSegmentLength(p.DataSegmentLength)
	h.setLUN(p.LUN)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.TargetTransferTag)
	h.setNumbers(p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
}

// Decode reads h. A ping and an answer exclude each other (§11.19.1).
func (p *NOPIn) Decode(h *BHS) error {
	if err := h.expect(OpNOPIn); err != nil {
		return err
	}
	if h.InitiatorTaskTag() != ReservedTag && h.TargetTransferTag() != ReservedTag {
		return fmt.Errorf("%v: both an initiator task tag and a target transfer tag", OpNOPIn)
	}
	*p = NOPIn{
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		DataSegmentLength: h.DataSegmentLength(),
	}
	return nil
}
