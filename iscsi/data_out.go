package iscsi

// DataOut is a SCSI Data-Out PDU (RFC 7143 §11.7): data for the target.
type DataOut struct {
	Final             bool // last of its sequence
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32 // of the R2T that is answered; ReservedTag: unsolicited
	ExpStatSN         uint32
	DataSN            uint32 // place in the sequence
	BufferOffset      uint32 // bytes from the start of the task's buffer
	DataSegmentLength int
}

// Encode sets all of h.
func (p *DataOut) Encode(h *BHS) {
	h.start(OpDataOut, false, 0)
	h.setBit(1, finalBit, p.Final)
	h.SetDataSegmentLength(p.DataSegmentLength)
	h.setLUN(p.LUN)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.TargetTransferTag)
	h.setU32(28, p.ExpStatSN)
	h.setU32(36, p.DataSN)
	h.setU32(40, p.BufferOffset)
}

// Decode reads h. The data must end within 4 GiB of the buffer's start.
func (p *DataOut) Decode(h *BHS) error {
	if err := h.expectTask(OpDataOut); err != nil {
		return err
	}
	*p = DataOut{
		Final:             h.Final(),
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		ExpStatSN:         h.ExpStatSN(),
		DataSN:            h.u32(36),
		BufferOffset:      h.u32(40),
		DataSegmentLength: h.DataSegmentLength(),
	}
	return checkBuffer(OpDataOut, p.BufferOffset, uint32(p.DataSegmentLength))
}
