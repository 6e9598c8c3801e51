package tcp

import (
	"errors"
	"net"
	"sync"
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

	mu     sync.Mutex
	cause  error // of the end
	closed bool

	// What a read and a write leave behind, and the functions that do them,
	// made once so that a call allocates nothing.
	nread              int
	readErr, writeErr  error
	rest               []unix.Iovec
	read, write, drain func(fd uintptr) bool
}

func newConn(tcp *net.TCPConn, p transport.Params, s transport.Session, tasks int) *conn {
	c := &conn{tcp: tcp, full: make(chan struct{}, 1)}
	c.rules.init(p, s, tasks)
	c.recv.init(p.HeaderDigest, p.DataDigest, p.MaxRecvDataSegmentLength)
	c.read = func(fd uintptr) bool {
		c.nread, c.readErr = readv(fd, c.recv.vector())
		return c.readErr != unix.EAGAIN
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

// Flush implements transport.Mover.
func (c *conn) Flush() {
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
