// Package iscsi is the wire format of iSCSI (RFC 7143) and the header that iSER
// puts before it (RFC 7145): the PDUs, one file each, the additional header
// segments, digests, text keys, names, and serial number arithmetic.
//
// It does no I/O and knows no time. Encoding and decoding a PDU allocates
// nothing. Decoders take anything that a peer may send and return an error for
// what cannot be acted on safely; they are lenient about reserved fields, which
// encoders set to zero.
package iscsi

import (
	"encoding/binary"
	"fmt"
)

// BHSLen is the length of a basic header segment in bytes (RFC 7143 §11.2.1).
const BHSLen = 48

// ReservedTag is the value of an initiator task tag, target transfer tag or
// SNACK tag that stands for none (RFC 7143 §11.2.1.8).
const ReservedTag = 0xffffffff

const (
	// MaxAHSLength is the greatest length of all additional header segments
	// of a PDU, in bytes: TotalAHSLength is a byte and counts words of four.
	MaxAHSLength = 255 * 4
	// MaxDataSegmentLength is the greatest length of a data segment, in bytes
	// and without padding: DataSegmentLength has 24 bits.
	MaxDataSegmentLength = 1<<24 - 1
)

// Bits of bytes 0 and 1 that most PDUs share (RFC 7143 §11.2.1.2, §11.2.1.3).
const (
	opcodeMask   = 0x3f
	immediateBit = 0x40
	finalBit     = 0x80
)

// BHS is a basic header segment as it is on the wire (RFC 7143 §11.2.1). Its
// methods read the fields that all PDUs, or all that a target sends, have in common.
type BHS [BHSLen]byte

// Opcode is the kind of the PDU (§11.2.1.2).
func (h *BHS) Opcode() Opcode { return Opcode(h[0] & opcodeMask) }

// Immediate says that the request takes no place in the order of commands (§4.2.2.1).
func (h *BHS) Immediate() bool { return h[0]&immediateBit != 0 }

// Final is the F bit (§11.2.1.3); in login PDUs the bit is named T.
func (h *BHS) Final() bool { return h[1]&finalBit != 0 }

// TotalAHSLength is the length of all additional header segments with their
// padding, in bytes (§11.2.1.5): a multiple of 4, at most MaxAHSLength.
func (h *BHS) TotalAHSLength() int { return int(h[4]) * 4 }

// DataSegmentLength is the length of the data segment without padding, in bytes
// (§11.2.1.6): at most MaxDataSegmentLength.
func (h *BHS) DataSegmentLength() int {
	return int(h[5])<<16 | int(h[6])<<8 | int(h[7])
}

// SetDataSegmentLength sets the length of the data segment without padding, in
// bytes: 0 to MaxDataSegmentLength.
func (h *BHS) SetDataSegmentLength(n int) {
	h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n)
}

// LUN is the logical unit number (§11.2.1.7), big-endian as SAM-5 §4.7 writes it.
// Login, logout and reject PDUs have something else in its place, or nothing.
func (h *BHS) LUN() uint64 { return binary.BigEndian.Uint64(h[8:]) }

// InitiatorTaskTag identifies the task for the initiator (§11.2.1.8).
func (h *BHS) InitiatorTaskTag() uint32 { return h.u32(16) }

// TargetTransferTag identifies what a target waits for, in the PDUs that have one.
func (h *BHS) TargetTransferTag() uint32 { return h.u32(20) }

// CmdSN is the command sequence number of a PDU sent by an initiator.
func (h *BHS) CmdSN() uint32 { return h.u32(24) }

// ExpStatSN acknowledges status up to it, in a PDU sent by an initiator.
func (h *BHS) ExpStatSN() uint32 { return h.u32(28) }

// SetExpStatSN sets the ExpStatSN of an initiator's PDU (bytes 28 to 31).
func (h *BHS) SetExpStatSN(v uint32) { h.setU32(28, v) }

// StatSN is the status sequence number of a PDU sent by a target.
func (h *BHS) StatSN() uint32 { return h.u32(24) }

// ExpCmdSN is the next CmdSN that the target expects, in a PDU sent by a target.
func (h *BHS) ExpCmdSN() uint32 { return h.u32(28) }

// MaxCmdSN is the greatest CmdSN that the target accepts, in a PDU sent by a target.
func (h *BHS) MaxCmdSN() uint32 { return h.u32(32) }

func (h *BHS) u16(at int) uint16 { return binary.BigEndian.Uint16(h[at:]) }
func (h *BHS) u32(at int) uint32 { return binary.BigEndian.Uint32(h[at:]) }

func (h *BHS) setU16(at int, v uint16) { binary.BigEndian.PutUint16(h[at:], v) }
func (h *BHS) setU32(at int, v uint32) { binary.BigEndian.PutUint32(h[at:], v) }
func (h *BHS) setLUN(lun uint64)       { binary.BigEndian.PutUint64(h[8:], lun) }

// start clears the header and writes its first two bytes.
func (h *BHS) start(op Opcode, immediate bool, flags byte) {
	*h = BHS{byte(op), flags}
	h.setBit(0, immediateBit, immediate)
}

// setNumbers writes what every PDU of a target has at bytes 24 to 35.
func (h *BHS) setNumbers(statSN, expCmdSN, maxCmdSN uint32) {
	h.setU32(24, statSN)
	h.setU32(28, expCmdSN)
	h.setU32(32, maxCmdSN)
}

func (h *BHS) setBit(at int, bit byte, on bool) {
	if on {
		h[at] |= bit
	}
}

// expect checks the opcode.
func (h *BHS) expect(op Opcode) error {
	if got := h.Opcode(); got != op {
		return fmt.Errorf("%v: unexpected PDU: %v", op, got)
	}
	return nil
}

// expectTask checks the opcode, and that the PDU names a task.
func (h *BHS) expectTask(op Opcode) error {
	if err := h.expect(op); err != nil {
		return err
	}
	if h.InitiatorTaskTag() == ReservedTag {
		return fmt.Errorf("%v: initiator task tag is reserved", op)
	}
	return nil
}

// Pad is the number of bytes of padding after n bytes of a segment: 0 to 3
// (RFC 7143 §11.1).
func Pad(n int) int { return -n & 3 }

// checkBuffer checks that a piece of a task's buffer ends within 4 GiB, which no
// task's buffer can exceed.
func checkBuffer(op Opcode, offset, length uint32) error {
	if uint64(offset)+uint64(length) > 1<<32-1 {
		return fmt.Errorf("%v: %d bytes at buffer offset %d exceed any buffer", op, length, offset)
	}
	return nil
}
