package scsi

import "encoding/binary"

// Bits of byte 1 of READ, WRITE, VERIFY and WRITE SAME.
const (
	cdbFUA    = 0x08
	cdbDPO    = 0x10
	cdbAnchor = 0x10
)

// Opcode returns the operation code.
func (c *CDB) Opcode() Opcode { return Opcode(c[0]) }

// ServiceAction returns the low five bits of byte 1.
func (c *CDB) ServiceAction() uint8 { return c[1] & 0x1f }

// String names the command, with its service action where that is what it is
// known by.
func (c *CDB) String() string {
	switch {
	case c.Opcode() == OpServiceActionIn16 && c.ServiceAction() == ServiceReadCapacity16:
		return "READ CAPACITY(16)"
	case c.Opcode() == OpMaintenanceIn && c.ServiceAction() == ServiceReportOpcodes:
		return "REPORT SUPPORTED OPERATION CODES"
	}
	return c.Opcode().String()
}

// Range is what READ, WRITE, VERIFY, SYNCHRONIZE CACHE and WRITE SAME are about.
type Range struct {
	LBA     uint64
	Blocks  uint32
	Protect uint8     // RDPROTECT, WRPROTECT, VRPROTECT (0 to 7)
	FUA     bool      // READ, WRITE
	DPO     bool      // READ, WRITE, VERIFY
	BytChk  uint8     // VERIFY
	Same    SameFlags // WRITE SAME
	Anchor  bool      // WRITE SAME
}

// Range decodes a command about a range of blocks, and reports false for any
// other. What 0 blocks mean is the command's: nothing for READ, WRITE and VERIFY
// (256 blocks with 6-byte CDBs, for which Range returns 256), all to the end for
// SYNCHRONIZE CACHE and WRITE SAME.
func (c *CDB) Range() (Range, bool) {
	var r Range
	op := c.Opcode()
	switch op {
	case OpRead6, OpWrite6:
		r.LBA = uint64(c[1]&0x1f)<<16 | uint64(c[2])<<8 | uint64(c[3])
		r.Blocks = uint32(c[4])
		if r.Blocks == 0 {
			r.Blocks = 256
		}
		return r, true
	case OpRead10, OpWrite10, OpVerify10, OpSynchronizeCache10, OpWriteSame10:
		r.LBA = uint64(binary.BigEndian.Uint32(c[2:]))
		r.Blocks = uint32(binary.BigEndian.Uint16(c[7:]))
	case OpRead12, OpWrite12:
		r.LBA = uint64(binary.BigEndian.Uint32(c[2:]))
		r.Blocks = binary.BigEndian.Uint32(c[6:])
	case OpRead16, OpWrite16, OpVerify16, OpSynchronizeCache16, OpWriteSame16:
		r.LBA = binary.BigEndian.Uint64(c[2:])
		r.Blocks = binary.BigEndian.Uint32(c[10:])
	default:
		return r, false
	}
	r.Protect = c[1] >> 5
	switch op {
	case OpSynchronizeCache10, OpSynchronizeCache16:
		r.Protect = 0
	case OpWriteSame10, OpWriteSame16:
		r.Same = SameFlags(c[1]) & SameUnmap
		if op == OpWriteSame16 {
			r.Same |= SameFlags(c[1]) & SameNDOB
		}
		r.Anchor = c[1]&cdbAnchor != 0
	case OpVerify10, OpVerify16:
		r.DPO, r.BytChk = c[1]&cdbDPO != 0, c[1]>>1&3
	default:
		r.FUA, r.DPO = c[1]&cdbFUA != 0, c[1]&cdbDPO != 0
	}
	return r, true
}

// Allocation returns the ALLOCATION LENGTH of a command that asks for
// parameter data, or the PARAMETER LIST LENGTH of one that brings it, in bytes,
// and reports false for any other.
func (c *CDB) Allocation() (uint32, bool) {
	switch c.Opcode() {
	case OpRequestSense, OpModeSense6, OpModeSelect6:
		return uint32(c[4]), true
	case OpInquiry:
		return uint32(binary.BigEndian.Uint16(c[3:])), true
	case OpReadCapacity10:
		return 8, true
	case OpModeSense10, OpModeSelect10, OpUnmap, OpPersistentReserveIn:
		return uint32(binary.BigEndian.Uint16(c[7:])), true
	case OpPersistentReserveOut:
		return binary.BigEndian.Uint32(c[5:]), true
	case OpServiceActionIn16:
		return binary.BigEndian.Uint32(c[10:]), true
	case OpReportLUNs, OpMaintenanceIn:
		return binary.BigEndian.Uint32(c[6:]), true
	}
	return 0, false
}

// VPDPage returns the page that an INQUIRY asks for, and whether it asks for a
// vital product data page at all. A page without EVPD is an invalid field.
func (c *CDB) VPDPage() (page uint8, evpd bool) { return c[2], c[1]&1 != 0 }

// ModeFields are what MODE SENSE asks for besides its length.
type ModeFields struct {
	Page    uint8 // 0x3f: all
	Subpage uint8
	Control uint8 // 0 current, 1 changeable, 2 default, 3 saved values
	DBD     bool  // no block descriptors
	LLBAA   bool  // long block descriptors are accepted (10-byte command)
}

// ModeFields decodes MODE SENSE(6) and (10).
func (c *CDB) ModeFields() ModeFields {
	return ModeFields{Page: c[2] & 0x3f, Subpage: c[3], Control: c[2] >> 6, DBD: c[1]&0x08 != 0, LLBAA: c.Opcode() == OpModeSense10 && c[1]&0x10 != 0}
}

// SelectReport returns which logical units REPORT LUNS asks for: 0 all but
// well-known ones, 1 well-known ones, 2 all.
func (c *CDB) SelectReport() uint8 { return c[2] }
