package iscsi

import "fmt"

// TaskAttribute is how a task is ordered among the others of its logical unit
// (RFC 7143 §11.3.1, SAM-5 §8.6).
type TaskAttribute uint8

// The task attributes.
const (
	Untagged    TaskAttribute = 0
	Simple      TaskAttribute = 1
	Ordered     TaskAttribute = 2
	HeadOfQueue TaskAttribute = 3
	ACA         TaskAttribute = 4
)

// String is the name of the attribute.
func (a TaskAttribute) String() string {
	switch a {
	case Untagged:
		return "untagged"
	case Simple:
		return "simple"
	case Ordered:
		return "ordered"
	case HeadOfQueue:
		return "head of queue"
	case ACA:
		return "ACA"
	}
	return fmt.Sprintf("task attribute %d", uint8(a))
}

const (
	commandReadBit       = 0x40
	commandWriteBit      = 0x20
	commandAttributeMask = 0x07
)

// SCSICommand is a SCSI Command PDU (RFC 7143 §11.3).
type SCSICommand struct {
	Immediate                  bool
	Final                      bool // no unsolicited Data-Out follows
	Read                       bool // data is expected from the target
	Write                      bool // data is expected by the target
	Attribute                  TaskAttribute
	LUN                        uint64
	InitiatorTaskTag           uint32
	ExpectedDataTransferLength uint32 // bytes; with Read and Write, those to be written
	CmdSN                      uint32
	ExpStatSN                  uint32
	CDB                        [16]byte // what is longer goes into an extended CDB AHS
	AHSLength                  int      // bytes with padding: a multiple of 4, at most MaxAHSLength
	DataSegmentLength          int      // immediate data
}

// Encode sets all of h.
func (p *SCSICommand) Encode(h *BHS) {
	h.start(OpSCSICommand, p.Immediate, byte(p.Attribute)&commandAttributeMask)
	h.setBit(1, finalBit, p.Final)
	h.setBit(1, commandReadBit, p.Read)
	h.setBit(1, commandWriteBit, p.Write)
	h[4] = byte(p.AHSLength / 4)
	h.SetDataSegmentLength(p.DataSegmentLength)
	h.setLUN(p.LUN)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.ExpectedDataTransferLength)
	h.setU32(24, p.CmdSN)
	h.setU32(28, p.ExpStatSN)
	copy(h[32:], p.CDB[:])
}

// Decode reads h. A command that announces more data must be a write, and one
// that expects data must have a direction (§11.3.1).
func (p *SCSICommand) Decode(h *BHS) error {
	if err := h.expectTask(OpSCSICommand); err != nil {
		return err
	}
	*p = SCSICommand{
		Immediate:                  h.Immediate(),
		Final:                      h.Final(),
		Read:                       h[1]&commandReadBit != 0,
		Write:                      h[1]&commandWriteBit != 0,
		Attribute:                  TaskAttribute(h[1] & commandAttributeMask),
		LUN:                        h.LUN(),
		InitiatorTaskTag:           h.InitiatorTaskTag(),
		ExpectedDataTransferLength: h.u32(20),
		CmdSN:                      h.CmdSN(),
		ExpStatSN:                  h.ExpStatSN(),
		CDB:                        [16]byte(h[32:48]),
		AHSLength:                  h.TotalAHSLength(),
		DataSegmentLength:          h.DataSegmentLength(),
	}
	if !p.Final && !p.Write {
		return fmt.Errorf("%v: neither final nor a write", OpSCSICommand)
	}
	if !p.Read && !p.Write && p.ExpectedDataTransferLength != 0 {
		return fmt.Errorf("%v: data expected, but neither a read nor a write", OpSCSICommand)
	}
	return nil
}
