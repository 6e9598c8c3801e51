package nbd

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"iscsictl/device"
)

// sender writes a connection's replies. At any time one goroutine at most is
// the sender (conn.sending): one that completed requests, as long as the socket
// takes what there is, and after that the connection's writer.
type sender struct {
	c       *conn
	iov     [sendVectors]unix.Iovec
	n       int // vectors in iov
	skip    int // bytes of the first reply that are sent already
	attempt func(fd uintptr)
	wait    func(fd uintptr) bool
	broken  atomic.Bool
}

type sendState uint8

const (
	sendIdle   sendState = iota // all is sent, and sending was ended
	sendFull                    // the socket takes no more just now
	sendBroken                  // nothing more can be sent
)

func (s *sender) init(c *conn) {
	s.c = c
	// These are made once, so that handing them to RawConn allocates nothing.
	s.attempt = func(fd uintptr) {
		if s.send(int(fd)) == sendFull {
			c.kick <- struct{}{} // there is room: only the sender kicks
		}
	}
	s.wait = func(fd uintptr) bool { return s.send(int(fd)) != sendFull }
}

// try sends what the socket takes without waiting, and leaves the rest to the
// writer. The caller has set conn.sending.
func (s *sender) try() {
	// Control, and not Write, as that would wait for its turn. Both keep
	// the descriptor from being closed and used for something else.
	if err := s.c.raw.Control(s.attempt); err != nil || s.broken.Load() {
		s.giveUp()
	}
}

// run is the writer.
func (s *sender) run() {
	for {
		select {
		case <-s.c.kick:
		case <-s.c.over:
			return
		}
		s.c.mu.Lock()
		if s.c.draining {
			s.c.nc.SetWriteDeadline(time.Now().Add(s.c.export.drain))
		}
		s.c.mu.Unlock()
		if err := s.c.raw.Write(s.wait); err != nil || s.broken.Load() {
			s.giveUp()
		}
	}
}

// giveUp ends the connection, after the last attempt to send.
func (s *sender) giveUp() {
	s.c.nc.Close() // not within attempt or wait, which it waits for
	s.drop()
}

// send writes replies until there are none, the socket is full or broken.
func (s *sender) send(fd int) sendState {
	for {
		if state, more := s.gather(); !more {
			if state == sendBroken {
				s.broken.Store(true)
			}
			return state
		}
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&s.iov[0])), uintptr(s.n))
		switch errno {
		case 0:
			s.sent(int(n))
		case unix.EINTR:
		case unix.EAGAIN:
			return sendFull
		default:
			s.broken.Store(true)
			return sendBroken
		}
	}
}

// gather fills the vectors with the next replies. Where there is none, or
// nothing can be sent, it says with which outcome sending ends.
func (s *sender) gather() (end sendState, more bool) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return sendBroken, false
	}
	if c.head == nil {
		c.sending = false
		return sendIdle, false
	}
	s.n = 0
	skip := s.skip
	for cmd := c.head; cmd != nil && s.n+2 <= len(s.iov); cmd = cmd.next {
		skip = s.add(cmd.header[:cmd.headerN], skip)
		if cmd.dataN > 0 {
			skip = s.add(cmd.ext.Bytes(), skip)
		}
	}
	return 0, true
}

// add appends what is left of b after skip bytes, and returns how many bytes
// are to be skipped after that.
func (s *sender) add(b []byte, skip int) int {
	if skip >= len(b) {
		return skip - len(b)
	}
	b = b[skip:]
	s.iov[s.n].Base = &b[0]
	s.iov[s.n].SetLen(len(b))
	s.n++
	return 0
}

// sent takes replies off of which n more bytes are sent.
func (s *sender) sent(n int) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.skip += n
	for c.head != nil {
		cmd := c.head
		size := cmd.headerN + cmd.dataN
		if s.skip < size {
			return
		}
		s.skip -= size
		c.head = cmd.next
		c.release(cmd)
	}
}

// drop gives up sending for good, with the memory of all replies. The caller
// has set conn.sending.
func (s *sender) drop() {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	for c.head != nil {
		cmd := c.head
		c.head = cmd.next
		c.release(cmd)
	}
	c.sending = false
}

var _ device.Queue = (*conn)(nil)
