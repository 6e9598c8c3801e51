package iwarp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
)

// conn is an established connection.
type conn struct {
	rdma.Handlers
	info rdma.Info
	tcp  *net.TCPConn
	raw  syscall.RawConn

	recv receiver     // the reader's
	user rdma.Handler // of the reader's batch

	// The handler's lock guards these.
	in      incoming
	regions regionTable

	slots, receives       []byte
	slotSize, receiveSize int
	reads                 int // outbound, as negotiated

	send   sendQueue
	full   chan struct{} // the batch being written waits for room in the socket
	writer sync.WaitGroup

	mu      sync.Mutex
	ending  error // why the connection ends
	closed  bool
	started bool

	// What a read and a write leave behind, and the functions that do them,
	// made once so that a call allocates nothing.
	nread                    int
	readErr, writeErr        error
	rest                     []unix.Iovec
	readFn, writeFn, drainFn func(fd uintptr) bool
}

// setup is what the MPA startup has come to.
type setup struct {
	crc        bool
	mulpdu     int
	passive    bool
	rtr        RTR // to be sent by us
	rtrAwaited RTR // to be sent by the peer
	faults     Faults
}

func newConn(tcp *net.TCPConn, raw syscall.RawConn, o *rdma.Options, info rdma.Info, s setup) (*conn, error) {
	c := &conn{
		info: info, tcp: tcp, raw: raw, full: make(chan struct{}, 1),
		slots: make([]byte, o.SendSlots*o.SendSlotSize), slotSize: o.SendSlotSize,
		receives: make([]byte, o.Receives*o.ReceiveSize), receiveSize: o.ReceiveSize,
		reads: info.OutboundReads,
	}
	window := max(1, info.OutboundReads) // an RTR may be a Read
	if s.faults.ExceedReads {
		window *= 2
	}
	if err := c.regions.init(o.Regions, window); err != nil {
		return nil, err
	}
	c.recv.init(s.crc)
	c.in.init(o.Receives)
	c.send.init(o.SendDepth, info.InboundReads, window, o.Regions, s.mulpdu, s.crc, s.faults)
	c.send.held = true // until Start
	c.send.rtr = s.rtr
	c.in.told = !s.passive
	c.readFn = func(fd uintptr) bool {
		c.nread, c.readErr = readv(fd, c.recv.vector())
		return c.readErr != unix.EAGAIN
	}
	c.writeFn = func(fd uintptr) bool {
		c.rest, c.writeErr = writev(fd, c.rest)
		return true
	}
	c.drainFn = func(fd uintptr) bool {
		c.rest, c.writeErr = writev(fd, c.rest)
		return c.writeErr != unix.EAGAIN
	}
	return c, nil
}

// Info implements rdma.Conn.
func (c *conn) Info() rdma.Info { return c.info }

// SendSlot implements rdma.Conn.
func (c *conn) SendSlot(i int) []byte {
	from := i * c.slotSize
	return c.slots[from : from+c.slotSize : from+c.slotSize]
}

func (c *conn) receiveSlot(i int) []byte {
	from := i * c.receiveSize
	return c.receives[from : from+c.receiveSize : from+c.receiveSize]
}

// Repost implements rdma.Conn.
func (c *conn) Repost(slot int) { c.in.posted.put(slot) }

// Grant implements rdma.Conn.
func (c *conn) Grant(id uint64, e arena.Extent, a rdma.Access) (rdma.Region, error) {
	return c.regions.grant(id, e, a)
}

// Revoke implements rdma.Conn.
func (c *conn) Revoke(r rdma.Region) bool {
	i, ok := c.regions.index(uint32(r.Key))
	if !ok {
		return true
	}
	e := &c.regions.entries[i]
	if e.state == regionRevoked {
		return false // Revoked follows already
	}
	e.state = regionRevoked
	if c.send.hold(i) || e.placing {
		return false
	}
	c.regions.release(i)
	return true
}

// Post implements rdma.Conn.
func (c *conn) Post(w rdma.WorkRequest) error {
	it := item{id: w.ID, op: w.Op, signal: w.Signal, data: w.Data.Bytes(), remote: w.Remote}
	switch w.Op {
	case rdma.OpSend, rdma.OpSendInvalidate:
		if w.Head > 0 {
			if w.Slot < 0 || w.Slot >= len(c.slots)/max(1, c.slotSize) || w.Head > c.slotSize {
				return fmt.Errorf("iwarp: post of %d bytes of send slot %d, which is not there", w.Head, w.Slot)
			}
			it.head = c.SendSlot(w.Slot)[:w.Head]
		}
	case rdma.OpRead:
		if c.reads == 0 {
			return errors.New("iwarp: the peer answers no RDMA Reads")
		}
		it.sink = c.regions.base + uint64(w.Data.Offset())
	case rdma.OpWrite:
	default:
		return fmt.Errorf("iwarp: post of the unknown operation %d", w.Op)
	}
	return c.send.post(it)
}

