package target

import (
	"encoding/binary"
	"math"

	"iscsictl/scsi"
)

// vendor is the T10 vendor identification of every unit, eight characters.
const vendor = "ISCSICTL"

// noUnit is the first byte of INQUIRY data where there is no logical unit:
// qualifier 3, device type unknown (SPC-4 §6.4.2).
const noUnit = 0x7f

// inquiry is SPC-4 §6.4. A nil unit is a LUN that does not exist.
func (u *unit) inquiry(r *request) verdict {
	alloc := uint32(binary.BigEndian.Uint16(r.cdb[3:]))
	if r.cdb[1]&1 != 0 {
		if u == nil || !u.appendVPD(r, r.cdb[2]) {
			return illegal(scsi.CodeInvalidFieldInCDB)
		}
		return r.sendAtMost(alloc)
	}
	if r.cdb[2] != 0 {
		return illegal(scsi.CodeInvalidFieldInCDB)
	}
	first, product := byte(0), ""
	if u == nil {
		first = noUnit
	} else {
		product = u.Product
	}
	// Version SPC-4, HISUP, response format 2, CMDQUE.
	r.data = append(r.data, first, 0, 0x06, 0x12, 96-5, 0, 0, 0x02)
	r.data = append(r.data, vendor...)
	r.data = appendPadded(r.data, product, 16)
	r.data = append(r.data, "1.0 "...)
	r.data = append(r.data, make([]byte, 22)...)
	for _, v := range [...]uint16{0x00a0, 0x0960, 0x0460, 0x04c0} { // SAM-5, iSCSI, SPC-4, SBC-3
		r.data = binary.BigEndian.AppendUint16(r.data, v)
	}
	r.data = append(r.data, make([]byte, 96-66)...)
	return r.sendAtMost(alloc)
}

func appendPadded(b []byte, s string, n int) []byte {
	b = append(b, s...)
	for ; n > len(s); n-- {
		b = append(b, ' ')
	}
	return b
}

// Vital product data pages.
const (
	vpdSupported    = 0x00
	vpdSerial       = 0x80
	vpdIdentity     = 0x83
	vpdLimits       = 0xb0
	vpdCharacter    = 0xb1
	vpdProvisioning = 0xb2
)

// appendVPD appends a vital product data page (SPC-4 §7.8, SBC-3 §6.6) and
// reports whether there is such a page.
func (u *unit) appendVPD(r *request, page byte) bool {
	start := len(r.data)
	b := append(r.data, 0, page, 0, 0)
	switch page {
	case vpdSupported:
		b = append(b, vpdSupported, vpdSerial, vpdIdentity, vpdLimits, vpdCharacter, vpdProvisioning)
	case vpdSerial:
		b = append(b, u.Serial...)
	case vpdIdentity:
		b = u.appendIdentity(b)
	case vpdLimits:
		b = u.appendLimits(b)
	case vpdCharacter:
		// Rotation rate 1: no rotating medium.
		b = append(b, 0, 1)
		b = append(b, make([]byte, 58)...)
	case vpdProvisioning:
		flags, kind := byte(0), byte(1) // fully provisioned
		if u.Thin {
			flags, kind = 0xe4, 2 // LBPU, LBPWS, LBPWS10, LBPRZ
		}
		b = append(b, 0, flags, kind, 0)
	default:
		return false
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start-4))
	r.data = b
	return true
}

// appendIdentity appends a T10 vendor identification and a locally assigned
// NAA designator (SPC-4 §7.8.6).
func (u *unit) appendIdentity(b []byte) []byte {
	b = append(b, 0x02, 0x01, 0, byte(8+len(u.Serial)))
	b = append(b, vendor...)
	b = append(b, u.Serial...)
	b = append(b, 0x01, 0x03, 0, 8)
	return binary.BigEndian.AppendUint64(b, 3<<60|u.id>>4)
}

// Bounds of one UNMAP or WRITE SAME.
const (
	maxUnmapDescriptors = 256
	maxSameBytes        = 1 << 30
)

// appendLimits appends the Block Limits page, SBC-3 §6.6.3, after its header.
func (u *unit) appendLimits(b []byte) []byte {
	most := uint32(int64(u.MaxTransfer) >> u.shift)
	grain := uint32(max(1, 4096>>u.shift))
	p := make([]byte, 60)
	binary.BigEndian.PutUint16(p[2:], uint16(grain)) // optimal transfer length granularity
	binary.BigEndian.PutUint32(p[4:], most)
	binary.BigEndian.PutUint32(p[8:], min(most, uint32(1<<20>>u.shift)))
	if u.Thin {
		binary.BigEndian.PutUint32(p[16:], math.MaxUint32)
		binary.BigEndian.PutUint32(p[20:], maxUnmapDescriptors)
		binary.BigEndian.PutUint32(p[24:], grain)
		binary.BigEndian.PutUint32(p[28:], 1<<31) // UGAVALID, alignment 0
	}
	binary.BigEndian.PutUint64(p[32:], uint64(maxSameBytes>>u.shift))
	return append(b, p...)
}
