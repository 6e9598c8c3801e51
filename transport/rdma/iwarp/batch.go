package iwarp

import (
	"encoding/binary"
	"hash/crc32"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// A batch is full when less than an FPDU's share is left of its text or of
	// its vector, or when it has as much as a socket takes at once.
	batchText   = 32 << 10
	batchVector = 512
	batchBytes  = 512 << 10

	// headMax is the longest head of a message that is copied into the text.
	headMax = 256

	segmentText   = lengthLen + untaggedLen + headMax + 3 + crcLen
	segmentVector = 4
)

var zeroes [4]byte

// batch is a run of FPDUs on its way to the socket: headers, padding and CRCs
// are in text, payload is where it lies. The vector refers to both.
type batch struct {
	text     []byte
	vector   []unix.Iovec
	bytes    int
	requests uint64   // up to this number, requests are in this batch or an earlier one
	regions  []uint32 // of the responses whose last FPDU is in it
}

func (b *batch) init() {
	b.text = make([]byte, 0, batchText)
	b.vector = make([]unix.Iovec, 0, batchVector)
	b.regions = make([]uint32, 0, batchVector)
}

func (b *batch) reset() {
	clear(b.vector)
	b.text, b.vector, b.regions, b.bytes = b.text[:0], b.vector[:0], b.regions[:0], 0
}

func (b *batch) room() bool {
	return cap(b.text)-len(b.text) >= segmentText && cap(b.vector)-len(b.vector) >= segmentVector && b.bytes < batchBytes
}

// addText adds what was appended to text since start to the vector: to its last
// piece, where that ends just there.
func (b *batch) addText(start int) {
	piece := b.text[start:]
	if len(piece) == 0 {
		return
	}
	b.bytes += len(piece)
	if n := len(b.vector); n > 0 {
		v := &b.vector[n-1]
		// As numbers: a pointer just beyond an allocation is none.
		if uintptr(unsafe.Pointer(v.Base))+uintptr(v.Len) == uintptr(unsafe.Pointer(unsafe.SliceData(piece))) {
			v.Len += uint64(len(piece))
			return
		}
	}
	b.vector = append(b.vector, iovec(piece))
}

func (b *batch) add(p []byte) {
	if len(p) > 0 {
		b.bytes += len(p)
		b.vector = append(b.vector, iovec(p))
	}
}

// message is what is cut to DDP segments: a head, and data behind it.
type message struct {
	op     opcode
	head   []byte
	data   []byte
	stag   uint32 // tagged: where to; a Send with Invalidate: what
	to     uint64
	region uint32 // of a Read Response: what the data are of
	last   bool   // nothing is sent after it
}

// cutter cuts messages to FPDUs (RFC 5041 §5.1): all of one before the next.
type cutter struct {
	message message
	active  bool
	off     int            // bytes of the message that are cut already
	msn     [queues]uint32 // of the message, or of the next one

	mulpdu    int // the longest ULPDU that is sent
	crc       bool
	request28 [readReqLen]byte // the header of the Read Request that is being cut

	fpdus, sends int // sent so far, for faults
	faults       Faults
}

func (c *cutter) init(mulpdu int, crc bool, faults Faults) {
	c.mulpdu, c.crc, c.faults = mulpdu, crc, faults
	for i := range c.msn {
		c.msn[i] = 1
	}
}

func (c *cutter) begin(m message) {
	c.message, c.active, c.off = m, true, 0
	if m.op == opSend || m.op == opSendInvalidate {
		c.sends++
		if c.sends == c.faults.SkipMSN {
			c.msn[queueSend]++
		}
	}
}

// segment adds the message's next FPDU to the batch, and reports whether it
// was the last.
func (c *cutter) segment(b *batch) bool {
	m := &c.message
	s := segment{tagged: m.op.tagged(), op: m.op, stag: m.stag}
	headerLen := untaggedLen
	if s.tagged {
		headerLen = taggedLen
		s.to = m.to + uint64(c.off)
	} else {
		s.qn = m.op.queue()
		s.msn = c.msn[s.qn]
		s.mo = uint32(c.off)
	}
	rest := len(m.head) + len(m.data) - c.off
	n := min(rest, c.mulpdu-headerLen)
	s.last = n == rest

	start := len(b.text)
	b.text = binary.BigEndian.AppendUint16(b.text, uint16(headerLen+n))
	b.text = s.append(b.text)
	head, data := m.cut(c.off, n)
	if len(head) <= headMax {
		b.text = append(b.text, head...)
		head = nil
	}
	crc := c.update(0, b.text[start:])
	b.addText(start)
	crc = c.update(c.update(crc, head), data)
	b.add(head)
	b.add(data)
	c.finish(b, crc, fpduPad(headerLen+n))

	c.off += n
	if s.last {
		c.active = false
		if !s.tagged {
			c.msn[s.qn]++
		}
	}
	return s.last
}

// cut returns the message's bytes from off on, n of them, as the parts that
// lie in the head and in the data.
func (m *message) cut(off, n int) (head, data []byte) {
	if off < len(m.head) {
		head = m.head[off:min(off+n, len(m.head))]
		return head, m.data[:n-len(head)]
	}
	off -= len(m.head)
	return nil, m.data[off : off+n]
}

func (c *cutter) update(crc uint32, p []byte) uint32 {
	if !c.crc || len(p) == 0 {
		return crc
	}
	return crc32.Update(crc, castagnoli, p)
}

// finish ends an FPDU with its padding and its CRC.
func (c *cutter) finish(b *batch, crc uint32, pad int) {
	start := len(b.text)
	b.text = append(b.text, zeroes[:pad]...)
	crc = c.update(crc, b.text[start:])
	if c.fpdus++; c.fpdus == c.faults.CorruptCRC {
		crc = ^crc
	}
	b.text = binary.LittleEndian.AppendUint32(b.text, crc)
	b.addText(start)
}
