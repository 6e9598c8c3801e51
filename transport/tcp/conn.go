package tcp

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/transport"
)

// conn drives the rules with a socket, in the full-feature phase.
type conn struct {
	rules
	recv receiver
	tcp  *net.TCPConn
	raw  syscall.RawConn

	full   chan struct{} // the batch being written waits for room in the socket
	writer sync.WaitGroup

	holding atomic.Bool // the reader has more to take in at once, and flushes after that
	held    int         // bytes that it has taken in meanwhile; the reader's

	mu     sync.Mutex
	cause  error // of the end
	closed bool

	// What a read and a write leave behind, and the functions that do them,
	// made once so that a call allocates nothing.
	nread, room        int
	readErr, writeErr  error
	rest               []unix.Iovec
	read, write, drain func(fd uintptr) bool
}

func newConn(tcp *net.TCPConn, p transport.Params, s transport.Session, tasks int) *conn {
	c := &conn{tcp: tcp, full: make(chan struct{}, 1)}
	c.rules.init(p, s, tasks)
	c.recv.init(p.HeaderDigest, p.DataDigest, p.MaxRecvDataSegmentLength)
	c.read = func(fd uintptr) bool {
		v := c.recv.vector()
		c.room = length(v)
		c.nread, c.readErr = readv(fd, v)
		return c.readErr != unix.EAGAIN || c.holding.Load()
	}
	c.write = func(fd uintptr) bool {
		c.rest, c.writeErr = writev(fd, c.rest)
		return true
	}
	c.drain = func(fd uintptr) bool {
		c.rest, c.writeErr = writev(fd, c.rest)
		return c.writeErr != unix.EAGAIN
	}
	return c
}

// Start implements transport.Mover.
func (c *conn) Start() {
	_ = c.tcp.SetDeadline(time.Time{}) // fails only on a closed connection, which the reader sees
	raw, err := c.tcp.SyscallConn()
	c.raw = raw
	if err != nil {
		c.Close(err)
	}
	c.writer.Add(1)
	go c.writeLoop()
	go c.readLoop()
}

func (c *conn) readLoop() {
	for {
		if err := c.raw.Read(c.read); err != nil {
			c.Close(cause(err))
			break
		}
		if c.readErr == unix.EAGAIN {
			c.release()
			continue
		}
		if c.readErr != nil {
			c.Close(c.readErr)
			break
		}
		c.recv.landed(c.nread)
		c.session.Enter()
		err := c.recv.parse(&c.rules)
		if err == nil {
			err = c.failed
		}
		c.hold(c.nread, c.room)
		c.session.Leave()
		if err != nil {
			c.Close(err)
			break
		}
	}
	// Nothing may refer to the tasks' extents any more when Down is called.
	c.send.close()
	close(c.full)
	c.writer.Wait()
	c.mu.Lock()
	err := c.cause
	c.mu.Unlock()
	c.session.Down(err)
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
		if err := c.raw.Write(c.write); err != nil {
			c.writeErr = err
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
		if err := c.raw.Write(c.drain); err != nil {
			c.writeErr = err
		}
		c.wrote()
		c.Flush()
	}
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

// Close implements transport.Mover. The reader sees the closed socket, ends,
// and calls Session.Down.
func (c *conn) Close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed, c.cause = true, err
	c.tcp.Close()
}
