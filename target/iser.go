package target

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/transport/rdma"
)

const (
	iserHeaders = iscsi.ISERHeaderLen + iscsi.BHSLen
	// iserSegment is the longest data segment in either direction, in bytes.
	iserSegment = 8192
	// iserWindow bounds the command window, so that there is a receive for
	// every command, and for PDUs beside the window.
	iserWindow   = 128
	iserReceives = iserWindow + moreImmediate + 16
	iserAHSMax   = 255 * 4

	iserSends = 128
	iserDepth = 512
	iserReads = 16 // RDMA Reads at a time, as far as the initiator allows

	// iserTransfer is the most that one RDMA Write or Read moves, in bytes, and
	// iserTaskReads how many Reads one task has under way.
	iserTransfer  = 1 << 20
	iserTaskReads = 4
	// iserMemory is a connection's: half for what RDMA Writes send, half for
	// what RDMA Reads fetch.
	iserMemory = 16 << 20

	drainTime = 2 * time.Second
)

// Flags of the private data of a connection: what a side cannot do.
const (
	iserNoZeroBased      = 0x80
	iserNoSendInvalidate = 0x40
)

// iser moves data by RDMA (RFC 7145). It implements datamover, and is the
// handler of its RDMA connection.
//
// What happens there, on goroutines of the provider, goes into queues for the
// conn's goroutine. So the handler's lock is held for moments only, and the
// conn's lock is never waited for while it is held.
type iser struct {
	c          *conn
	request    rdma.Request
	rc         rdma.Conn
	arena      *arena.Arena
	source     arena.Extent // what RDMA Writes send: a ring
	invalidate bool         // the initiator takes Send with Invalidate

	// These belong to the conn's lock.
	bhs      iscsi.BHS
	current  arrival // the PDU that is being handled
	segments []byte  // what is left of its data segment
	waiting  []*task // for room to read into, in order
	retrying bool    // the first of them is being tried again
	earlier  uint32  // STag of a command that was answered

	mu       sync.Mutex
	changed  sync.Cond
	closed   bool  // close was called
	over     bool  // nothing happens any more
	failed   error // why it is over
	arrivals ring[arrival]
	landed   ring[landing]
	posted   ring[posting]
	reading  int // RDMA Reads that are not done
	slots    []int
	from, to uint64 // what is in use of source, counted in bytes from the beginning
}

// arrival is a message in a receive slot; -1: none.
type arrival struct {
	slot int
	data []byte
}

// landing is an RDMA Read that is done.
type landing struct {
	task   *task
	ttt    uint32 // of its burst
	offset uint32 // in the task's data
	sink   arena.Extent
}

// posting is a request that is not done.
type posting struct {
	slot int    // of a Send; -1: none
	end  uint64 // source is free up to here then; 0: it has none of it
	read bool
	landing
}

func newISER(s *Server, r rdma.Request, number, tag int) *conn {
	m := &iser{
		request: r, current: arrival{slot: -1},
		arrivals: newRing[arrival](iserReceives), landed: newRing[landing](iserMemory / 2 / arena.PageSize),
		posted: newRing[posting](iserDepth),
	}
	m.changed.L = &m.mu
	for i := range iserSends {
		m.slots = append(m.slots, i)
	}
	m.c = newConn(s, m, number, tag, "", r.RemoteAddr().String())
	m.c.iser, m.c.narrow = true, true
	return m.c
}

// open implements datamover.
func (m *iser) open() error {
	if err := m.establish(); err != nil {
		return err
	}
	m.rc.Start(m)
	return nil
}

// establish accepts the initiator's request for a connection.
func (m *iser) establish() error {
	a, err := arena.New(iserMemory)
	if err != nil {
		return errors.Join(err, m.request.Reject(nil))
	}
	m.arena = a
	m.source, _ = a.Alloc(iserMemory / 2)
	theirs := m.request.PrivateData()
	m.invalidate = len(theirs) >= 4 && theirs[0]&iserNoSendInvalidate == 0
	ours := [4]byte{iserNoZeroBased | iserNoSendInvalidate}
	if m.invalidate {
		ours[0] = iserNoZeroBased
	}
	rc, err := m.request.Accept(rdma.Options{
		PrivateData: ours[:], Arena: a,
		SendDepth: iserDepth, SendSlots: iserSends, SendSlotSize: iserHeaders + iserSegment,
		Receives: iserReceives, ReceiveSize: iserHeaders + iserAHSMax + iserSegment,
		InboundReads: 1, OutboundReads: iserReads, DSCP: -1, PCP: -1,
	})
	if err != nil {
		return err
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		rc.Close(nil)
		return net.ErrClosed
	}
	m.rc, m.c.local = rc, rc.Info().Local.String()
	return nil
}

