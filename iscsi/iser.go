package iscsi

import (
	"encoding/binary"
	"fmt"
)

// ISERHeaderLen is the length of the header before each PDU on iSER, in bytes.
const ISERHeaderLen = 28

const (
	iserControlType = 0x10
	iserTypeMask    = 0xf0
	iserWriteBit    = 0x08
	iserReadBit     = 0x04
)

// ISERHeader is the header of an iSER control-type PDU (RFC 7145 §9.2): it tells
// the target where the data of a command is in the initiator's memory. Where it
// has neither a read nor a write, the PDU is one without RDMA.
type ISERHeader struct {
	HasWrite  bool   // WriteSTag and WriteBase are valid
	WriteSTag uint32 // memory that the target may read from
	WriteBase uint64
	HasRead   bool   // ReadSTag and ReadBase are valid
	ReadSTag  uint32 // memory that the target may write to
	ReadBase  uint64
}

// Encode sets all of b. What is not valid is zero.
func (p *ISERHeader) Encode(b *[ISERHeaderLen]byte) {
	*b = [ISERHeaderLen]byte{iserControlType}
	if p.HasWrite {
		b[0] |= iserWriteBit
		binary.BigEndian.PutUint32(b[4:], p.WriteSTag)
		binary.BigEndian.PutUint64(b[8:], p.WriteBase)
	}
	if p.HasRead {
		b[0] |= iserReadBit
		binary.BigEndian.PutUint32(b[16:], p.ReadSTag)
		binary.BigEndian.PutUint64(b[20:], p.ReadBase)
	}
}

// Decode reads b. What is not valid is left zero, so that it cannot be used.
func (p *ISERHeader) Decode(b *[ISERHeaderLen]byte) error {
	*p = ISERHeader{}
	if b[0]&iserTypeMask != iserControlType {
		return fmt.Errorf("iSER header: opcode 0x%x is not that of an iSCSI control-type PDU", b[0]>>4)
	}
	if b[0]&iserWriteBit != 0 {
		p.HasWrite = true
		p.WriteSTag = binary.BigEndian.Uint32(b[4:])
		p.WriteBase = binary.BigEndian.Uint64(b[8:])
	}
	if b[0]&iserReadBit != 0 {
		p.HasRead = true
		p.ReadSTag = binary.BigEndian.Uint32(b[16:])
		p.ReadBase = binary.BigEndian.Uint64(b[20:])
	}
	return nil
}
