package iwarp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
	"iscsictl/transport/rdma/rdmatest"
)

// user is a handler that reposts what it receives.
type user struct {
	sync.Mutex
	conn     rdma.Conn
	messages chan string
	done     chan uint64
	revoked  chan uint64
	closed   chan error
}

func newUser(c rdma.Conn) *user {
	return &user{conn: c, messages: make(chan string, 100), done: make(chan uint64, 100), revoked: make(chan uint64, 100), closed: make(chan error, 1)}
}

func (u *user) Enter() { u.Lock() }
func (u *user) Leave() { u.Unlock(); u.conn.Flush() }
func (u *user) Received(slot int, data []byte, _ rdma.Key) error {
	u.messages <- string(data)
	u.conn.Repost(slot)
	return nil
}
func (u *user) Done(id uint64) error    { u.done <- id; return nil }
func (u *user) Revoked(id uint64) error { u.revoked <- id; return nil }
func (u *user) Closed(err error)        { u.closed <- err }

// raw is a peer that writes what a test tells it to.
type raw struct {
	t   testing.TB
	tcp *net.TCPConn
	cut cutter
	rec receiver
}

// rawPair connects a raw peer, as the active side, to a connection of ours.
func rawPair(t testing.TB, opts rdma.Options) (*raw, *user) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	l, err := (&Provider{}).Listen(ctx, loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tcp := dialTCP(t, l.Addr())
	request := mpaFrame{crc: true, revision: 2, enhanced: true, ird: 4, ord: 4}
	if _, err := tcp.Write(request.append(nil)); err != nil {
		t.Fatal(err)
	}
	r, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Accept(opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readFrame(tcp, true); err != nil {
		t.Fatal(err)
	}
	u := newUser(c)
	t.Cleanup(func() { c.Close(nil) })
	return newRaw(t, tcp), u
}

func newRaw(t testing.TB, tcp *net.TCPConn) *raw {
	p := &raw{t: t, tcp: tcp}
	p.cut.init(1442, true, Faults{})
	p.rec.init(true)
	return p
}

func dialTCP(t testing.TB, addr netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // of a connection that is open
	return c
}

// fpdu sends a ULPDU in a frame, with the CRC xored by flip.
func (p *raw) fpdu(ulpdu []byte, flip uint32) {
	p.t.Helper()
	var b batch
	b.init()
	start := len(b.text)
	b.text = binary.BigEndian.AppendUint16(b.text, uint16(len(ulpdu)))
	b.text = append(b.text, ulpdu...)
	crc := p.cut.update(0, b.text)
	b.addText(start)
	p.cut.finish(&b, crc, fpduPad(len(ulpdu)))
	wire := collect(&b)
	binary.LittleEndian.PutUint32(wire[len(wire)-crcLen:], binary.LittleEndian.Uint32(wire[len(wire)-crcLen:])^flip)
	if _, err := p.tcp.Write(wire); err != nil {
		p.t.Fatal(err)
	}
}

func (p *raw) segment(s segment, payload []byte) {
	p.t.Helper()
	p.fpdu(append(s.append(nil), payload...), 0)
}

// terminated reads until the end, and returns the Terminate message that came before it.
func (p *raw) terminated() *TerminateError {
	p.t.Helper()
	all, err := io.ReadAll(p.tcp)
	if err != nil {
		p.t.Logf("reading the rest: %v", err)
	}
	var h heap
	var r receiver
	r.init(true)
	if err := feed(&r, all, len(all), &h); err != nil {
		p.t.Fatalf("what we sent is not well-formed: %v", err)
	}
	if r.middle() || len(h.segments) == 0 {
		p.t.Fatalf("no Terminate message in %x", all)
	}
	last := len(h.segments) - 1
	if s := h.segments[last]; s.op != opTerminate || s.qn != queueTerminate || s.msn != 1 || !s.last {
		p.t.Fatalf("the last segment is %+v", s)
	}
	return parseTerminate(h.payloads[last])
}

func rawOptions(t testing.TB) rdma.Options {
	t.Helper()
	a, err := arena.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	o := rdmatest.Options()
	o.Arena, o.Receives, o.ReceiveSize, o.InboundReads = a, 2, 1024, 2
	return o
}

// Every breach of the protocol ends the connection with the Terminate message
// that the RFCs have for it.
func TestBreaches(t *testing.T) {
	send := segment{last: true, op: opSend, msn: 1}
	read := segment{last: true, op: opReadRequest, qn: queueRead, msn: 1}
	with := func(s segment, change func(*segment)) segment { change(&s); return s }
	request := func(r rdma.Region, n uint32, change func(*readRequest)) []byte {
		q := readRequest{sinkSTag: 1, length: n, srcSTag: uint32(r.Key), srcTO: r.Addr}
		change(&q)
		return q.append(nil)
	}
	keep := func(*readRequest) {}
	write := func(r rdma.Region) segment {
		return segment{tagged: true, last: true, op: opWrite, stag: uint32(r.Key), to: r.Addr}
	}
	for _, c := range []struct {
		name string
		want terminateKind
		do   func(p *raw, rw, ro, wo rdma.Region) // regions of 4096 bytes
	}{
		{"CRC", terminateCRC, func(p *raw, _, _, _ rdma.Region) { p.fpdu(append(send.append(nil), "xyz"...), 1) }},
		{"runt", terminateCatastrophic, func(p *raw, _, _, _ rdma.Region) { p.fpdu(send.append(nil)[:17], 0) }},
		{"empty FPDU", terminateCatastrophic, func(p *raw, _, _, _ rdma.Region) { p.fpdu(nil, 0); p.fpdu(nil, 0) }},
		{"DDP version, untagged", terminateUntaggedVersion, func(p *raw, _, _, _ rdma.Region) {
			b := send.append(nil)
			b[0] ^= 3
			p.fpdu(b, 0)
		}},
		{"DDP version, tagged", terminateTaggedVersion, func(p *raw, rw, _, _ rdma.Region) {
			s := write(rw)
			b := s.append(nil)
			b[0] ^= 3
			p.fpdu(b, 0)
		}},
		{"RDMAP version", terminateRDMAPVersion, func(p *raw, _, _, _ rdma.Region) {
			b := send.append(nil)
			b[1] ^= 0xc0
			p.fpdu(b, 0)
		}},
		{"opcode", terminateOpcode, func(p *raw, _, _, _ rdma.Region) { p.segment(with(send, func(s *segment) { s.op = 11 }), nil) }},
		{"Write, untagged", terminateOpcode, func(p *raw, _, _, _ rdma.Region) { p.segment(with(send, func(s *segment) { s.op = opWrite }), nil) }},
		{"Send, tagged", terminateOpcode, func(p *raw, rw, _, _ rdma.Region) {
			p.segment(with(write(rw), func(s *segment) { s.op = opSend }), nil)
		}},
		{"queue", terminateQueue, func(p *raw, _, _, _ rdma.Region) { p.segment(with(send, func(s *segment) { s.qn = 1 }), nil) }},
		{"queue that is not there", terminateQueue, func(p *raw, _, _, _ rdma.Region) { p.segment(with(send, func(s *segment) { s.qn = 1 << 31 }), nil) }},
		{"MSN gap", terminateMSN, func(p *raw, _, _, _ rdma.Region) { p.segment(with(send, func(s *segment) { s.msn = 2 }), nil) }},
		{"MSN again", terminateMSN, func(p *raw, _, _, _ rdma.Region) { p.segment(send, nil); p.segment(send, nil) }},
		{"MO", terminateMO, func(p *raw, _, _, _ rdma.Region) { p.segment(with(send, func(s *segment) { s.mo = 4 }), nil) }},
		{"MO at the end of all", terminateMO, func(p *raw, _, _, _ rdma.Region) {
			p.segment(with(send, func(s *segment) { s.mo = 1<<32 - 1 }), make([]byte, 16))
		}},
		{"Send too long", terminateTooLong, func(p *raw, _, _, _ rdma.Region) { p.segment(send, make([]byte, 1025)) }},
		{"Send too long in its second segment", terminateTooLong, func(p *raw, _, _, _ rdma.Region) {
			p.segment(with(send, func(s *segment) { s.last = false }), make([]byte, 1000))
			p.segment(with(send, func(s *segment) { s.mo = 1000 }), make([]byte, 25))
		}},
		{"Send of empty segments", terminateOperation, func(p *raw, _, _, _ rdma.Region) {
			p.segment(with(send, func(s *segment) { s.last = false }), nil)
		}},
		{"another opcode within a Send", terminateOpcode, func(p *raw, _, _, _ rdma.Region) {
			p.segment(with(send, func(s *segment) { s.last = false }), make([]byte, 8))
			p.segment(with(send, func(s *segment) { s.mo, s.op = 8, opSendSE }), make([]byte, 8))
		}},
		{"invalidate nothing", terminateInvalidate, func(p *raw, _, _, _ rdma.Region) {
			p.segment(with(send, func(s *segment) { s.op = opSendInvalidate }), nil)
		}},
		{"invalidate twice", terminateInvalidate, func(p *raw, rw, _, _ rdma.Region) {
			s := with(send, func(s *segment) { s.op, s.stag = opSendSEInvalidate, uint32(rw.Key) })
			p.segment(s, nil)
			s.msn++
			p.segment(s, nil)
		}},
		{"Write to a bad STag", terminateTaggedSTag, func(p *raw, rw, _, _ rdma.Region) { rw.Key ^= 1 << 12; p.segment(write(rw), []byte{1}) }},
		{"Write to a stale STag", terminateTaggedSTag, func(p *raw, rw, _, _ rdma.Region) { rw.Key ^= 1; p.segment(write(rw), []byte{1}) }},
		{"Write to STag 0", terminateTaggedSTag, func(p *raw, _, _, _ rdma.Region) { p.segment(write(rdma.Region{}), []byte{1}) }},
		{"Write to what may be read", terminateAccess, func(p *raw, _, ro, _ rdma.Region) { p.segment(write(ro), []byte{1}) }},
		{"Write before", terminateTaggedBounds, func(p *raw, rw, _, _ rdma.Region) { rw.Addr--; p.segment(write(rw), []byte{1}) }},
		{"Write behind", terminateTaggedBounds, func(p *raw, rw, _, _ rdma.Region) { rw.Addr += 4095; p.segment(write(rw), []byte{1, 2}) }},
		{"Write around", terminateTaggedWrap, func(p *raw, rw, _, _ rdma.Region) { rw.Addr = ^uint64(0); p.segment(write(rw), []byte{1, 2}) }},
		{"Read from a bad STag", terminateReadSTag, func(p *raw, rw, _, _ rdma.Region) {
			p.segment(read, request(rw, 1, func(q *readRequest) { q.srcSTag ^= 1 << 9 }))
		}},
		{"Read of what may be written", terminateAccess, func(p *raw, _, _, wo rdma.Region) { p.segment(read, request(wo, 1, keep)) }},
		{"Read behind", terminateReadBounds, func(p *raw, rw, _, _ rdma.Region) { p.segment(read, request(rw, 4097, keep)) }},
		{"Read of all there is", terminateReadBounds, func(p *raw, rw, _, _ rdma.Region) { p.segment(read, request(rw, 1<<32-1, keep)) }},
		{"Read around", terminateReadWrap, func(p *raw, rw, _, _ rdma.Region) {
			p.segment(read, request(rw, 4096, func(q *readRequest) { q.srcTO = ^uint64(0) - 4094 }))
		}},
		{"Read Request cut short", terminateOperation, func(p *raw, rw, _, _ rdma.Region) { p.segment(read, request(rw, 1, keep)[:27]) }},
		{"Read Request too long", terminateTooLong, func(p *raw, rw, _, _ rdma.Region) {
			p.segment(read, append(request(rw, 1, keep), 0))
		}},
		{"Read Request in pieces", terminateOperation, func(p *raw, rw, _, _ rdma.Region) {
			p.segment(with(read, func(s *segment) { s.last = false }), request(rw, 1, keep))
		}},
		{"Read Response to nothing", terminateOpcode, func(p *raw, rw, _, _ rdma.Region) {
			p.segment(with(write(rw), func(s *segment) { s.op = opReadResponse }), []byte{1})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := rawOptions(t)
			p, u := rawPair(t, opts)
			x, _ := opts.Arena.Alloc(3 * arena.PageSize)
			for i := range x.Bytes() {
				x.Bytes()[i] = 'g'
			}
			var r [3]rdma.Region
			for i, a := range []rdma.Access{rdma.RemoteRead | rdma.RemoteWrite, rdma.RemoteRead, rdma.RemoteWrite} {
				var err error
				if r[i], err = u.conn.Grant(1, x.Slice(i*arena.PageSize, (i+1)*arena.PageSize), a); err != nil {
					t.Fatal(err)
				}
			}
			u.conn.Start(u)
			c.do(p, r[0], r[1], r[2])
			if e := p.terminated(); e.Layer != c.want.layer || e.Type != c.want.etype || e.Code != c.want.code {
				t.Errorf("terminated with %+v, want %+v", e, c.want)
			}
			err := <-u.closed
			if f := (*fault)(nil); !errors.As(err, &f) || f.Error() == "" {
				t.Errorf("ended with %v", err)
			}
			t.Log(err)
			if !bytes.Equal(x.Bytes(), bytes.Repeat([]byte{'g'}, x.Len())) {
				t.Error("memory has changed")
			}
		})
	}
}

// A peer that reads nothing must not make us keep more answers than were negotiated.
func TestMoreReadsThanNegotiated(t *testing.T) {
	opts := rawOptions(t)
	p, u := rawPair(t, opts)
	x, _ := opts.Arena.Alloc(1 << 20)
	r, err := u.conn.Grant(1, x, rdma.RemoteRead)
	if err != nil {
		t.Fatal(err)
	}
	u.conn.Start(u)
	s := segment{last: true, op: opReadRequest, qn: queueRead, msn: 1}
	q := readRequest{length: 1 << 20, srcSTag: uint32(r.Key), srcTO: r.Addr}
	// A socket takes in some of them before it is full.
	for ; s.msn < 200; s.msn++ {
		b := append(s.append(nil), q.append(nil)...)
		wire := binary.BigEndian.AppendUint16(nil, uint16(len(b)))
		wire = append(wire, b...)
		wire = binary.LittleEndian.AppendUint32(wire, p.cut.update(0, wire))
		if _, err := p.tcp.Write(wire); err != nil {
			break // ended already
		}
	}
	err = <-u.closed
	if f := (*fault)(nil); !errors.As(err, &f) || f.kind != terminateIRD {
		t.Errorf("ended with %v", err)
	}
}

// A peer that stops reading holds up neither the reader nor the user, and the
// connection can be closed all the same.
func TestPeerThatStopsReading(t *testing.T) {
	opts := rawOptions(t)
	opts.SendDepth = 16
	p, u := rawPair(t, opts)
	x, _ := opts.Arena.Alloc(1 << 20)
	r, err := u.conn.Grant(7, x, rdma.RemoteRead)
	if err != nil {
		t.Fatal(err)
	}
	u.conn.Start(u)
	p.segment(segment{last: true, op: opSend, msn: 1}, []byte("hello"))
	if m := <-u.messages; m != "hello" {
		t.Fatalf("received %q", m)
	}
	u.Enter()
	for i := range opts.SendDepth {
		if err := u.conn.Post(rdma.WorkRequest{ID: uint64(i), Op: rdma.OpWrite, Data: x}); err != nil {
			t.Fatal(err)
		}
	}
	u.Leave() // does not block
	q := readRequest{length: 1 << 20, srcSTag: uint32(r.Key), srcTO: r.Addr}
	p.segment(segment{last: true, op: opReadRequest, qn: queueRead, msn: 1}, q.append(nil))
	p.segment(segment{last: true, op: opSend, msn: 2}, []byte("still there?"))
	if m := <-u.messages; m != "still there?" {
		t.Fatalf("received %q", m)
	}
	u.Enter()
	over := u.conn.Revoke(r)
	u.Leave()
	if over {
		t.Error("the region is said to be free while an answer of it is queued")
	}
	why := errors.New("enough")
	u.conn.Close(why)
	if err := <-u.closed; err != why {
		t.Errorf("ended with %v", err)
	}
}

// A region that is revoked while the reader is in the middle of a payload for
// it is released when that has come.
func TestRevokeWhilePlacing(t *testing.T) {
	opts := rawOptions(t)
	p, u := rawPair(t, opts)
	x, _ := opts.Arena.Alloc(4096)
	r, err := u.conn.Grant(7, x, rdma.RemoteWrite)
	if err != nil {
		t.Fatal(err)
	}
	u.conn.Start(u)
	p.segment(segment{last: true, op: opSend, msn: 1}, []byte("a"))
	<-u.messages
	wire := wireOf(8000, true, message{op: opWrite, stag: uint32(r.Key), to: r.Addr, data: bytes.Repeat([]byte{'w'}, 4096)})
	// A Send and most of a Write in one piece: when the Send is there, so is the Write's beginning.
	var c cutter
	c.init(1442, true, Faults{})
	c.msn[queueSend] = 2
	var b batch
	b.init()
	c.begin(message{op: opSend, head: []byte("b")})
	c.segment(&b)
	if _, err := p.tcp.Write(append(collect(&b), wire[:3000]...)); err != nil {
		t.Fatal(err)
	}
	<-u.messages
	for {
		u.Enter()
		c := u.conn.(*conn)
		i, _ := c.regions.index(uint32(r.Key))
		placing := c.regions.entries[i].placing
		over := placing && u.conn.Revoke(r)
		u.Leave()
		if over {
			t.Fatal("the region is said to be free while it is read into")
		}
		if placing {
			break
		}
	}
	if _, err := p.tcp.Write(wire[3000:]); err != nil {
		t.Fatal(err)
	}
	if id := <-u.revoked; id != 7 {
		t.Errorf("revoked is %d", id)
	}
}

// siw, and others, tell us what they do not like.
func TestTerminateFromThePeer(t *testing.T) {
	p, u := rawPair(t, rawOptions(t))
	u.conn.Start(u)
	p.segment(segment{last: true, op: opTerminate, qn: queueTerminate, msn: 1}, unhex(t, "21030300", "004c", "4143"))
	var e *TerminateError
	if err := <-u.closed; !errors.As(err, &e) || !e.Swapped || e.Code != 3 || !strings.Contains(err.Error(), "sequence number") {
		t.Errorf("ended with %v", err)
	}
}

func TestPeerVanishesInTheMiddle(t *testing.T) {
	p, u := rawPair(t, rawOptions(t))
	u.conn.Start(u)
	if _, err := p.tcp.Write([]byte{0, 30, 0x41}); err != nil {
		t.Fatal(err)
	}
	_ = p.tcp.CloseWrite()
	if err := <-u.closed; err == nil || errors.Is(err, rdma.ErrDisconnected) {
		t.Errorf("ended with %v", err)
	}
}

// The passive side sends nothing before something has come.
func TestPassiveSideWaits(t *testing.T) {
	p, u := rawPair(t, rawOptions(t))
	if err := u.conn.Post(rdma.WorkRequest{ID: 1, Op: rdma.OpSend}); err != nil {
		t.Fatal(err)
	}
	u.conn.Start(u)
	u.conn.Flush()
	_ = p.tcp.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := p.tcp.Read(make([]byte, 1)); n > 0 || !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
		t.Fatalf("%d bytes came first (%v)", n, err)
	}
	_ = p.tcp.SetReadDeadline(time.Now().Add(20 * time.Second))
	p.segment(segment{tagged: true, last: true, op: opWrite}, nil) // the zero-length Write
	if n, err := p.tcp.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("nothing came: %v", err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
