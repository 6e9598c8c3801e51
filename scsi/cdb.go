package scsi

import (
	"encoding/binary"
	"math"
)

// CDB is a command descriptor block, padded with zeroes to 16 bytes. It is
// assignable to and from [16]byte.
type CDB [16]byte

// TestUnitReady asks whether the medium can be accessed (SPC-4 §6.47).
func TestUnitReady() CDB { return CDB{byte(OpTestUnitReady)} }

// RequestSense asks for up to alloc bytes of sense data in fixed format (SPC-4 §6.39).
func RequestSense(alloc uint8) CDB { return CDB{byte(OpRequestSense), 4: alloc} }

// Inquiry asks for up to alloc bytes of standard INQUIRY data (SPC-4 §6.6).
func Inquiry(alloc uint16) CDB {
	return CDB{byte(OpInquiry), 3: byte(alloc >> 8), 4: byte(alloc)}
}

// InquiryVPD asks for up to alloc bytes of a vital product data page (SPC-4 §6.6).
func InquiryVPD(page uint8, alloc uint16) CDB {
	return CDB{byte(OpInquiry), 1, page, byte(alloc >> 8), byte(alloc)}
}

// ReportLUNs asks for up to alloc bytes of the list of logical units, well-known
// ones not included (SPC-4 §6.33).
func ReportLUNs(alloc uint32) CDB {
	c := CDB{byte(OpReportLUNs)}
	binary.BigEndian.PutUint32(c[6:], alloc)
	return c
}

// ReadCapacity10 asks for the 8 bytes of a capacity of up to 2³² blocks (SBC-3 §5.15).
func ReadCapacity10() CDB { return CDB{byte(OpReadCapacity10)} }

// ReadCapacity16 asks for up to alloc bytes of the capacity (SBC-3 §5.16).
func ReadCapacity16(alloc uint32) CDB {
	c := CDB{byte(OpServiceActionIn16), ServiceReadCapacity16}
	binary.BigEndian.PutUint32(c[10:], alloc)
	return c
}

// ModeSense6 asks for up to alloc bytes of a mode page's current values,
// without block descriptors (SPC-4 §6.13).
func ModeSense6(page, alloc uint8) CDB {
	return CDB{byte(OpModeSense6), 0x08, page & 0x3f, 4: alloc}
}

// ModeSense10 is ModeSense6 with room for longer answers (SPC-4 §6.14).
func ModeSense10(page uint8, alloc uint16) CDB {
	return CDB{byte(OpModeSense10), 0x08, page & 0x3f, 7: byte(alloc >> 8), 8: byte(alloc)}
}

// Read reads blocks into the initiator (SBC-3 §5.8, §5.11). It is a READ(10)
// where that can say it, and else a READ(16).
func Read(lba uint64, blocks uint32, fua bool) CDB {
	return transfer(OpRead10, OpRead16, lba, blocks, fua)
}

// Write writes blocks from the initiator (SBC-3 §5.31, §5.34). It is a WRITE(10)
// where that can say it, and else a WRITE(16).
func Write(lba uint64, blocks uint32, fua bool) CDB {
	return transfer(OpWrite10, OpWrite16, lba, blocks, fua)
}

// SynchronizeCache makes blocks durable; 0 blocks are all from lba to the end
// (SBC-3 §5.21, §5.22).
func SynchronizeCache(lba uint64, blocks uint32) CDB {
	return transfer(OpSynchronizeCache10, OpSynchronizeCache16, lba, blocks, false)
}

// transfer fills in a CDB of the common shape: 10 bytes where the range fits.
func transfer(op10, op16 Opcode, lba uint64, blocks uint32, fua bool) CDB {
	var c CDB
	if lba <= math.MaxUint32 && blocks <= math.MaxUint16 {
		c[0] = byte(op10)
		binary.BigEndian.PutUint32(c[2:], uint32(lba))
		binary.BigEndian.PutUint16(c[7:], uint16(blocks))
	} else {
		c[0] = byte(op16)
		binary.BigEndian.PutUint64(c[2:], lba)
		binary.BigEndian.PutUint32(c[10:], blocks)
	}
	if fua {
		c[1] = cdbFUA
	}
	return c
}

// Unmap says that the blocks of a parameter list (see UnmapList) of length
// bytes are not needed any more (SBC-3 §5.28).
func Unmap(length uint16) CDB {
	return CDB{byte(OpUnmap), 7: byte(length >> 8), 8: byte(length)}
}

// SameFlags are the options of WRITE SAME(16).
type SameFlags uint8

// The options of WRITE SAME(16), as its byte 1 has them.
const (
	SameNDOB  SameFlags = 0x01 // no data-out buffer: zeroes (SBC-4)
	SameUnmap SameFlags = 0x08 // blocks may be unmapped where they then read as the same
)

// WriteSame16 writes one block of data to many (SBC-3 §5.42). The data-out
// buffer is one block, or nothing with SameNDOB.
func WriteSame16(lba uint64, blocks uint32, flags SameFlags) CDB {
	c := CDB{byte(OpWriteSame16), byte(flags)}
	binary.BigEndian.PutUint64(c[2:], lba)
	binary.BigEndian.PutUint32(c[10:], blocks)
	return c
}

// ReportOpcodes asks for up to alloc bytes about one command, as REPORT
// SUPPORTED OPERATION CODES has it (SPC-4 §6.35).
func ReportOpcodes(op Opcode, alloc uint32) CDB {
	c := CDB{byte(OpMaintenanceIn), ServiceReportOpcodes, 0x01, byte(op)}
	binary.BigEndian.PutUint32(c[6:], alloc)
	return c
}
