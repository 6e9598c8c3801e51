package nbd

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"iscsictl/arena"
	"iscsictl/device"
)

const (
	// maxConns bounds the connections to one export.
	maxConns = 16
	// maxParts is how many of a disk's requests one command may be at a time.
	maxParts = 64
	// negotiationTime is how long a client may take to choose the export.
	negotiationTime = 10 * time.Second
	// drainTime is how long a client may keep a reply waiting once the
	// export is closing.
	drainTime = 5 * time.Second
)

var (
	errClosed  = errors.New("nbd: the export is closed")
	errCrowded = fmt.Errorf("nbd: the export has %d connections already", maxConns)
	errKept    = errors.New("nbd: the export takes no new clients now")
)

// Export is one disk that clients can connect to.
type Export struct {
	disk   device.Disk
	name   string
	about  string
	limits atomic.Pointer[limits]
	drain  time.Duration // drainTime, but in tests

	mu     sync.Mutex
	conns  map[net.Conn]*conn // nil while negotiating
	kept   bool               // no new clients, by Reserve
	closed bool
	idle   sync.WaitGroup
}

// limits are a geometry and what follows from it.
type limits struct {
	device.Geometry
	// whole is the largest read or write that gets all of its memory at
	// once, in bytes; larger ones are done a piece after the other.
	whole int
	// held is how much memory the requests of one connection may have.
	held int
}

// NewExport makes an export of a disk. Clients ask for it by name or by the
// empty name; about is a description for people.
func NewExport(disk device.Disk, name, about string) (*Export, error) {
	e := &Export{disk: disk, name: name, about: about, drain: drainTime, conns: make(map[net.Conn]*conn)}
	return e, e.Update(disk.Geometry())
}

// Update takes in a new geometry, for the checking of requests and for new
// clients: the protocol has no means to tell those who are connected.
func (e *Export) Update(g device.Geometry) error {
	block := g.LogicalBlock
	switch {
	case block < 512 || block > 64<<10 || block&(block-1) != 0:
		return fmt.Errorf("nbd: a logical block of %d bytes cannot be shown", block)
	case g.Size < 0 || g.Size%int64(block) != 0:
		return fmt.Errorf("nbd: a size of %d bytes is not a number of blocks of %d", g.Size, block)
	case g.MaxTransfer < block:
		return fmt.Errorf("nbd: largest transfer of %d bytes is less than a block of %d", g.MaxTransfer, block)
	case e.disk.Arena().Size() < 16*max(block, arena.PageSize):
		return fmt.Errorf("nbd: an arena of %d bytes is too small for blocks of %d", e.disk.Arena().Size(), block)
	}
	l := &limits{Geometry: g}
	l.MaxTransfer -= g.MaxTransfer % block
	// A connection that does not read its replies keeps its requests'
	// memory, so that it may not have too much of it.
	l.held = e.disk.Arena().Size() / 4
	l.whole = min(l.held/2, maxPayload, maxParts*l.MaxTransfer)
	l.whole -= l.whole % block
	e.limits.Store(l)
	return nil
}

// Size returns the export's size in bytes.
func (e *Export) Size() int64 { return e.limits.Load().Size }

// Flags returns the transmission flags: FlagHasFlags and others.
func (e *Export) Flags() uint16 {
	l := e.limits.Load()
	// Flushes go to the disk, so that they cover the writes of all connections.
	f := uint16(FlagHasFlags | FlagSendFlush | FlagSendFUA | FlagCanMultiConn)
	if l.ReadOnly {
		f |= FlagReadOnly
	}
	if l.Rotational {
		f |= FlagRotational
	}
	if l.DiscardMax > 0 && !l.ReadOnly {
		f |= FlagSendTrim
	}
	if l.ZeroesMax > 0 && !l.ReadOnly {
		f |= FlagSendWriteZeroes
	}
	return f
}

// blockSizes returns the smallest, the preferred and the largest request.
func (l *limits) blockSizes() (least, preferred, most uint32) {
	p := max(l.LogicalBlock, l.PhysicalBlock, 4096)
	if p&(p-1) != 0 || p > l.whole {
		p = l.LogicalBlock
	}
	return uint32(l.LogicalBlock), uint32(p), uint32(l.whole)
}

// Serve negotiates with a client and serves it until it leaves or the export
// is closed. It closes the connection, which must be one of the operating
// system's (a net.UnixConn or net.TCPConn).
func (e *Export) Serve(nc net.Conn) error {
	if err := e.enter(nc); err != nil {
		nc.Close()
		return err
	}
	defer e.leave(nc)
	nc.SetDeadline(time.Now().Add(negotiationTime))
	structured, err := negotiate(nc, e)
	if err != nil {
		return err
	}
	nc.SetDeadline(time.Time{})
	return e.transmit(nc, structured)
}

// ServeTransmission serves a client that needs no negotiation: the kernel's,
// which was given Size and Flags by other means, at the other end of a socket pair.
func (e *Export) ServeTransmission(nc net.Conn) error {
	if err := e.enter(nc); err != nil {
		nc.Close()
		return err
	}
	defer e.leave(nc)
	return e.transmit(nc, false)
}

func (e *Export) transmit(nc net.Conn, structured bool) error {
	c, err := newConn(e, nc, structured)
	if err != nil {
		return err
	}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return errClosed
	}
	e.conns[nc] = c
	e.mu.Unlock()
	return c.serve()
}

func (e *Export) enter(nc net.Conn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return errClosed
	case e.kept:
		return errKept
	case len(e.conns) >= maxConns:
		return errCrowded
	}
	e.conns[nc] = nil
	e.idle.Add(1)
	return nil
}

func (e *Export) leave(nc net.Conn) {
	nc.Close()
	e.mu.Lock()
	delete(e.conns, nc)
	e.mu.Unlock()
	e.idle.Done()
}

// Reserve keeps new clients away where there are none, and reports whether
// that is so. One that negotiates counts, as it may have its answer already.
func (e *Export) Reserve() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.conns) == 0 {
		e.kept = true
	}
	return e.kept
}

// Release lets clients come again.
func (e *Export) Release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kept = false
}

// Clients returns the connections.
func (e *Export) Clients() []net.Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]net.Conn, 0, len(e.conns))
	for nc := range e.conns {
		all = append(all, nc)
	}
	return all
}

// Outstanding returns how many commands the disk has of the export.
func (e *Export) Outstanding() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.conns {
		if c != nil {
			c.mu.Lock()
			n += c.outstanding
			c.mu.Unlock()
		}
	}
	return n
}

// Close ends the export: no further request is read, those that are with the
// disk complete and are replied to, connections close. It returns when the
// disk has nothing of the export any more.
func (e *Export) Close() {
	e.mu.Lock()
	e.closed = true
	for nc, c := range e.conns {
		if c == nil {
			nc.Close()
		} else {
			c.drain()
		}
	}
	e.mu.Unlock()
	e.idle.Wait()
}
