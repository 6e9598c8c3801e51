package target

import (
	"encoding/binary"

	"iscsictl/scsi"
)

// request is a command on its way through a unit.
type request struct {
	node *node
	cdb  *[16]byte
	data []byte // parameter data to send; its storage belongs to the connection
}

// usage says which bits of a CDB a command looks at, for REPORT SUPPORTED
// OPERATION CODES; its first byte is the operation code (SPC-4 §6.35).
type usage struct {
	service int // service action, -1: none
	bits    []byte
}

// command carries out one operation code.
type command struct {
	run    func(u *unit, r *request) verdict
	writes bool
	usages []usage
}

const anyByte = 0xff

// commands by operation code. READ and WRITE come first in unit.execute.
var commands [256]command

func init() {
	one := func(op scsi.Opcode, run func(*unit, *request) verdict, writes bool, bits ...byte) {
		commands[op] = command{run, writes, []usage{{-1, append([]byte{byte(op)}, bits...)}}}
	}
	const a = anyByte
	one(scsi.OpTestUnitReady, good, false, 0, 0, 0, 0, 0)
	one(scsi.OpRequestSense, (*unit).requestSense, false, 0, 0, 0, a, 0)
	one(scsi.OpInquiry, (*unit).inquiry, false, 1, a, a, a, 0)
	one(scsi.OpModeSense6, (*unit).modeSense6, false, 0x08, a, a, a, 0)
	one(scsi.OpModeSense10, (*unit).modeSense10, false, 0x18, a, a, 0, 0, 0, a, a, 0)
	one(scsi.OpStartStopUnit, (*unit).startStop, false, 1, 0, 0, 0xf7, 0)
	one(scsi.OpReadCapacity10, (*unit).readCapacity10, false, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	one(scsi.OpRead6, nil, false, 0x1f, a, a, a, 0)
	one(scsi.OpRead10, nil, false, 0xf8, a, a, a, a, 0, a, a, 0)
	one(scsi.OpRead12, nil, false, 0xf8, a, a, a, a, a, a, a, a, 0, 0)
	one(scsi.OpRead16, nil, false, 0xf8, a, a, a, a, a, a, a, a, a, a, a, a, 0, 0)
	one(scsi.OpWrite6, nil, true, 0x1f, a, a, a, 0)
	one(scsi.OpWrite10, nil, true, 0xf8, a, a, a, a, 0, a, a, 0)
	one(scsi.OpWrite12, nil, true, 0xf8, a, a, a, a, a, a, a, a, 0, 0)
	one(scsi.OpWrite16, nil, true, 0xf8, a, a, a, a, a, a, a, a, a, a, a, a, 0, 0)
	one(scsi.OpSynchronizeCache10, (*unit).synchronize, false, 0x02, a, a, a, a, 0, a, a, 0)
	one(scsi.OpSynchronizeCache16, (*unit).synchronize, false, 0x02, a, a, a, a, a, a, a, a, a, a, a, a, 0, 0)
	one(scsi.OpWriteSame10, (*unit).writeSame, true, 0xf8, a, a, a, a, 0, a, a, 0)
	one(scsi.OpWriteSame16, (*unit).writeSame, true, 0xf9, a, a, a, a, a, a, a, a, a, a, a, a, 0, 0)
	one(scsi.OpUnmap, (*unit).unmap, true, 0, 0, 0, 0, 0, 0, a, a, 0)
	one(scsi.OpReportLUNs, (*unit).reportLUNs, false, 0, a, 0, 0, 0, a, a, a, a, 0, 0)
	commands[scsi.OpServiceActionIn16] = command{(*unit).serviceActionIn, false, []usage{
		{scsi.ServiceReadCapacity16, []byte{byte(scsi.OpServiceActionIn16), 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, a, a, a, a, 0, 0}},
	}}
	commands[scsi.OpMaintenanceIn] = command{(*unit).maintenanceIn, false, []usage{
		{scsi.ServiceReportOpcodes, []byte{byte(scsi.OpMaintenanceIn), 0x1f, 0x87, a, a, a, a, a, a, a, 0, 0}},
	}}
}

// execute carries out the command in r.cdb, or says which data it wants.
func (u *unit) execute(r *request) verdict {
	op := scsi.Opcode(r.cdb[0])
	switch op {
	case scsi.OpRead10, scsi.OpRead16, scsi.OpRead6, scsi.OpRead12:
		return u.transfer(r.cdb, verdictRead)
	case scsi.OpWrite10, scsi.OpWrite16, scsi.OpWrite6, scsi.OpWrite12:
		if u.ReadOnly {
			return check(scsi.DataProtect, scsi.CodeWriteProtected)
		}
		return u.transfer(r.cdb, verdictWrite)
	}
	c := &commands[op]
	switch {
	case c.run == nil, op == scsi.OpUnmap && !u.Thin:
		return illegal(scsi.CodeInvalidOpcode)
	case c.writes && u.ReadOnly:
		return check(scsi.DataProtect, scsi.CodeWriteProtected)
	}
	return c.run(u, r)
}

func good(*unit, *request) verdict { return verdict{} }

// sendAtMost is a verdict that sends r.data up to the allocation length.
func (r *request) sendAtMost(n uint32) verdict {
	if uint64(n) < uint64(len(r.data)) {
		r.data = r.data[:n]
	}
	return verdict{kind: verdictSend}
}

// blocks reads the LBA and the number of blocks of a READ, WRITE, SYNCHRONIZE
// CACHE or WRITE SAME by its length (SBC-3 §5).
func blockRange(cdb *[16]byte) (lba, count uint64) {
	switch cdb[0] >> 5 {
	case 0:
		lba = uint64(cdb[1]&0x1f)<<16 | uint64(binary.BigEndian.Uint16(cdb[2:]))
		if count = uint64(cdb[4]); count == 0 {
			count = 256
		}
	case 1, 2:
		lba, count = uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint16(cdb[7:]))
	case 5:
		lba, count = uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint32(cdb[6:]))
	case 4:
		lba, count = binary.BigEndian.Uint64(cdb[2:]), uint64(binary.BigEndian.Uint32(cdb[10:]))
	}
	return lba, count
}

