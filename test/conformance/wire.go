package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"strings"
	"sync"
	"time"
)

// Operation codes (RFC 7143 §11.2.1.2).
const (
	nopOut          = 0x00
	scsiCommand     = 0x01
	taskManagement  = 0x02
	loginRequest    = 0x03
	textRequest     = 0x04
	dataOut         = 0x05
	logoutRequest   = 0x06
	snackRequest    = 0x10
	nopIn           = 0x20
	scsiResponse    = 0x21
	taskResponse    = 0x22
	loginResponse   = 0x23
	textResponse    = 0x24
	dataIn          = 0x25
	logoutResponse  = 0x26
	readyToTransfer = 0x31
	asyncMessage    = 0x32
	rejectPDU       = 0x3f
)

// reserved is the value of a tag that is none (§11.2.1.8, §11.7.4).
const reserved = 0xffffffff

// pdu is a PDU as it was on the wire.
type pdu struct {
	h      [48]byte // basic header segment (§11.2.1)
	ahs    []byte
	data   []byte // without padding
	pad    []byte
	sent   bool // by the initiator
	conn   int  // number of the connection, from 1
	at     time.Time
	digest [2]string // what is wrong with the header's and the data's digest
	// maxCmdSN is the greatest that the target had sent on the connection,
	// when a PDU of the initiator came; known says that there was one.
	maxCmdSN uint32
	known    bool
	statSN   uint32 // the last one with a status that the target had sent
}

func (p *pdu) u32(at int) uint32 { return binary.BigEndian.Uint32(p.h[at:]) }

// The fields that all PDUs have, or many (§11.2.1, §11.3, §11.4).
func (p *pdu) opcode() byte        { return p.h[0] & 0x3f }
func (p *pdu) immediate() bool     { return p.h[0]&0x40 != 0 }
func (p *pdu) final() bool         { return p.h[1]&0x80 != 0 }
func (p *pdu) lun() uint64         { return binary.BigEndian.Uint64(p.h[8:]) }
func (p *pdu) itt() uint32         { return p.u32(16) }
func (p *pdu) ttt() uint32         { return p.u32(20) }
func (p *pdu) edtl() uint32        { return p.u32(20) } // of a SCSI Command (§11.3)
func (p *pdu) cmdSN() uint32       { return p.u32(24) }
func (p *pdu) expStatSN() uint32   { return p.u32(28) }
func (p *pdu) statSNField() uint32 { return p.u32(24) }
func (p *pdu) dataSN() uint32      { return p.u32(36) } // Data-In, Data-Out, R2TSN
func (p *pdu) offset() uint32      { return p.u32(40) }
func (p *pdu) desired() uint32     { return p.u32(44) } // of an R2T (§11.8)

// text returns the value of a key in the PDU's text (§6.1).
func (p *pdu) text(key string) (string, bool) {
	for _, pair := range strings.Split(string(p.data), "\x00") {
		if k, v, ok := strings.Cut(pair, "="); ok && k == key {
			return v, true
		}
	}
	return "", false
}

func (p *pdu) String() string {
	from := "target"
	if p.sent {
		from = "initiator"
	}
	return fmt.Sprintf("%d %s: % x + %d bytes", p.conn, from, p.h, len(p.data))
}

// before is serial number arithmetic (RFC 1982, RFC 7143 §4.2.2.1).
func before(a, b uint32) bool { return a != b && b-a < 1<<31 }

// recorder is a listener that notes what is said on its connections.
type recorder struct {
	net.Listener
	mu    sync.Mutex
	conns int
	pdus  []*pdu
	wake  chan struct{}  // closed when something was noted
	ends  map[int]ending // connections that have ended
}

type ending struct {
	at          time.Time
	byInitiator bool
}

func (r *recorder) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns++
	return &recorded{Conn: c, r: r, number: r.conns}, nil
}

// recorded is a connection that is listened in to.
type recorded struct {
	net.Conn
	r      *recorder
	number int
	in     stream // of the initiator
	out    stream // of the target

	digests  [2]bool // header, data: negotiated
	full     bool    // full-feature phase
	maxCmdSN uint32
	known    bool
	statSN   uint32
}

