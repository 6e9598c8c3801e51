package tcp

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/transport"
	"iscsictl/wait"
)

// conn drives the rules with a socket, in the full-feature phase. Its reader is
// a goroutine, or a thread to which the socket is lent (lend.go).
type conn struct {
	rules
	recv receiver
	sock atomic.Pointer[socket]

	stuck  atomic.Bool   // the batch being written waits for room in the socket
	room   chan struct{} // to the writer: it does
	stop   chan struct{} // to the writer: the connection has ended
	writer sync.WaitGroup
	back   chan struct{} // the thread has given the socket back

	holding atomic.Bool // the reader has more to take in at once, and flushes after that
	held    int         // bytes that it has taken in meanwhile; the reader's

	mu     sync.Mutex
	cause  error // of the end
	closed atomic.Bool
	wanted wait.Thread // which the socket is to be lent to

	// What a read and a write leave behind, and the functions that do them,
	// made once so that a call allocates nothing.
	nread, asked       int
	readErr, writeErr  error
	rest               []unix.Iovec
	finishing          sync.Mutex // guards what a batch that is stuck leaves
	drained            bool       // the writer has finished one
	read, write, drain func(fd uintptr) bool
}

func newConn(tcp *net.TCPConn, p transport.Params, s transport.Session, tasks int) *conn {
	c := &conn{room: make(chan struct{}, 1), stop: make(chan struct{}), back: make(chan struct{}, 1)}
	c.rules.init(p, s, tasks)
	c.recv.init(p.HeaderDigest, p.DataDigest, p.MaxRecvDataSegmentLength)
	raw, _ := tcp.SyscallConn() // fails on nil only
	c.sock.Store(&socket{file: tcp, raw: raw})
	c.read = func(fd uintptr) bool {
		c.readOnce(fd)
		return c.readErr != unix.EAGAIN || c.holding.Load()
	}
	c.write = func(fd uintptr) bool {
		c.rest, c.writeErr = writev(fd, c.rest)
		return true
	}
	c.drain = func(fd uintptr) (done bool) {
		done, c.drained = c.finish(fd)
		return done
	}
	return c
}

// Start implements transport.Mover.
func (c *conn) Start() {
	_ = c.sock.Load().file.SetDeadline(time.Time{}) // fails only on a closed connection, which the reader sees
	c.writer.Add(1)
	go c.writeLoop()
	go c.readLoop()
}

// readLoop reads until the connection ends, but for the time that the socket is lent.
func (c *conn) readLoop() {
	err := c.readHere()
	for errors.Is(err, os.ErrDeadlineExceeded) { // by Lend
		c.lend()
		err = c.readHere()
	}
	c.Close(cause(err))
	// Nothing may refer to the tasks' extents any more when Down is called.
	c.send.close()
	close(c.stop)
	c.writer.Wait()
	c.mu.Lock()
	err = c.cause
	c.mu.Unlock()
	c.sock.Load().file.Close()
	c.session.Down(err)
}

// readHere reads what comes, and returns why it does so no more.
func (c *conn) readHere() error {
	for raw := c.sock.Load().raw; ; {
		if err := raw.Read(c.read); err != nil {
			return err
		}
		if c.closed.Load() {
			return net.ErrClosed
		}
		if c.readErr == unix.EAGAIN {
			c.release()
			continue
		}
		if c.readErr != nil {
			return c.readErr
		}
		if err := c.takeIn(); err != nil {
			return err
		}
	}
}

func (c *conn) readOnce(fd uintptr) {
	v := c.recv.vector()
	c.asked = length(v)
	c.nread, c.readErr = readv(fd, v)
}

// takeIn takes in what a read has brought.
func (c *conn) takeIn() error {
	c.recv.landed(c.nread)
	c.session.Enter()
	err := c.recv.parse(&c.rules)
	if err == nil {
		err = c.failed
	}
	c.hold(c.nread, c.asked)
	c.session.Leave()
	return err
}

