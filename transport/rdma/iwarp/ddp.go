package iwarp

import (
	"encoding/binary"
	"hash/crc32"
)

// FPDU framing (RFC 5044 §4): a length, the ULPDU, padding to a multiple of
// four, and a CRC32c over all of it, least significant byte first. Where the
// CRC is off, its four bytes are there all the same.
const (
	lengthLen = 2
	crcLen    = 4
	ulpduMax  = 65535
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fpduPad is the padding of an FPDU with a ULPDU of n bytes.
func fpduPad(n int) int { return -(lengthLen + n) & 3 }

// DDP segment headers (RFC 5041 §4) with the RDMAP control field (RFC 5040 §4.1).
const (
	controlLen  = 2
	taggedLen   = 14
	untaggedLen = 18
	readReqLen  = 28 // the RDMA Read Request header behind an untagged header

	ddpTagged      = 0x80
	ddpLast        = 0x40
	ddpVersion     = 1
	ddpVersionMask = 3

	rdmapVersion     = 1 << 6
	rdmapVersionMask = 3 << 6
	opcodeMask       = 0x0f
)

// opcode is RDMAP's (RFC 5040 §4.3).
type opcode uint8

const (
	opWrite opcode = iota
	opReadRequest
	opReadResponse
	opSend
	opSendInvalidate
	opSendSE
	opSendSEInvalidate
	opTerminate
)

func (o opcode) String() string {
	if int(o) < len(opcodeNames) {
		return opcodeNames[o]
	}
	return "reserved opcode"
}

var opcodeNames = [...]string{
	"RDMA Write", "RDMA Read Request", "RDMA Read Response", "Send",
	"Send with Invalidate", "Send with Solicited Event", "Send with Solicited Event and Invalidate", "Terminate",
}

// tagged reports which DDP model the opcode belongs to.
func (o opcode) tagged() bool { return o == opWrite || o == opReadResponse }

// Queues of the untagged model (RFC 5040 §4.2): queue number, and index in
// tables by queue.
const (
	queueSend = iota
	queueRead
	queueTerminate
	queues
)

// queue returns the queue that an untagged opcode must name.
func (o opcode) queue() uint32 {
	switch o {
	case opReadRequest:
		return queueRead
	case opTerminate:
		return queueTerminate
	}
	return queueSend
}

// segment is a DDP segment's header.
type segment struct {
	tagged bool
	last   bool
	ddp    uint8 // version
	rdmap  uint8 // version
	op     opcode

	stag uint32 // tagged: where to; untagged: what to invalidate
	to   uint64 // tagged offset

	qn, msn, mo uint32 // untagged: queue, message sequence number, offset

	payload int // bytes behind the header
}

// segmentHeaderLen tells a header's length from the first byte of its control field.
func segmentHeaderLen(control byte) int {
	if control&ddpTagged != 0 {
		return taggedLen
	}
	return untaggedLen
}

// append encodes the header of one of our segments.
func (s *segment) append(b []byte) []byte {
	control := byte(ddpVersion)
	if s.last {
		control |= ddpLast
	}
	if s.tagged {
		b = append(b, control|ddpTagged, rdmapVersion|byte(s.op))
		b = binary.BigEndian.AppendUint32(b, s.stag)
		return binary.BigEndian.AppendUint64(b, s.to)
	}
	b = append(b, control, rdmapVersion|byte(s.op))
	b = binary.BigEndian.AppendUint32(b, s.stag)
	b = binary.BigEndian.AppendUint32(b, s.qn)
	b = binary.BigEndian.AppendUint32(b, s.msn)
	return binary.BigEndian.AppendUint32(b, s.mo)
}

// parseSegment decodes the header of a ULPDU of n bytes. b has at least
// segmentHeaderLen bytes, and n is not less.
func parseSegment(b []byte, n int) (s segment) {
	s.tagged = b[0]&ddpTagged != 0
	s.last = b[0]&ddpLast != 0
	s.ddp = b[0] & ddpVersionMask
	s.rdmap = b[1] & rdmapVersionMask >> 6
	s.op = opcode(b[1] & opcodeMask)
	s.stag = binary.BigEndian.Uint32(b[controlLen:])
	if s.tagged {
		s.to = binary.BigEndian.Uint64(b[6:])
		s.payload = n - taggedLen
		return s
	}
	s.qn = binary.BigEndian.Uint32(b[6:])
	s.msn = binary.BigEndian.Uint32(b[10:])
	s.mo = binary.BigEndian.Uint32(b[14:])
	s.payload = n - untaggedLen
	return s
}

// readRequest is the RDMA Read Request header (RFC 5040 §4.4).
type readRequest struct {
	sinkSTag uint32
	sinkTO   uint64
	length   uint32
	srcSTag  uint32
	srcTO    uint64
}

func (r *readRequest) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, r.sinkSTag)
	b = binary.BigEndian.AppendUint64(b, r.sinkTO)
	b = binary.BigEndian.AppendUint32(b, r.length)
	b = binary.BigEndian.AppendUint32(b, r.srcSTag)
	return binary.BigEndian.AppendUint64(b, r.srcTO)
}

// parseReadRequest decodes readReqLen bytes.
func parseReadRequest(b []byte) (r readRequest) {
	r.sinkSTag = binary.BigEndian.Uint32(b)
	r.sinkTO = binary.BigEndian.Uint64(b[4:])
	r.length = binary.BigEndian.Uint32(b[12:])
	r.srcSTag = binary.BigEndian.Uint32(b[16:])
	r.srcTO = binary.BigEndian.Uint64(b[20:])
	return r
}