// stream is one direction.
type stream struct {
	rest []byte
}

func (c *recorded) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.note(&c.in, b[:n], true)
	if err != nil {
		if _, ended := c.r.ends[c.number]; !ended {
			c.r.ends[c.number] = ending{time.Now(), true}
			c.r.told()
		}
	}
	return n, err
}

func (c *recorded) Write(b []byte) (int, error) {
	c.r.mu.Lock()
	c.note(&c.out, b, false)
	c.r.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *recorded) Close() error {
	c.r.mu.Lock()
	if _, ended := c.r.ends[c.number]; !ended {
		c.r.ends[c.number] = ending{time.Now(), false}
		c.r.told()
	}
	c.r.mu.Unlock()
	return c.Conn.Close()
}

func (r *recorder) told() {
	close(r.wake)
	r.wake = make(chan struct{})
}

// note takes in bytes, and notes the PDUs that they complete.
func (c *recorded) note(s *stream, b []byte, sent bool) {
	s.rest = append(s.rest, b...)
	for {
		p, n := c.cut(s.rest)
		if p == nil {
			return
		}
		s.rest = s.rest[n:]
		p.sent, p.conn, p.at = sent, c.number, time.Now()
		p.maxCmdSN, p.known, p.statSN = c.maxCmdSN, c.known, c.statSN
		if !sent {
			c.follow(p)
		}
		c.r.pdus = append(c.r.pdus, p)
		c.r.told()
	}
}

// follow keeps up with what the target says.
func (c *recorded) follow(p *pdu) {
	switch p.opcode() {
	case loginResponse:
		for i, key := range []string{"HeaderDigest", "DataDigest"} {
			if v, ok := p.text(key); ok {
				c.digests[i] = v == "CRC32C"
			}
		}
		// T bit, and the full-feature phase as the next stage (§11.13).
		c.full = c.full || p.h[1]&0x83 == 0x83 && p.h[36] == 0
		c.statSN = p.statSNField()
	case readyToTransfer:
	case dataIn:
		if p.h[1]&1 != 0 { // S bit (§11.7.3)
			c.statSN = p.statSNField()
		}
	case nopIn:
		if p.itt() != reserved {
			c.statSN = p.statSNField()
		}
	default:
		c.statSN = p.statSNField()
	}
	if max := p.u32(32); !c.known || before(c.maxCmdSN, max) {
		c.maxCmdSN, c.known = max, true
	}
}

// cut takes a PDU off the beginning of b, if it is whole.
func (c *recorded) cut(b []byte) (p *pdu, n int) {
	if len(b) < 48 {
		return nil, 0
	}
	p = &pdu{h: [48]byte(b)}
	ahs := int(p.h[4]) * 4
	size := int(p.h[5])<<16 | int(p.h[6])<<8 | int(p.h[7])
	pad := -size & 3
	head, tail := 48+ahs, size+pad
	digests := c.digests
	if !c.full {
		digests = [2]bool{}
	}
	if digests[0] {
		head += 4
	}
	if digests[1] && size > 0 {
		tail += 4
	}
	if len(b) < head+tail {
		return nil, 0
	}
	p.ahs = bytes.Clone(b[48 : 48+ahs])
	p.data = bytes.Clone(b[head : head+size])
	p.pad = bytes.Clone(b[head+size : head+size+pad])
	if digests[0] {
		p.digest[0] = wrongCRC(b[:48+ahs], b[48+ahs:])
	}
	if digests[1] && size > 0 {
		p.digest[1] = wrongCRC(b[head:head+size+pad], b[head+size+pad:])
	}
	return p, head + tail
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// wrongCRC says what is wrong with a digest: CRC32C (§13.1), whose bytes go least
// significant first, as the examples of RFC 3720 appendix B.4 have them.
func wrongCRC(b, crc []byte) string {
	if want, got := crc32.Checksum(b, castagnoli), binary.LittleEndian.Uint32(crc); got != want {
		return fmt.Sprintf("digest %08x where it is %08x", got, want)
	}
	return ""
}
