package target

import (
	"encoding/binary"
	"math"

	"iscsictl/scsi"
)

// readCapacity10 is SBC-3 §5.15: an address that does not fit is all ones.
func (u *unit) readCapacity10(r *request) verdict {
	last := min(uint64(u.blocks.Load()-1), math.MaxUint32)
	r.data = binary.BigEndian.AppendUint32(r.data, uint32(last))
	r.data = binary.BigEndian.AppendUint32(r.data, uint32(u.BlockSize))
	return verdict{kind: verdictSend}
}

// readCapacity16 is SBC-3 §5.16.
func (u *unit) readCapacity16(r *request) verdict {
	r.data = binary.BigEndian.AppendUint64(r.data, uint64(u.blocks.Load()-1))
	r.data = binary.BigEndian.AppendUint32(r.data, uint32(u.BlockSize))
	tail := [20]byte{}
	if u.BlockSize < 4096 {
		for size := u.BlockSize; size < 4096; size <<= 1 {
			tail[1]++ // a physical block of 4096 bytes
		}
	}
	if u.Thin {
		tail[2] = 0xc0 // LBPME, LBPRZ
	}
	r.data = append(r.data, tail[:]...)
	return r.sendAtMost(binary.BigEndian.Uint32(r.cdb[10:]))
}

// reportLUNs is SPC-4 §6.33.
func (u *unit) reportLUNs(r *request) verdict {
	alloc := binary.BigEndian.Uint32(r.cdb[6:])
	if alloc < 16 || r.cdb[2] > 2 {
		return illegal(scsi.CodeInvalidFieldInCDB)
	}
	units := r.node.units.Load().list
	if r.cdb[2] == 1 { // well-known logical units alone: there are none
		units = nil
	}
	r.data = binary.BigEndian.AppendUint32(r.data, uint32(8*len(units)))
	r.data = append(r.data, 0, 0, 0, 0)
	for _, u := range units {
		r.data = binary.BigEndian.AppendUint64(r.data, wireLUN(u.Number, r.node.FlatLUNs))
	}
	return r.sendAtMost(alloc)
}

// wireLUN builds the eight bytes of a LUN: peripheral device addressing below
// 256, unless flat is asked for (SAM-5 §4.7.7).
func wireLUN(n int, flat bool) uint64 {
	if n > 255 || flat {
		return uint64(n|0x4000) << 48
	}
	return uint64(n) << 48
}

// lunNumber reads the eight bytes of a LUN in either of these methods.
func lunNumber(w uint64) (n int, ok bool) {
	first := w >> 48
	switch {
	case w<<16 != 0:
		return 0, false
	case first>>14 == 1:
		return int(first & 0x3fff), true
	case first>>8 == 0:
		return int(first), true
	}
	return 0, false
}

// reportOpcodes is REPORT SUPPORTED OPERATION CODES, SPC-4 §6.35.
func (u *unit) reportOpcodes(r *request) verdict {
	alloc := binary.BigEndian.Uint32(r.cdb[6:])
	timeouts := r.cdb[2]&0x80 != 0
	switch options := r.cdb[2] & 7; options {
	case 0:
		u.reportAllOpcodes(r, timeouts)
	case 1, 2, 3:
		if !u.reportOneOpcode(r, options, timeouts) {
			return illegal(scsi.CodeInvalidFieldInCDB)
		}
	default:
		return illegal(scsi.CodeInvalidFieldInCDB)
	}
	return r.sendAtMost(alloc)
}

// noTimeouts is a command timeouts descriptor that says nothing.
var noTimeouts = [12]byte{1: 10}

func (u *unit) supports(op int) bool {
	return commands[op].usages != nil && (scsi.Opcode(op) != scsi.OpUnmap || u.Thin)
}

func (u *unit) reportAllOpcodes(r *request, timeouts bool) {
	start := len(r.data)
	r.data = append(r.data, 0, 0, 0, 0)
	for op := range commands {
		if !u.supports(op) {
			continue
		}
		for _, use := range commands[op].usages {
			d := [8]byte{0: byte(op), 7: byte(len(use.bits))}
			if use.service >= 0 {
				d[3], d[5] = byte(use.service), 1
			}
			if timeouts {
				d[5] |= 2
			}
			r.data = append(r.data, d[:]...)
			if timeouts {
				r.data = append(r.data, noTimeouts[:]...)
			}
		}
	}
	binary.BigEndian.PutUint32(r.data[start:], uint32(len(r.data)-start-4))
}

// reportOneOpcode reports false where the reporting option does not fit the
// command.
func (u *unit) reportOneOpcode(r *request, options byte, timeouts bool) bool {
	op, service := int(r.cdb[3]), int(binary.BigEndian.Uint16(r.cdb[4:]))
	var found *usage
	if u.supports(op) {
		hasService := commands[op].usages[0].service >= 0
		if options == 1 && hasService || options == 2 && !hasService {
			return false
		}
		for i, use := range commands[op].usages {
			if use.service < 0 && (options != 3 || service == 0) || use.service == service {
				found = &commands[op].usages[i]
			}
		}
	}
	if found == nil {
		r.data = append(r.data, 0, 1, 0, 0) // not supported
		return true
	}
	support := byte(3) // as the standard says
	if timeouts {
		support |= 0x80
	}
	r.data = append(r.data, 0, support, 0, byte(len(found.bits)))
	r.data = append(r.data, found.bits...)
	if found.service >= 0 {
		r.data[len(r.data)-len(found.bits)+1] = byte(found.service)
	}
	if timeouts {
		r.data = append(r.data, noTimeouts[:]...)
	}
	return true
}
