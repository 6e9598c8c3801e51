package nbd

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"iscsictl/device"
)

// largePayload is the size of a write from which on the reader takes little
// more than the payload at a time, as that what follows is likely another
// such write, whose payload should not go through the buffer.
const (
	largePayload = 16 << 10
	smallTail    = 512
)

// header is a command as it is on the wire.
type header struct {
	flags, kind uint16
	cookie      uint64
	offset      uint64
	length      uint32
}

// intake reads a connection's commands.
type intake struct {
	c     *conn
	buf   [bufferSize]byte
	r, w  int // buf[r:w] is read and not yet used
	batch []*device.Request

	iov  [2]unix.Iovec
	iovN int
	got  int
	err  error
	read func(fd uintptr) bool
}

func (in *intake) init(c *conn) {
	in.c = c
	in.batch = make([]*device.Request, 0, maxCommands)
	// Made once, so that handing it to RawConn allocates nothing.
	in.read = func(fd uintptr) bool {
		n, _, errno := unix.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&in.iov[0])), uintptr(in.iovN))
		switch {
		case errno == unix.EAGAIN:
			c.submit() // nothing of what came waits for what may come
			return false
		case errno == unix.EINTR:
			in.got = 0
		case errno != 0:
			in.err = fmt.Errorf("nbd: reading: %w", errno)
		case n == 0:
			in.err = io.EOF
		default:
			in.got = int(n)
		}
		return true
	}
}

// run reads commands until the client leaves, which is errLeft or io.EOF.
func (in *intake) run() error {
	for {
		for in.w-in.r >= requestSize {
			if err := in.command(); err != nil {
				return err
			}
		}
		in.c.submit()
		in.r, in.w = 0, copy(in.buf[:], in.buf[in.r:in.w])
		n, err := in.readv(nil, in.buf[in.w:])
		in.w += n
		if err != nil {
			if in.w > 0 && errors.Is(err, io.EOF) {
				err = errors.New("nbd: the connection ended within a command")
			}
			return err
		}
	}
}

// readv reads once, into one slice and then the other.
func (in *intake) readv(first, second []byte) (int, error) {
	in.iovN, in.got, in.err = 0, 0, nil
	for _, b := range [2][]byte{first, second} {
		if len(b) > 0 {
			in.iov[in.iovN].Base = &b[0]
			in.iov[in.iovN].SetLen(len(b))
			in.iovN++
		}
	}
	if err := in.c.raw.Read(in.read); err != nil {
		return 0, fmt.Errorf("nbd: reading: %w", err)
	}
	return in.got, in.err
}

// command takes one command, whose header is in the buffer.
func (in *intake) command() error {
	b := in.buf[in.r:in.w]
	if be.Uint32(b) != magicRequest {
		return fmt.Errorf("nbd: bad magic %#x of a command", be.Uint32(b))
	}
	h := header{
		flags: be.Uint16(b[4:]), kind: be.Uint16(b[6:]), cookie: be.Uint64(b[8:]),
		offset: be.Uint64(b[16:]), length: be.Uint32(b[24:]),
	}
	in.r += requestSize
	l := in.c.export.limits.Load()
	if h.kind == cmdDisconnect {
		return errLeft
	}
	if errno := l.check(h, in.c.structured); errno != 0 {
		return in.refuse(h, errno)
	}
	if h.kind <= cmdWrite && int(h.length) > l.whole {
		return in.large(h, l)
	}
	n := 0
	if h.kind <= cmdWrite {
		n = int(h.length)
	}
	cmd, err := in.c.take(n)
	if err != nil {
		return err
	}
	in.c.set(cmd, h, l)
	if h.kind == cmdWrite {
		if err := in.payload(cmd.ext.Bytes()); err != nil {
			in.c.mu.Lock()
			in.c.release(cmd)
			in.c.mu.Unlock()
			return err
		}
	}
	in.c.add(cmd)
	return nil
}

