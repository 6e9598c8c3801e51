package tcp

import (
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/wait"
)

// lentMax bounds what is read at a time from a socket that is lent, in bytes:
// its thread has other things to do as well.
const lentMax = 256 << 10

// socket is a connection's socket with who waits for it: Go's netpoller, or a
// thread that it is lent to. The netpoller must know nothing of it then, or what
// arrives would wake a thread of Go's each time for nothing.
type socket struct {
	file file // nil while it is lent
	raw  syscall.RawConn

	thread wait.Thread // nil while it is not
	fd     int
}

type file interface {
	io.Closer
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SyscallConn() (syscall.RawConn, error)
}

// shutDown ends all reading and writing, whoever does it.
func (s *socket) shutDown() {
	shut := func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) } // fails where the peer was first
	if s.thread != nil {
		shut(uintptr(s.fd))
	} else {
		_ = s.raw.Control(shut) // fails on a closed file only
	}
}

// interrupt has the goroutine that reads look at what is wanted.
func (s *socket) interrupt() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) }

// Lend implements wait.Lender.
func (c *conn) Lend(thread wait.Thread) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = thread
	if s := c.sock.Load(); thread != nil && s.thread == nil {
		s.interrupt()
	}
}

// lend lends the socket to who wants it, and returns when it is back.
func (c *conn) lend() {
	if thread := c.handOver(); thread != nil {
		if thread.Watch(c) {
			<-c.back
		}
		c.takeBack()
	}
}

// handOver takes the socket from the netpoller. It returns nil where nobody
// wants it any more, or there is no descriptor to be had.
func (c *conn) handOver() wait.Thread {
	c.mu.Lock()
	defer c.mu.Unlock()
	thread, own := c.wanted, c.sock.Load()
	c.wanted = nil
	fd := -1
	if thread != nil && !c.closed.Load() {
		_ = own.raw.Control(func(old uintptr) { fd, _ = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	}
	if fd < 0 {
		_ = own.file.SetReadDeadline(time.Time{})
		return nil
	}
	c.sock.Store(&socket{thread: thread, fd: fd})
	own.file.Close() // the writer, if it waits there, sees why
	return thread
}

// takeBack gives the socket to the netpoller again.
func (c *conn) takeBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := os.NewFile(uintptr(c.sock.Load().fd), "socket")
	raw, _ := f.SyscallConn() // fails on nil only
	own := &socket{file: f, raw: raw}
	c.sock.Store(own)
	if c.wanted != nil {
		own.interrupt()
	}
	if c.stuck.Load() {
		signal(c.room)
	}
}

// FD implements wait.Source.
func (c *conn) FD() int { return c.sock.Load().fd }

// Readable implements wait.Source.
func (c *conn) Readable() bool {
	fd := uintptr(c.FD())
	for total := 0; ; total += c.nread {
		c.readOnce(fd)
		if c.closed.Load() {
			return false
		}
		if c.readErr == unix.EAGAIN {
			if c.holding.Load() {
				c.release()
			}
			return true
		}
		err := c.readErr
		if err == nil {
			err = c.takeIn()
		}
		if err != nil {
			c.Close(err)
			return false
		}
		if !c.holding.Load() && (c.nread < c.asked || total > lentMax) {
			return true
		}
	}
}

// Full implements wait.Source.
func (c *conn) Full() bool { return c.stuck.Load() }

// Writable implements wait.Source.
func (c *conn) Writable() {
	if _, mine := c.finish(uintptr(c.FD())); mine {
		c.wrote()
		c.Flush()
	}
}

// Return implements wait.Source.
func (c *conn) Return() { c.back <- struct{}{} }
