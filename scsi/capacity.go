package scsi

import (
	"encoding/binary"
	"math"
)

// Capacity is the size of a logical unit (SBC-3 §5.15.2, §5.16.2).
type Capacity struct {
	LastLBA          uint64
	BlockLength      uint32 // bytes in a logical block
	PhysicalExponent uint8  // 2^n logical blocks in a physical one
	LowestAligned    uint16 // LBA of the first physical block's start
	LBPME            bool   // thin: logical block provisioning is managed
	LBPRZ            bool   // unmapped blocks read as zeroes
	Protection       bool   // formatted with protection information
	Long             bool   // ParseCapacity10 only: READ CAPACITY(16) is to be asked
}

const (
	capacity10Len = 8
	capacity16Min = 12
	capacity16Len = 32
)

// ParseCapacity10 parses READ CAPACITY(10) parameter data.
func ParseCapacity10(b []byte) (Capacity, error) {
	if len(b) < capacity10Len {
		return Capacity{}, short("READ CAPACITY(10) data", len(b), capacity10Len)
	}
	last := binary.BigEndian.Uint32(b)
	return Capacity{LastLBA: uint64(last), BlockLength: binary.BigEndian.Uint32(b[4:]), Long: last == math.MaxUint32}, nil
}

// ParseCapacity16 parses READ CAPACITY(16) parameter data, of which a target of
// SBC-2 sends the first 12 bytes only.
func ParseCapacity16(b []byte) (Capacity, error) {
	if len(b) < capacity16Min {
		return Capacity{}, short("READ CAPACITY(16) data", len(b), capacity16Min)
	}
	c := Capacity{LastLBA: binary.BigEndian.Uint64(b), BlockLength: binary.BigEndian.Uint32(b[8:])}
	if len(b) >= 16 {
		c.Protection = b[12]&1 != 0
		c.PhysicalExponent = b[13] & 0x0f
		c.LBPME = b[14]&0x80 != 0
		c.LBPRZ = b[14]&0x40 != 0
		c.LowestAligned = binary.BigEndian.Uint16(b[14:]) & 0x3fff
	}
	return c, nil
}

// Append10 appends READ CAPACITY(10) parameter data.
func (c Capacity) Append10(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(min(c.LastLBA, math.MaxUint32)))
	return binary.BigEndian.AppendUint32(b, c.BlockLength)
}

// Append16 appends READ CAPACITY(16) parameter data.
func (c Capacity) Append16(b []byte) []byte {
	var d [capacity16Len]byte
	binary.BigEndian.PutUint64(d[0:], c.LastLBA)
	binary.BigEndian.PutUint32(d[8:], c.BlockLength)
	if c.Protection {
		d[12] = 1
	}
	d[13] = c.PhysicalExponent & 0x0f
	binary.BigEndian.PutUint16(d[14:], c.LowestAligned&0x3fff)
	if c.LBPME {
		d[14] |= 0x80
	}
	if c.LBPRZ {
		d[14] |= 0x40
	}
	return append(b, d[:]...)
}