// Handover implements rdma.Conn.
func (c *conn) Handover(h rdma.Handler) { c.Set(h) }

// Start implements rdma.Conn.
func (c *conn) Start(h rdma.Handler) {
	c.Set(h)
	c.mu.Lock()
	c.started = true
	c.mu.Unlock()
	_ = c.tcp.SetDeadline(time.Time{}) // fails only on a closed connection, which the reader sees
	if c.in.told {
		c.send.release()
	}
	c.writer.Add(1)
	go c.writeLoop()
	go c.readLoop()
	c.Flush()
}

func (c *conn) readLoop() {
	for {
		if err := c.readOnce(); err != nil {
			c.fail(err)
			break
		}
		c.Flush()
	}
	// Nothing may refer to any memory any more when Closed is called.
	c.send.close()
	close(c.full)
	c.writer.Wait()
	c.mu.Lock()
	err := c.ending
	c.mu.Unlock()
	c.Current().Closed(err)
}

// readOnce takes in what there is, and delivers what comes of it as one batch.
func (c *conn) readOnce() error {
	if err := c.raw.Read(c.readFn); err != nil {
		return cause(err)
	}
	if c.readErr == io.EOF {
		if c.recv.middle() {
			return errors.New("the peer closed the connection in the middle of a message")
		}
		return rdma.ErrDisconnected
	}
	if c.readErr != nil {
		return lost(c.readErr)
	}
	if c.recv.landed(c.nread); len(c.recv.place) > 0 {
		return nil // in the middle of a payload: nothing has happened
	}
	c.user = c.Enter()
	err := c.recv.parse(c)
	if err == nil {
		c.user, err = c.deliver(c.user)
	}
	c.user.Leave()
	return err
}

// lost words an error of the socket. A peer that closes while something of ours
// is on its way resets the connection.
func lost(err error) error {
	if err == unix.ECONNRESET || err == unix.EPIPE {
		return fmt.Errorf("%w (%w)", rdma.ErrDisconnected, err)
	}
	return err
}

// deliver tells the handler, which has been entered, what is done. It returns
// the one that is to be left.
func (c *conn) deliver(h rdma.Handler) (rdma.Handler, error) {
	for {
		id, request, region, ok := c.send.finished()
		var err error
		switch {
		case !ok:
			return h, nil
		case request:
			err = h.Done(id)
		case !c.regions.entries[region].placing:
			id = c.regions.release(region)
			err = h.Revoked(id)
		}
		if h = c.Next(h); err != nil {
			return h, err
		}
	}
}

// Flush implements rdma.Conn.
func (c *conn) Flush() {
	for b := c.send.take(&c.regions); b != nil; b = c.send.take(&c.regions) {
		c.rest = b.vector
		if err := c.raw.Write(c.writeFn); err != nil {
			c.writeErr = cause(err)
		}
		if c.writeErr == unix.EAGAIN {
			c.full <- struct{}{} // the batch is the writer's now
			return
		}
		c.wrote()
	}
}

// writeLoop finishes batches that did not fit into the socket at once.
func (c *conn) writeLoop() {
	defer c.writer.Done()
	for range c.full {
		if err := c.raw.Write(c.drainFn); err != nil {
			c.writeErr = cause(err)
		}
		c.wrote()
		c.Flush()
	}
}

// wrote ends the writing of a batch.
func (c *conn) wrote() {
	if c.writeErr != nil {
		c.Close(lost(c.writeErr))
	} else if c.send.written() {
		h, err := c.deliver(c.Enter())
		h.Leave()
		if err != nil {
			c.Close(err)
		}
	}
	c.send.done()
}

// fail ends the connection; a peer that broke the protocol is told so.
func (c *conn) fail(err error) {
	if f := (*fault)(nil); errors.As(err, &f) {
		c.terminate(f)
	}
	c.Close(err)
}

// terminate sends a Terminate message, as far as that can be done at once, and
// sees to it that TCP does not throw it away for what the peer has sent since.
func (c *conn) terminate(f *fault) {
	var header []byte
	if c.recv.ulpdu > 0 {
		header = c.recv.seg.append(nil)
		if c.recv.seg.op == opReadRequest && f.kind.layer == layerRDMAP {
			header = append(header, c.in.short[:readReqLen]...)
		}
	}
	if !c.send.abort(appendTerminate(nil, f.kind, c.recv.ulpdu, header)) {
		return
	}
	c.Flush()
	_ = c.tcp.CloseWrite()
	_ = c.raw.Read(func(fd uintptr) bool {
		for range 64 {
			if n, err := unix.Read(int(fd), c.recv.stage); n <= 0 || err != nil {
				break
			}
		}
		return true
	})
}

// Close implements rdma.Conn. The reader sees the closed socket, ends, and calls
// Handler.Closed.
func (c *conn) Close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if err == nil {
		err = rdma.ErrClosed
	}
	c.closed, c.ending = true, err
	c.tcp.Close()
}
