package iscsi

import "fmt"

const (
	acknowledgeBit = 0x40
	statusBit      = 0x01
)

// DataIn is a SCSI Data-In PDU (RFC 7143 §11.7): data from the target, with the
// last of which the status of the command may come.
type DataIn struct {
	Final             bool // last of its sequence
	Acknowledge       bool // the target wants a DataACK SNACK (error recovery level above 0)
	Overflow          bool // as in SCSIResponse; with HasStatus only
	Underflow         bool
	HasStatus         bool  // Status, StatSN and Residual are valid, and the command is ended
	Status            uint8 // SCSI status (SAM-5 §5.3)
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32 // means something with Acknowledge only
	StatSN            uint32
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	DataSN            uint32 // place among the Data-In PDUs of the command
	BufferOffset      uint32 // bytes from the start of the task's buffer
	Residual          uint32 // bytes
	DataSegmentLength int
}

// Encode sets all of h.
func (p *DataIn) Encode(h *BHS) {
	h.start(OpDataIn, false, 0)
	h.setBit(1, finalBit, p.Final)
	h.setBit(1, acknowledgeBit, p.Acknowledge)
	h.setBit(1, overflowBit, p.Overflow)
	h.setBit(1, underflowBit, p.Underflow)
	h.setBit(1, statusBit, p.HasStatus)
	h[3] = p.Status
	h.SetDataSegmentLength(p.DataSegmentLength)
	h.setLUN(p.LUN)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.TargetTransferTag)
	h.setNumbers(p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	h.setU32(36, p.DataSN)
	h.setU32(40, p.BufferOffset)
	h.setU32(44, p.Residual)
}

// Decode reads h. Status comes with the last PDU only (§11.7.3), overflow and
// underflow exclude each other, and the data must end within 4 GiB of the
// buffer's start.
func (p *DataIn) Decode(h *BHS) error {
	if err := h.expectTask(OpDataIn); err != nil {
		return err
	}
	*p = DataIn{
		Final:             h.Final(),
		Acknowledge:       h[1]&acknowledgeBit != 0,
		Overflow:          h[1]&overflowBit != 0,
		Underflow:         h[1]&underflowBit != 0,
		HasStatus:         h[1]&statusBit != 0,
		Status:            h[3],
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		DataSN:            h.u32(36),
		BufferOffset:      h.u32(40),
		Residual:          h.u32(44),
		DataSegmentLength: h.DataSegmentLength(),
	}
	if p.HasStatus && !p.Final {
		return fmt.Errorf("%v: status, but not final", OpDataIn)
	}
	if p.HasStatus && p.Overflow && p.Underflow {
		return fmt.Errorf("%v: both overflow and underflow", OpDataIn)
	}
	return checkBuffer(OpDataIn, p.BufferOffset, uint32(p.DataSegmentLength))
}
