package target

import (
	"bytes"
	"encoding/binary"

	"iscsictl/scsi"
)

// unmap is SBC-3 §5.28; it wants the parameter list first.
func (u *unit) unmap(r *request) verdict {
	if r.cdb[1]&1 != 0 { // ANCHOR
		return illegal(scsi.CodeInvalidFieldInCDB)
	}
	n := int64(binary.BigEndian.Uint16(r.cdb[7:]))
	switch {
	case n == 0:
		return verdict{}
	case n < 8:
		return illegal(scsi.CodeParameterListLength)
	}
	return verdict{kind: verdictTake, n: n}
}

// Bits of byte 1 of WRITE SAME (SBC-3 §5.44).
const (
	sameNoData  = 0x01
	sameUnmap   = 0x08
	sameAnchor  = 0x10
	sameProtect = 0xe0
)

// writeSame is SBC-3 §5.43 and §5.44; it wants one block first, unless NDOB.
func (u *unit) writeSame(r *request) verdict {
	flags := r.cdb[1]
	if flags&(sameProtect|sameAnchor) != 0 || flags&sameUnmap != 0 && !u.Thin {
		return illegal(scsi.CodeInvalidFieldInCDB)
	}
	lba, count := blockRange(r.cdb)
	if count == 0 { // to the end of the unit
		count = max(uint64(u.blocks.Load()), lba) - lba
	}
	_, n, ok := u.span(lba, count)
	switch {
	case !ok:
		return illegal(scsi.CodeLBAOutOfRange)
	case n > maxSameBytes:
		return illegal(scsi.CodeInvalidFieldInCDB)
	case flags&sameNoData != 0 && scsi.Opcode(r.cdb[0]) == scsi.OpWriteSame16:
		return u.fill(r.cdb, nil)
	}
	return verdict{kind: verdictTake, n: int64(u.BlockSize)}
}

// taken goes on with a command whose parameters have arrived.
func (u *unit) taken(cdb *[16]byte, p []byte) verdict {
	switch scsi.Opcode(cdb[0]) {
	case scsi.OpUnmap:
		return u.unmapList(p)
	case scsi.OpWriteSame10, scsi.OpWriteSame16:
		if len(p) != u.BlockSize {
			return illegal(scsi.CodeInvalidFieldInCDB)
		}
		return u.fill(cdb, p)
	}
	return check(scsi.HardwareError, scsi.CodeInternalFailure)
}

func (u *unit) unmapList(p []byte) verdict {
	if len(p) < 8 {
		return illegal(scsi.CodeParameterListLength)
	}
	list := p[8:]
	list = list[:min(len(list), int(binary.BigEndian.Uint16(p[2:])))]
	if len(list)/16 > maxUnmapDescriptors {
		return illegal(scsi.CodeInvalidFieldInList)
	}
	for ; len(list) >= 16; list = list[16:] {
		off, n, ok := u.span(binary.BigEndian.Uint64(list), uint64(binary.BigEndian.Uint32(list[8:])))
		if !ok {
			return illegal(scsi.CodeLBAOutOfRange)
		}
		if n == 0 {
			continue
		}
		if err := u.storage.zero(off, n); err != nil {
			return check(scsi.MediumError, scsi.CodeWriteError)
		}
	}
	return verdict{}
}

// fill writes one block to the range of a WRITE SAME; nil is a block of zeroes.
func (u *unit) fill(cdb *[16]byte, block []byte) verdict {
	lba, count := blockRange(cdb)
	if count == 0 {
		count = max(uint64(u.blocks.Load()), lba) - lba
	}
	off, n, ok := u.span(lba, count)
	if !ok { // resized since the command came
		return illegal(scsi.CodeLBAOutOfRange)
	}
	var err error
	if len(bytes.TrimLeft(block, "\x00")) == 0 {
		if n > 0 {
			err = u.storage.zero(off, n)
		}
	} else {
		many := bytes.Repeat(block, int(min(n, 1<<18))>>u.shift)
		for ; n > 0 && err == nil; n -= int64(len(many)) {
			many = many[:min(n, int64(len(many)))]
			_, err = u.storage.WriteAt(many, off)
			off += int64(len(many))
		}
	}
	if err != nil {
		return check(scsi.MediumError, scsi.CodeWriteError)
	}
	return verdict{}
}
