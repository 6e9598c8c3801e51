package target

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/transport/rdma"
	"iscsictl/transport/rdma/iwarp"
)

// serveISER adds an iSER portal to a server, and returns its address.
func serveISER(t testing.TB, s *Server, w IWARP) string {
	t.Helper()
	l, err := ListenISER(context.Background(), Portal{Address: "127.0.0.1:0", ISER: true, IWARP: w})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.ServeISER(l, 1) }()
	t.Cleanup(func() {
		_ = s.Close() // which serve checks
		if err := <-ended; err != nil {
			t.Errorf("ServeISER: %v", err)
		}
	})
	return l.Addr().String()
}

// onBoth runs a test over TCP and over iSER.
func onBoth(t *testing.T, conf Config, test func(t *testing.T, s *Server, connect func() *client)) {
	s, address := serve(t, conf)
	t.Run("tcp", func(t *testing.T) { test(t, s, func() *client { return dial(t, address) }) })
	s, _ = serve(t, conf)
	address = serveISER(t, s, IWARP{})
	t.Run("iser", func(t *testing.T) { test(t, s, func() *client { return dialISER(t, address) }) })
}

// loan is memory that the target may reach.
type loan struct {
	extent      arena.Extent
	region      rdma.Region
	granted     bool
	read        bool // by a command that reads
	over        bool // nothing refers to it any more
	invalidated bool
}

// rdmaEnd is the client's end of an iSER connection, and its handler.
type rdmaEnd struct {
	conn  rdma.Conn
	arena *arena.Arena

	mu       sync.Mutex
	changed  sync.Cond
	messages [][]byte
	loans    map[uint32]*loan // by initiator task tag
	next     iscsi.ISERHeader // of the next PDU
	free     []int            // send slots
	closed   bool
	cause    error
	deadline time.Time
	deaf     bool // do not give receives back
}

func dialISER(t testing.TB, address string) *client {
	t.Helper()
	return dialISERWith(t, address, &iwarp.Provider{}, 16, iserNoZeroBased)
}