// Enter implements rdma.Handler.
func (m *iser) Enter() { m.mu.Lock() }

// Leave implements rdma.Handler.
func (m *iser) Leave() {
	m.changed.Broadcast()
	m.mu.Unlock()
	m.rc.Flush()
}

// Received implements rdma.Handler.
func (m *iser) Received(slot int, data []byte, _ rdma.Key) error {
	if !m.arrivals.put(arrival{slot, data}) {
		return errors.New("more messages than receives")
	}
	return nil
}

// Done implements rdma.Handler.
func (m *iser) Done(uint64) error {
	p, ok := m.posted.take()
	switch {
	case !ok:
		return errors.New("a request is done that was not posted")
	case p.read:
		m.reading--
		m.landed.put(p.landing) // has room for all the memory that there is
	case p.slot >= 0:
		m.slots = append(m.slots, p.slot)
	}
	if p.end > 0 {
		m.from = p.end
	}
	return nil
}

// Revoked implements rdma.Handler. A target grants nothing.
func (m *iser) Revoked(uint64) error { return nil }

// Closed implements rdma.Handler.
func (m *iser) Closed(err error) {
	m.mu.Lock()
	m.over, m.failed = true, cause(err)
	m.changed.Broadcast()
	m.mu.Unlock()
	// Slots must not be touched once this has returned, and whoever has the
	// conn's lock may be writing to one.
	m.c.mu.Lock()
	m.c.ended = true
	m.c.mu.Unlock()
}

// cause puts the end of an RDMA connection into the words of a socket.
func cause(err error) error {
	switch {
	case errors.Is(err, rdma.ErrClosed):
		return net.ErrClosed
	case errors.Is(err, rdma.ErrDisconnected):
		return io.EOF
	}
	return err
}

// wait sends what is queued and waits, with the conn's lock, until ready says
// so, which is asked with the handler's lock. It reports false, with conn.err
// set, where the connection is over.
func (m *iser) wait(ready func() bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.over && !ready() {
		m.mu.Unlock()
		m.rc.Flush()
		m.mu.Lock()
		if !m.over && !ready() {
			m.changed.Wait()
		}
	}
	if m.over && m.c.err == nil {
		m.c.err = m.failed
	}
	return !m.over
}

// flush implements datamover.
func (m *iser) flush() error {
	if m.c.err == nil && m.rc != nil {
		m.rc.Flush()
	}
	return m.c.err
}

// drain implements datamover. An initiator that takes nothing is not waited for.
func (m *iser) drain() {
	t := time.AfterFunc(drainTime, m.close)
	defer t.Stop()
	m.wait(m.posted.empty)
}

// settle implements datamover.
func (m *iser) settle() { m.wait(func() bool { return m.reading == 0 }) }

// suspend implements datamover: with the handler's lock held, the provider
// reads no further.
func (m *iser) suspend() { m.mu.Lock() }

// resume implements datamover.
func (m *iser) resume() { m.mu.Unlock() }

// close implements datamover.
func (m *iser) close() {
	m.mu.Lock()
	m.closed = true
	rc := m.rc
	m.mu.Unlock()
	if rc != nil {
		rc.Close(nil)
	}
}

// end implements datamover.
func (m *iser) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.rc != nil && !m.over {
		m.changed.Wait()
	}
	for l, ok := m.landed.take(); ok; l, ok = m.landed.take() {
		l.sink.Free()
	}
	for p, ok := m.posted.take(); ok; p, ok = m.posted.take() {
		p.sink.Free()
	}
	if m.arena == nil {
		return
	}
	m.source.Free()
	if err := m.arena.Close(); err != nil {
		m.c.log.Error("memory of an iSER connection is lost", "error", err)
	}
}
