package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
)

// client is a small NBD client: it writes and reads what the tests say, with
// any number of commands outstanding.
type client struct {
	nc         net.Conn
	size       uint64
	flags      uint16
	structured bool

	mu      sync.Mutex
	cookie  uint64
	waiting map[uint64]*answer
	err     error
}

// answer is where the reply of a command goes.
type answer struct {
	off  int64
	data []byte // of a read
	got  int
	err  error
	done chan struct{}
}

// newClient negotiates by GO, after STRUCTURED_REPLY where that is wanted.
func newClient(nc net.Conn, structured bool) (*client, error) {
	c := &client{nc: nc, structured: structured, waiting: map[uint64]*answer{}}
	b := make([]byte, 18)
	if _, err := io.ReadFull(nc, b); err != nil {
		return nil, err
	}
	nc.Write(be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes))
	if structured {
		nc.Write(option(optStructuredReply, nil))
		if kind, _, err := c.optReply(); err != nil || kind != repAck {
			return nil, fmt.Errorf("structured replies: %#x %w", kind, err)
		}
	}
	nc.Write(option(optGo, make([]byte, 6)))
	for {
		kind, data, err := c.optReply()
		switch {
		case err != nil:
			return nil, err
		case kind == repAck:
			return c, nil
		case kind&(1<<31) != 0:
			return nil, fmt.Errorf("reply %#x %s", kind, data)
		case be.Uint16(data) == infoExport:
			c.size, c.flags = be.Uint64(data[2:]), be.Uint16(data[10:])
		}
	}
}

func option(option uint32, data []byte) []byte {
	b := be.AppendUint64(nil, magicOption)
	b = be.AppendUint32(b, option)
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func (c *client) optReply() (kind uint32, data []byte, err error) {
	b := make([]byte, 20)
	if _, err := io.ReadFull(c.nc, b); err != nil {
		return 0, nil, err
	}
	if be.Uint64(b) != magicOptReply {
		return 0, nil, fmt.Errorf("magic %#x", b[:8])
	}
	data = make([]byte, be.Uint32(b[16:]))
	_, err = io.ReadFull(c.nc, data)
	return be.Uint32(b[12:]), data, err
}

// start begins to read replies.
func (c *client) start() *client {
	go func() {
		err := c.receive()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.err = err
		for _, a := range c.waiting {
			a.err = err
			close(a.done)
		}
		c.waiting = nil
	}()
	return c
}

func (c *client) receive() error {
	b := make([]byte, structuredSize)
	for {
		if _, err := io.ReadFull(c.nc, b[:simpleSize]); err != nil {
			return err
		}
		c.mu.Lock()
		a := c.waiting[be.Uint64(b[8:])]
		c.mu.Unlock()
		if a == nil {
			return fmt.Errorf("reply to an unknown command: %x", b)
		}
		done, err := true, error(nil)
		switch be.Uint32(b) {
		case magicSimple:
			a.err = clientError(be.Uint32(b[4:]))
			if a.err == nil {
				if c.structured && a.data != nil {
					return errors.New("simple reply to a read")
				}
				_, err = io.ReadFull(c.nc, a.data)
				a.got = len(a.data)
			}
		case magicStructured:
			if _, err := io.ReadFull(c.nc, b[simpleSize:]); err != nil {
				return err
			}
			done = be.Uint16(b[4:])&replyFlagDone != 0
			err = c.chunk(a, be.Uint16(b[6:]), int(be.Uint32(b[16:])))
		default:
			err = fmt.Errorf("magic %x", b)
		}
		if err != nil {
			return err
		}
		if done {
			if a.err == nil && a.got != len(a.data) {
				return fmt.Errorf("%d bytes of %d", a.got, len(a.data))
			}
			c.mu.Lock()
			delete(c.waiting, be.Uint64(b[8:]))
			c.mu.Unlock()
			close(a.done)
		}
	}
}

func (c *client) chunk(a *answer, kind uint16, n int) error {
	b := make([]byte, min(n, 8))
	if _, err := io.ReadFull(c.nc, b); err != nil {
		return err
	}
	switch {
	case kind == replyTypeError && n == 6:
		a.err = clientError(be.Uint32(b))
		return nil
	case kind == replyTypeOffsetDat && n > 8:
		at := int64(be.Uint64(b)) - a.off
		if at < 0 || at+int64(n-8) > int64(len(a.data)) {
			return fmt.Errorf("chunk of %d bytes at %d", n-8, at)
		}
		a.got += n - 8
		_, err := io.ReadFull(c.nc, a.data[at:at+int64(n-8)])
		return err
	}
	return fmt.Errorf("chunk of kind %d with %d bytes", kind, n)
}

func clientError(n uint32) error {
	if n == 0 {
		return nil
	}
	return syscall.Errno(n) // the protocol's numbers are Linux's
}

// do carries out one command.
func (c *client) do(kind, flags uint16, off int64, length int, data []byte) error {
	a := &answer{off: off, done: make(chan struct{})}
	if kind == cmdRead {
		a.data = data
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.cookie++
	b := rawCommand(kind, flags, c.cookie, uint64(off), uint32(length))
	if kind == cmdWrite {
		b = append(b, data...)
	}
	c.waiting[c.cookie] = a
	c.mu.Unlock()
	if _, err := c.nc.Write(b); err != nil {
		return err
	}
	<-a.done
	return a.err
}

func rawCommand(kind, flags uint16, cookie, off uint64, length uint32) []byte {
	b := be.AppendUint32(nil, magicRequest)
	b = be.AppendUint16(b, flags)
	b = be.AppendUint16(b, kind)
	b = be.AppendUint64(b, cookie)
	b = be.AppendUint64(b, off)
	return be.AppendUint32(b, length)
}

func (c *client) ReadAt(p []byte, off int64) (int, error) {
	return len(p), c.do(cmdRead, 0, off, len(p), p)
}

func (c *client) WriteAt(p []byte, off int64) (int, error) {
	return len(p), c.do(cmdWrite, 0, off, len(p), p)
}

func (c *client) WriteFUA(p []byte, off int64) error {
	return c.do(cmdWrite, cmdFlagFUA, off, len(p), p)
}
func (c *client) Flush() error                   { return c.do(cmdFlush, 0, 0, 0, nil) }
func (c *client) Discard(off, n int64) error     { return c.do(cmdTrim, 0, off, int(n), nil) }
func (c *client) WriteZeroes(off, n int64) error { return c.do(cmdWriteZeroes, 0, off, int(n), nil) }
func (c *client) Size() (int64, error)           { return int64(c.size), nil }
func (c *client) Close() error {
	c.nc.Write(rawCommand(cmdDisconnect, 0, 0, 0, 0))
	return c.nc.Close()
}

// pair makes a socket pair, whose ends are as those of unix sockets.
func pair(t testing.TB) (server, peer net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return ends[0], ends[1]
}