func dialISERWith(t testing.TB, address string, p *iwarp.Provider, reads int, flags byte) *client {
	t.Helper()
	c, err := tryISER(t, address, p, reads, flags)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryISER(t testing.TB, address string, p *iwarp.Provider, reads int, flags ...byte) (*client, error) {
	t.Helper()
	a, err := arena.New(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	e := &rdmaEnd{arena: a, loans: make(map[uint32]*loan), deadline: time.Now().Add(20 * time.Second)}
	e.changed.L = &e.mu
	for i := range 64 {
		e.free = append(e.free, i)
	}
	var private []byte
	for _, f := range flags {
		private = []byte{f, 0, 0, 0}
	}
	conn, err := p.Dial(t.Context(), netip.MustParseAddrPort(address), netip.AddrPort{}, rdma.Options{
		PrivateData: private, Arena: a, SendDepth: 256, SendSlots: 64, SendSlotSize: 64 << 10,
		Receives: 160, ReceiveSize: iserHeaders + iserSegment, Regions: 160,
		InboundReads: reads, OutboundReads: 1, DSCP: -1, PCP: -1,
	})
	if err != nil {
		return nil, err
	}
	e.conn = conn
	conn.Start(e)
	t.Cleanup(e.stop)
	return &client{t: t, rdma: e, isid: [6]byte{0x80, 1, 2, 3, 4, 5}, cmdSN: 7, itt: 100, segment: 8192}, nil
}

// stop ends the connection and frees its memory.
func (e *rdmaEnd) stop() {
	e.conn.Close(nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.closed {
		e.changed.Wait()
	}
	for _, l := range e.loans {
		l.extent.Free()
	}
	_ = e.arena.Close()
}

func (e *rdmaEnd) Enter() { e.mu.Lock() }

func (e *rdmaEnd) Leave() {
	e.changed.Broadcast()
	e.mu.Unlock()
	e.conn.Flush()
}

// Received takes back what was lent as soon as the response is there.
func (e *rdmaEnd) Received(slot int, data []byte, invalidated rdma.Key) error {
	e.messages = append(e.messages, bytes.Clone(data))
	if len(data) >= iserHeaders && iscsi.Opcode(data[iscsi.ISERHeaderLen]&0x3f) == iscsi.OpSCSIResponse {
		h := iscsi.BHS(data[iscsi.ISERHeaderLen:])
		l := e.loans[h.InitiatorTaskTag()]
		switch {
		case l == nil && invalidated != 0, l != nil && invalidated != 0 && l.region.Key != invalidated:
			return fmt.Errorf("a response that invalidates the STag %#x of another command", invalidated)
		case l != nil:
			l.invalidated = invalidated != 0
			l.over = !l.granted || e.conn.Revoke(l.region)
		}
	}
	if !e.deaf {
		e.conn.Repost(slot)
	}
	return nil
}

func (e *rdmaEnd) Done(id uint64) error {
	e.free = append(e.free, int(id))
	return nil
}

func (e *rdmaEnd) Revoked(id uint64) error {
	e.loans[uint32(id)].over = true
	return nil
}

func (e *rdmaEnd) Closed(err error) {
	e.mu.Lock()
	e.closed, e.cause = true, err
	e.changed.Broadcast()
	e.mu.Unlock()
}

// await waits with the lock until ready.
func (e *rdmaEnd) await(ready func() bool) error {
	t := time.AfterFunc(time.Until(e.deadline), func() {
		e.mu.Lock()
		e.changed.Broadcast()
		e.mu.Unlock()
	})
	defer t.Stop()
	for !ready() {
		switch {
		case e.closed:
			return fmt.Errorf("connection closed: %w", e.cause)
		case !time.Now().Before(e.deadline):
			return os.ErrDeadlineExceeded
		}
		e.changed.Wait()
	}
	return nil
}

// lend grants memory for a command's data: of what it sends, that which does
// not go with it.
func (e *rdmaEnd) lend(cmd *iscsi.SCSICommand, read uint32, out []byte, unsolicited int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, access := int(read), rdma.RemoteWrite
	if len(out) > 0 {
		n, access = len(out), rdma.RemoteRead
	}
	if n == 0 {
		return
	}
	l := &loan{read: read > 0}
	l.extent, _ = e.arena.Alloc(n)
	copy(l.extent.Bytes(), out)
	if read > 0 {
		clear(l.extent.Bytes())
	}
	if e.loans[cmd.InitiatorTaskTag] = l; access == rdma.RemoteRead && unsolicited == n {
		return
	}
	region, err := e.conn.Grant(uint64(cmd.InitiatorTaskTag), l.extent, access)
	if err != nil {
		panic(err)
	}
	l.region, l.granted = region, true
	if read > 0 {
		e.next = iscsi.ISERHeader{HasRead: true, ReadSTag: uint32(region.Key), ReadBase: region.Addr}
	} else {
		e.next = iscsi.ISERHeader{HasWrite: true, WriteSTag: uint32(region.Key), WriteBase: region.Addr + uint64(unsolicited)}
	}
}

// taken returns what has come for a command.
func (e *rdmaEnd) taken(tag uint32, r *iscsi.SCSIResponse) (data []byte, invalidated bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.loans[tag]
	if l == nil {
		return nil, false
	}
	if e.await(func() bool { return l.over }) != nil {
		return nil, false // the next who receives is told why
	}
	delete(e.loans, tag)
	n := l.extent.Len()
	if r.Underflow {
		n = max(n-int(r.Residual), 0)
	}
	if !l.read {
		n = 0
	}
	data = bytes.Clone(l.extent.Bytes()[:n])
	l.extent.Free()
	return data, l.invalidated
}

// send sends a PDU; message sends anything.
func (e *rdmaEnd) send(h *iscsi.BHS, data []byte) error {
	var header [iscsi.ISERHeaderLen]byte
	e.next.Encode(&header)
	e.next = iscsi.ISERHeader{}
	m := append(append(header[:], h[:]...), data...)
	return e.message(append(m, zeroes[:iscsi.Pad(len(data))]...))
}

func (e *rdmaEnd) message(m []byte) error {
	e.mu.Lock()
	if err := e.await(func() bool { return len(e.free) > 0 }); err != nil {
		e.mu.Unlock()
		return err
	}
	if e.closed {
		e.mu.Unlock()
		return net.ErrClosed
	}
	slot := e.free[0]
	e.free = e.free[1:]
	n := copy(e.conn.SendSlot(slot), m)
	err := e.conn.Post(rdma.WorkRequest{ID: uint64(slot), Op: rdma.OpSend, Signal: true, Slot: slot, Head: n})
	e.mu.Unlock()
	e.conn.Flush()
	return err
}

func (e *rdmaEnd) receive() (pdu, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var p pdu
	if err := e.await(func() bool { return len(e.messages) > 0 }); err != nil {
		return p, err
	}
	m := e.messages[0]
	e.messages = e.messages[1:]
	var r iscsi.ISERHeader
	if len(m) < iserHeaders {
		return p, fmt.Errorf("a message of %d bytes", len(m))
	}
	if err := r.Decode((*[iscsi.ISERHeaderLen]byte)(m)); err != nil {
		return p, err
	}
	if r.HasRead || r.HasWrite {
		return p, fmt.Errorf("the target lends memory: %+v", r)
	}
	p.h = iscsi.BHS(m[iscsi.ISERHeaderLen:])
	rest := m[iserHeaders:]
	n := p.h.DataSegmentLength()
	if len(rest) != n+iscsi.Pad(n) {
		return p, fmt.Errorf("%v with %d bytes of data and %d in the message", p.h.Opcode(), n, len(rest))
	}
	p.data = rest[:n]
	return p, nil
}
