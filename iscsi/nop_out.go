package iscsi

import "fmt"

// NOPOut is a NOP-Out PDU (RFC 7143 §11.18): a ping, or the answer to a target's.
type NOPOut struct {
	Immediate         bool
	LUN               uint64
	InitiatorTaskTag  uint32 // ReservedTag: no answer is wanted; Immediate must be set
	TargetTransferTag uint32 // copied from the NOP-In that is answered, else ReservedTag
	CmdSN             uint32
	ExpStatSN         uint32
	DataSegmentLength int // ping data
}

// Encode sets all of h.
func (p *NOPOut) Encode(h *BHS) {
	h.start(OpNOPOut, p.Immediate, finalBit)
	h.SetDataSegmentLength(p.DataSegmentLength)
	h.setLUN(p.LUN)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.TargetTransferTag)
	h.setU32(24, p.CmdSN)
	h.setU32(28, p.ExpStatSN)
}

// Decode reads h. A NOP-Out that wants no answer must be immediate (§11.18.1).
func (p *NOPOut) Decode(h *BHS) error {
	if err := h.expect(OpNOPOut); err != nil {
		return err
	}
	if h.InitiatorTaskTag() == ReservedTag && !h.Immediate() {
		return fmt.Errorf("%v: no initiator task tag, but not immediate", OpNOPOut)
	}
	*p = NOPOut{
		Immediate:         h.Immediate(),
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		CmdSN:             h.CmdSN(),
		ExpStatSN:         h.ExpStatSN(),
		DataSegmentLength: h.DataSegmentLength(),
	}
	return nil
}