// holdMax bounds what is taken in before what is queued is written, in bytes.
const holdMax = 512 << 10

// hold decides whether Flush is to wait, when n bytes were read to a place for
// room: a full one says that there is more. A command for each that has ended
// costs the target a wake-up each, and these cost more than the copy of a large
// payload. But the target is to have something to do meanwhile, which is at least
// half of what was asked for. The session's lock is held.
func (c *conn) hold(n, room int) {
	c.held += n
	more := n == room && c.held < min(holdMax, c.reading/2)
	if !more {
		c.held = 0
	}
	c.holding.Store(more)
}

// release ends the holding, and writes what is queued.
func (c *conn) release() {
	c.held = 0
	c.holding.Store(false)
	c.Flush()
}

// Flush implements transport.Mover. Whoever finds the reader holding leaves what
// was queued to it.
func (c *conn) Flush() {
	if c.holding.Load() {
		return
	}
	for b := c.send.take(); b != nil; b = c.send.take() {
		c.rest = b.vector
		c.push()
		if c.writeErr == unix.EAGAIN {
			c.leaveStuck()
			return
		}
		c.wrote()
	}
}

// push writes what there is room for.
func (c *conn) push() {
	for {
		s := c.sock.Load()
		if s.thread != nil {
			c.rest, c.writeErr = writev(uintptr(s.fd), c.rest)
			return
		}
		err := s.raw.Write(c.write)
		if err == nil {
			return
		}
		if s == c.sock.Load() { // not just lent
			c.writeErr = err
			return
		}
	}
}

// leaveStuck leaves the batch to whoever waits for room in the socket.
func (c *conn) leaveStuck() {
	c.stuck.Store(true)
	c.mu.Lock()
	thread := c.sock.Load().thread
	c.mu.Unlock()
	if thread != nil {
		thread.Wake()
	} else {
		signal(c.room)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// writeLoop finishes batches that did not fit into the socket at once, but for
// the time that it is lent.
func (c *conn) writeLoop() {
	defer c.writer.Done()
	for {
		select {
		case <-c.room:
		case <-c.stop:
			return
		}
		s := c.sock.Load()
		if s.thread != nil {
			continue
		}
		c.drained = false
		if err := s.raw.Write(c.drain); err != nil && s == c.sock.Load() {
			c.drained = c.giveUp(err)
		}
		if c.drained {
			c.wrote()
			c.Flush()
		}
	}
}

// finish writes more of the batch that is stuck. done: nothing is stuck any
// more, and mine: by this call, whose batch it is now.
func (c *conn) finish(fd uintptr) (done, mine bool) {
	c.finishing.Lock()
	defer c.finishing.Unlock()
	if !c.stuck.Load() {
		return true, false
	}
	if c.rest, c.writeErr = writev(fd, c.rest); c.writeErr == unix.EAGAIN {
		return false, false
	}
	c.stuck.Store(false)
	return true, true
}

// giveUp ends the writing of a batch that is stuck.
func (c *conn) giveUp(err error) (mine bool) {
	c.finishing.Lock()
	defer c.finishing.Unlock()
	if c.stuck.Load() {
		c.stuck.Store(false)
		c.writeErr, mine = err, true
	}
	return mine
}

// wrote ends the writing of a batch.
func (c *conn) wrote() {
	if c.writeErr != nil {
		c.Close(cause(c.writeErr))
	}
	if ended := c.send.written(); len(ended) > 0 {
		c.session.Enter()
		var err error
		for _, t := range ended {
			err = errors.Join(err, c.released(t))
		}
		c.session.Leave()
		if err != nil {
			c.Close(err)
		}
	}
	c.send.done()
}

// Close implements transport.Mover. The reader sees that the socket is shut down,
// ends, and calls Session.Down.
func (c *conn) Close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed.Load() {
		c.cause = err
		c.closed.Store(true)
		c.sock.Load().shutDown()
	}
}