// transfer checks a READ or WRITE.
func (u *unit) transfer(cdb *[16]byte, kind verdictKind) verdict {
	if cdb[0]>>5 != 0 && cdb[1]&0xe0 != 0 { // RDPROTECT, WRPROTECT: no protection information here
		return illegal(scsi.CodeInvalidFieldInCDB)
	}
	lba, count := blockRange(cdb)
	off, n, ok := u.span(lba, count)
	switch {
	case !ok:
		return illegal(scsi.CodeLBAOutOfRange)
	case n > int64(u.MaxTransfer):
		return illegal(scsi.CodeInvalidFieldInCDB)
	case n == 0:
		return verdict{}
	}
	return verdict{kind: kind, off: off, n: n}
}

// written ends a WRITE whose bytes are in place: FUA waits for the medium.
func (u *unit) written(cdb *[16]byte) verdict {
	if cdb[0]>>5 != 0 && cdb[1]&0x08 != 0 {
		if err := u.storage.sync(); err != nil {
			return check(scsi.MediumError, scsi.CodeWriteError)
		}
	}
	return verdict{}
}

func (u *unit) synchronize(r *request) verdict {
	if _, _, ok := u.span(blockRange(r.cdb)); !ok {
		return illegal(scsi.CodeLBAOutOfRange)
	}
	if err := u.storage.sync(); err != nil {
		return check(scsi.MediumError, scsi.CodeWriteError)
	}
	return verdict{}
}

// startStop accepts being started and refuses the rest.
func (u *unit) startStop(r *request) verdict {
	if r.cdb[4]&0xf3 != 0x01 {
		return illegal(scsi.CodeInvalidFieldInCDB)
	}
	return verdict{}
}

// requestSense answers that there is nothing; pending unit attentions were
// looked at before.
func (u *unit) requestSense(r *request) verdict {
	if r.cdb[1]&1 != 0 { // DESC
		return illegal(scsi.CodeInvalidFieldInCDB)
	}
	r.data = appendSense(r.data, scsi.Sense{})
	return r.sendAtMost(uint32(r.cdb[4]))
}

func (u *unit) serviceActionIn(r *request) verdict {
	if r.cdb[1]&0x1f != scsi.ServiceReadCapacity16 {
		return illegal(scsi.CodeInvalidFieldInCDB)
	}
	return u.readCapacity16(r)
}

func (u *unit) maintenanceIn(r *request) verdict {
	if r.cdb[1]&0x1f != scsi.ServiceReportOpcodes {
		return illegal(scsi.CodeInvalidFieldInCDB)
	}
	return u.reportOpcodes(r)
}
