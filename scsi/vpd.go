package scsi

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Vital product data pages (SPC-4 §7.8, SBC-3 §6.6).
const (
	VPDSupported       = 0x00
	VPDSerial          = 0x80
	VPDIdentification  = 0x83
	VPDBlockLimits     = 0xb0
	VPDCharacteristics = 0xb1
	VPDProvisioning    = 0xb2
)

const vpdHeader = 4

// AppendVPD appends a vital product data page with its header of four bytes.
func AppendVPD(b []byte, t DeviceType, page uint8, payload []byte) []byte {
	b = append(b, byte(t)&0x1f, page)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	return append(b, payload...)
}

// vpd returns a page's payload, as far as it is there.
func vpd(b []byte, page uint8) ([]byte, error) {
	if len(b) < vpdHeader {
		return nil, short(fmt.Sprintf("VPD page %02x", page), len(b), vpdHeader)
	}
	// Some targets answer any page with standard INQUIRY data.
	if b[1] != page {
		return nil, fmt.Errorf("scsi: VPD page %02x came where %02x was asked for", b[1], page)
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	return b[vpdHeader:min(vpdHeader+n, len(b))], nil
}

// VPDLength returns how many bytes a page has in a long enough buffer, its
// header included, as it says itself, or 0 where it is too short to say.
func VPDLength(b []byte) int {
	if len(b) < vpdHeader {
		return 0
	}
	return vpdHeader + int(binary.BigEndian.Uint16(b[2:]))
}

// ParseSupported parses VPD page 00: the list of the pages that there are.
func ParseSupported(b []byte) ([]uint8, error) {
	p, err := vpd(b, VPDSupported)
	return slices.Clone(p), err
}

// ParseSerial parses VPD page 80: the unit's serial number, as printable ASCII.
func ParseSerial(b []byte) (string, error) {
	p, err := vpd(b, VPDSerial)
	return printable(p), err
}

// BlockLimits is VPD page B0 (SBC-3 §6.6.4). Lengths are in logical blocks, and
// 0 where the target does not say.
type BlockLimits struct {
	MaxTransfer       uint32
	OptimalTransfer   uint32
	OptimalGranule    uint16
	MaxUnmapBlocks    uint32 // 0: UNMAP is not supported; 0xffffffff: no limit
	MaxUnmapExtents   uint32 // block descriptors of one UNMAP; likewise
	UnmapGranule      uint32
	UnmapAlignment    uint32
	UnmapAligned      bool   // UnmapAlignment is valid
	MaxWriteSame      uint64 // 0: no limit, or not known
	NonZeroWriteSame0 bool   // WSNZ: WRITE SAME of 0 blocks is refused
}

const limitsLen = 60

// ParseBlockLimits parses VPD page B0. The page of SBC-2 has the first three
// fields only.
func ParseBlockLimits(b []byte) (BlockLimits, error) {
	p, err := vpd(b, VPDBlockLimits)
	if err != nil {
		return BlockLimits{}, err
	}
	var a [limitsLen]byte // what is not there is zero
	copy(a[:], p)
	return BlockLimits{
		NonZeroWriteSame0: a[0]&1 != 0,
		OptimalGranule:    binary.BigEndian.Uint16(a[2:]),
		MaxTransfer:       binary.BigEndian.Uint32(a[4:]),
		OptimalTransfer:   binary.BigEndian.Uint32(a[8:]),
		MaxUnmapBlocks:    binary.BigEndian.Uint32(a[16:]),
		MaxUnmapExtents:   binary.BigEndian.Uint32(a[20:]),
		UnmapGranule:      binary.BigEndian.Uint32(a[24:]),
		UnmapAlignment:    binary.BigEndian.Uint32(a[28:]) &^ (1 << 31),
		UnmapAligned:      a[28]&0x80 != 0,
		MaxWriteSame:      binary.BigEndian.Uint64(a[32:]),
	}, nil
}

// Append appends VPD page B0, 64 bytes.
func (l BlockLimits) Append(b []byte) []byte {
	var a [limitsLen]byte
	if l.NonZeroWriteSame0 {
		a[0] = 1
	}
	binary.BigEndian.PutUint16(a[2:], l.OptimalGranule)
	binary.BigEndian.PutUint32(a[4:], l.MaxTransfer)
	binary.BigEndian.PutUint32(a[8:], l.OptimalTransfer)
	binary.BigEndian.PutUint32(a[16:], l.MaxUnmapBlocks)
	binary.BigEndian.PutUint32(a[20:], l.MaxUnmapExtents)
	binary.BigEndian.PutUint32(a[24:], l.UnmapGranule)
	binary.BigEndian.PutUint32(a[28:], l.UnmapAlignment&^(1<<31))
	if l.UnmapAligned {
		a[28] |= 0x80
	}
	binary.BigEndian.PutUint64(a[32:], l.MaxWriteSame)
	return AppendVPD(b, TypeDisk, VPDBlockLimits, a[:])
}

// Characteristics is VPD page B1 (SBC-3 §6.6.2).
type Characteristics struct {
	Rotation uint16 // 0 not reported, 1 does not rotate, else revolutions per minute
	Zoned    uint8  // 0 not reported, 1 host-aware, 2 device-managed
}

const characteristicsLen = 60

// ParseCharacteristics parses VPD page B1.
func ParseCharacteristics(b []byte) (Characteristics, error) {
	p, err := vpd(b, VPDCharacteristics)
	if err != nil {
		return Characteristics{}, err
	}
	var c Characteristics
	if len(p) >= 2 {
		c.Rotation = binary.BigEndian.Uint16(p)
	}
	if len(p) >= 5 {
		c.Zoned = p[4] >> 4 & 3
	}
	return c, nil
}

// Append appends VPD page B1, 64 bytes.
func (c Characteristics) Append(b []byte) []byte {
	var a [characteristicsLen]byte
	binary.BigEndian.PutUint16(a[:], c.Rotation)
	a[4] = c.Zoned & 3 << 4
	return AppendVPD(b, TypeDisk, VPDCharacteristics, a[:])
}

// Provisioning is VPD page B2 (SBC-3 §6.6.3): how a thin disk is told of what is
// not needed any more.
type Provisioning struct {
	LBPU   bool  // UNMAP
	LBPWS  bool  // WRITE SAME(16) with SameUnmap
	LBPW10 bool  // WRITE SAME(10) with SameUnmap
	LBPRZ  bool  // unmapped blocks read as zeroes
	Anchor bool  // ANC_SUP
	Type   uint8 // 0 full or not reported, 1 resource, 2 thin
}

const provisioningLen = 4

// ParseProvisioning parses VPD page B2.
func ParseProvisioning(b []byte) (Provisioning, error) {
	p, err := vpd(b, VPDProvisioning)
	if err != nil {
		return Provisioning{}, err
	}
	var v Provisioning
	if len(p) >= 2 {
		v.LBPU, v.LBPWS, v.LBPW10 = p[1]&0x80 != 0, p[1]&0x40 != 0, p[1]&0x20 != 0
		// SBC-4 widened LBPRZ to three bits: 001b is SBC-3's bit, 01xb is a
		// vendor's pattern, which is no zeroes.
		v.LBPRZ, v.Anchor = p[1]>>2&7 == 1, p[1]&0x02 != 0
	}
	if len(p) >= 3 {
		v.Type = p[2] & 7
	}
	return v, nil
}

// Append appends VPD page B2, 8 bytes.
func (v Provisioning) Append(b []byte) []byte {
	var a [provisioningLen]byte
	for i, on := range [...]bool{v.LBPU, v.LBPWS, v.LBPW10, false, false, v.LBPRZ, v.Anchor} {
		if on {
			a[1] |= 0x80 >> i
		}
	}
	a[2] = v.Type & 7
	return AppendVPD(b, TypeDisk, VPDProvisioning, a[:])
}
