package target

import (
	"encoding/binary"
	"math"

	"iscsictl/scsi"
)

// Mode pages.
const (
	modeCaching = 0x08
	modeControl = 0x0a
	modeAll     = 0x3f
)

// Page control field of MODE SENSE.
const (
	modeCurrent    = 0
	modeChangeable = 1
	modeSaved      = 3
)

// modeSense6 is SPC-4 §6.11.
func (u *unit) modeSense6(r *request) verdict {
	if v, ok := u.modePagesExist(r.cdb); !ok {
		return v
	}
	start := len(r.data)
	r.data = append(r.data, 0, 0, u.modeSpecific(), 0)
	if r.cdb[1]&0x08 == 0 { // DBD
		r.data[start+3] = 8
		blocks := uint32(min(uint64(u.blocks.Load()), math.MaxUint32))
		r.data = binary.BigEndian.AppendUint32(r.data, blocks)
		r.data = binary.BigEndian.AppendUint32(r.data, uint32(u.BlockSize))
	}
	u.appendModePages(r)
	r.data[start] = byte(len(r.data) - start - 1)
	return r.sendAtMost(uint32(r.cdb[4]))
}

// modeSense10 is SPC-4 §6.12.
func (u *unit) modeSense10(r *request) verdict {
	if v, ok := u.modePagesExist(r.cdb); !ok {
		return v
	}
	start := len(r.data)
	r.data = append(r.data, 0, 0, 0, u.modeSpecific(), 0, 0, 0, 0)
	switch long := r.cdb[1]&0x10 != 0; {
	case r.cdb[1]&0x08 != 0: // DBD
	case long: // LLBAA
		r.data[start+4], r.data[start+7] = 1, 16
		r.data = binary.BigEndian.AppendUint64(r.data, uint64(u.blocks.Load()))
		r.data = binary.BigEndian.AppendUint64(r.data, uint64(u.BlockSize))
	default:
		r.data[start+7] = 8
		blocks := uint32(min(uint64(u.blocks.Load()), math.MaxUint32))
		r.data = binary.BigEndian.AppendUint32(r.data, blocks)
		r.data = binary.BigEndian.AppendUint32(r.data, uint32(u.BlockSize))
	}
	u.appendModePages(r)
	binary.BigEndian.PutUint16(r.data[start:], uint16(len(r.data)-start-2))
	return r.sendAtMost(uint32(binary.BigEndian.Uint16(r.cdb[7:])))
}

func (u *unit) modePagesExist(cdb *[16]byte) (verdict, bool) {
	if cdb[2]>>6 == modeSaved {
		return illegal(0x3900), false // SAVING PARAMETERS NOT SUPPORTED
	}
	page, sub := cdb[2]&0x3f, cdb[3]
	switch {
	case page == modeAll && (sub == 0 || sub == 0xff), (page == modeCaching || page == modeControl) && sub == 0:
		return verdict{}, true
	}
	return illegal(scsi.CodeInvalidFieldInCDB), false
}

// modeSpecific is the device-specific parameter of direct-access devices:
// WP and DPOFUA (SBC-3 §6.5.1).
func (u *unit) modeSpecific() byte {
	if u.ReadOnly {
		return 0x90
	}
	return 0x10
}

func (u *unit) appendModePages(r *request) {
	page, control := r.cdb[2]&0x3f, r.cdb[2]>>6
	if page == modeCaching || page == modeAll {
		p := [20]byte{modeCaching, 18}
		if u.WriteCache && control != modeChangeable {
			p[2] = 0x04 // WCE
		}
		r.data = append(r.data, p[:]...)
	}
	if page == modeControl || page == modeAll {
		p := [12]byte{modeControl, 10}
		if control != modeChangeable {
			p[3] = 0x10 // queue algorithm modifier: unrestricted reordering
		}
		r.data = append(r.data, p[:]...)
	}
}