// check returns 0 for a command that the disk can be asked for, and else what
// it is refused with.
func (l *limits) check(h header, structured bool) syscall.Errno {
	flags := uint16(cmdFlagFUA)
	switch h.kind {
	case cmdRead:
		if structured {
			flags |= cmdFlagDF
		}
		if h.length > uint32(l.whole) && h.flags&cmdFlagDF != 0 {
			return syscall.EOVERFLOW
		}
	case cmdWriteZeroes:
		flags |= cmdFlagNoHole
		if l.ZeroesMax == 0 {
			return syscall.EOPNOTSUPP
		}
	case cmdTrim:
		if l.DiscardMax == 0 {
			return syscall.EOPNOTSUPP
		}
	case cmdFlush:
		if h.flags&^flags != 0 || h.offset != 0 || h.length != 0 {
			return syscall.EINVAL
		}
		return 0
	case cmdWrite:
	default:
		return syscall.EINVAL
	}
	block := uint64(l.LogicalBlock)
	switch {
	case h.flags&^flags != 0, h.length == 0, h.offset%block != 0, uint64(h.length)%block != 0,
		h.kind <= cmdWrite && h.length > maxPayload:
		return syscall.EINVAL
	case l.ReadOnly && h.kind != cmdRead:
		return syscall.EPERM
	case h.offset > uint64(l.Size) || uint64(h.length) > uint64(l.Size)-h.offset:
		if h.kind == cmdRead || h.kind == cmdTrim {
			return syscall.EINVAL
		}
		return syscall.ENOSPC
	}
	return 0
}

// refuse replies with an error to a command that the disk does not see.
func (in *intake) refuse(h header, errno syscall.Errno) error {
	if h.kind == cmdWrite {
		if err := in.skip(int64(h.length)); err != nil {
			return err
		}
	}
	cmd, err := in.c.take(0)
	if err != nil {
		return err
	}
	cmd.op, cmd.cookie, cmd.errno = device.Flush, h.cookie, errno
	if h.kind == cmdRead {
		cmd.op = device.Read
	}
	in.c.reply(cmd)
	return nil
}

// payload reads the data of a write: what the buffer has of it is copied, the
// rest is read to its place.
func (in *intake) payload(p []byte) error {
	n := copy(p, in.buf[in.r:in.w])
	in.r += n
	large := len(p) >= largePayload
	for p = p[n:]; len(p) > 0; {
		in.r, in.w = 0, 0 // the buffer is empty
		tail := in.buf[:]
		if large {
			tail = tail[:smallTail]
		}
		n, err := in.readv(p, tail)
		if err != nil {
			return endedWithin(err)
		}
		used := min(n, len(p))
		p = p[used:]
		in.w = n - used
	}
	return nil
}

// skip reads n bytes for nothing.
func (in *intake) skip(n int64) error {
	used := min(n, int64(in.w-in.r))
	in.r += int(used)
	for n -= used; n > 0; {
		got, err := in.readv(nil, in.buf[:])
		if err != nil {
			return endedWithin(err)
		}
		used := min(n, int64(got))
		in.r, in.w = int(used), got
		n -= used
	}
	return nil
}

func endedWithin(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("nbd: the connection ended within a write")
	}
	return err
}

// set makes a command, and its first requests, of what the wire says.
func (c *conn) set(cmd *command, h header, l *limits) {
	fua := cmd.set(h, l)
	if h.kind == cmdFlush {
		c.nextRound(cmd)
		return
	}
	c.splitWith(cmd, l, fua)
}

// set makes a command of what the wire says, and reports whether its requests
// are to have FUA set.
func (cmd *command) set(h header, l *limits) (direct bool) {
	cmd.cookie = h.cookie
	cmd.from, cmd.end = int64(h.offset), int64(h.offset)+int64(h.length)
	fua := h.flags&cmdFlagFUA != 0
	switch h.kind {
	case cmdRead:
		cmd.op, fua = device.Read, false
	case cmdWrite:
		cmd.op = device.Write
	case cmdTrim:
		cmd.op = device.Discard
	case cmdWriteZeroes:
		cmd.op = device.WriteZeroes
		cmd.noUnmap = h.flags&cmdFlagNoHole != 0
	case cmdFlush:
		cmd.op, cmd.flush = device.Flush, true
		return false
	}
	// Where the disk has no FUA for it, a Flush that follows does the same;
	// where it has no volatile cache, nothing needs to be done.
	direct = fua && l.FUA && cmd.op != device.Discard
	cmd.flush = fua && !direct && l.WriteCache
	return direct
}
