package iscsi

import "fmt"

// R2T is a Ready To Transfer PDU (RFC 7143 §11.8): the target asks for data.
type R2T struct {
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32 // to be copied to the Data-Out PDUs
	StatSN            uint32 // the next one, not its own
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	R2TSN             uint32 // place among the R2Ts of the command
	BufferOffset      uint32 // bytes from the start of the task's buffer
	DesiredLength     uint32 // bytes: at least 1
}

// Encode sets all of h.
func (p *R2T) Encode(h *BHS) {
	h.start(OpR2T, false, finalBit)
	h.setLUN(p.LUN)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.TargetTransferTag)
	h.setNumbers(p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	h.setU32(36, p.R2TSN)
	h.setU32(40, p.BufferOffset)
	h.setU32(44, p.DesiredLength)
}

// Decode reads h. An R2T must have a tag of its own (§11.8.5) and ask for
// something (§11.8.4) that ends within 4 GiB of the buffer's start.
func (p *R2T) Decode(h *BHS) error {
	if err := h.expectTask(OpR2T); err != nil {
		return err
	}
	*p = R2T{
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		R2TSN:             h.u32(36),
		BufferOffset:      h.u32(40),
		DesiredLength:     h.u32(44),
	}
	if p.TargetTransferTag == ReservedTag {
		return fmt.Errorf("%v: target transfer tag is reserved", OpR2T)
	}
	if p.DesiredLength == 0 {
		return fmt.Errorf("%v: asks for no data", OpR2T)
	}
	return checkBuffer(OpR2T, p.BufferOffset, p.DesiredLength)
}
