package ublk

import (
	"syscall"

	"golang.org/x/sys/unix"

	"iscsictl/arena"
	"iscsictl/device"
)

// maxParts is how many of the disk's requests one of the host's may be at a time.
const maxParts = 16

// command is a request of the host: what is behind a tag of a queue. It is its
// queue's goroutine's, but while it waits for memory (the feeder's) and while
// the disk has it.
type command struct {
	queue *queue
	tag   int
	place place
	next  *command // in the queue's list

	op      device.Op
	noUnmap bool
	fua     bool  // its requests have FUA set
	flush   bool  // a flush has to follow
	length  int64 // bytes
	from    int64 // what is not yet handed out begins here
	end     int64
	ext     arena.Extent

	errno   syscall.Errno
	pending int // requests that the disk has
	reqs    []device.Request
	ptrs    []*device.Request
}

// place says who has a command.
type place uint8

const (
	atHost   place = iota // there is no request
	atFeeder              // waits for memory
	atDisk                // with the disk
	orphaned              // with the disk, and the host was told that it failed
)

// newCommand makes a command that the queue finds by number.
func newCommand(q *queue, tag, number int) *command {
	c := &command{queue: q, tag: tag}
	c.grow(1, number)
	return c
}

// grow makes room for n requests.
func (c *command) grow(n, number int) {
	c.reqs = make([]device.Request, n)
	c.ptrs = make([]*device.Request, n)
	for i := range c.reqs {
		c.reqs[i].Queue, c.reqs[i].Tag = c.queue, uint64(number)
		c.ptrs[i] = &c.reqs[i]
	}
}

// set makes a command of what the driver says; the error is the host's.
func (c *command) set(opFlags, sectors uint32, start uint64, l *limits, whole int) syscall.Errno {
	c.length = int64(sectors) << sectorShift
	c.from, c.errno, c.flush, c.fua, c.noUnmap = int64(start<<sectorShift), 0, false, false, false
	c.end = c.from + c.length
	switch opFlags & opMask {
	case opRead:
		c.op = device.Read
	case opWrite:
		c.op = device.Write
	case opFlush:
		c.op, c.flush, c.from, c.end = device.Flush, true, 0, 0
		return 0
	case opDiscard:
		c.op = device.Discard
	case opWriteZeroes:
		c.op, c.noUnmap = device.WriteZeroes, opFlags&flagNoUnmap != 0
	default:
		return syscall.EOPNOTSUPP
	}
	if start > 1<<(63-sectorShift)-1 || c.length == 0 || c.end < c.from || c.data() && c.length > int64(whole) {
		return syscall.EINVAL
	}
	// Where the disk has no FUA, a flush that follows does the same; where
	// it has no volatile cache, nothing needs to be done.
	if (opFlags&flagFUA != 0 || l.direct) && (c.op == device.Write || c.op == device.WriteZeroes) && l.WriteCache {
		c.fua, c.flush = l.FUA, !l.FUA
	}
	return 0
}

// data reports whether the command has data.
func (c *command) data() bool { return c.op == device.Read || c.op == device.Write }

// nextRound sets up the next requests to the disk, and reports whether there
// are any.
func (c *command) nextRound(l *limits) bool {
	if c.from < c.end {
		c.split(l)
		return true
	}
	if c.flush {
		c.flush = false
		r := &c.reqs[0]
		r.Op, r.FUA, r.NoUnmap, r.Offset, r.Length, r.Data = device.Flush, false, false, 0, 0, arena.Extent{}
		c.pending = 1
		return true
	}
	return false
}

// split cuts what is left of the command into requests that the disk takes.
// The disk may take less than what the host was told at its attaching.
func (c *command) split(l *limits) {
	most := int64(l.MaxTransfer)
	switch c.op {
	case device.Discard:
		most = l.DiscardMax
	case device.WriteZeroes:
		most = l.ZeroesMax
	}
	if most == 0 { // no longer offered: the disk refuses it
		most = c.length
	}
	block := int64(l.LogicalBlock)
	most = max(most-most%block, block)
	n := int(min((c.end-c.from+most-1)/most, maxParts))
	if len(c.reqs) < n {
		c.grow(n, int(c.reqs[0].Tag))
	}
	first := c.end - c.length // of the command
	for i := range n {
		r := &c.reqs[i]
		r.Op, r.FUA, r.NoUnmap = c.op, c.fua, c.noUnmap
		r.Offset, r.Length = c.from, min(most, c.end-c.from)
		r.Data = arena.Extent{}
		if c.data() {
			r.Data = c.ext.Slice(int(r.Offset-first), int(r.Offset-first+r.Length))
		}
		c.from += r.Length
	}
	c.pending = n
}

// release gives the command's memory back.
func (c *command) release() {
	c.ext.Free()
	c.ext = arena.Extent{}
}

// result is what the driver is told: bytes, or an error.
func (c *command) result() int32 {
	switch {
	case c.errno == 0 && c.data():
		return int32(c.length)
	case c.errno == 0:
		return 0
	case c.errno == unix.EAGAIN || c.errno >= 4096: // what the host must not see
		return -int32(unix.EIO)
	}
	return -int32(c.errno)
}

// fetchData copies the data of a write from the host.
func (c *command) fetchData() syscall.Errno {
	return copyAll(unix.Pread, c.queue.char, c.ext.Bytes(), dataPos(c.queue.id, c.tag))
}

// storeData copies the data of a read to the host.
func (c *command) storeData() syscall.Errno {
	return copyAll(unix.Pwrite, c.queue.char, c.ext.Bytes(), dataPos(c.queue.id, c.tag))
}

func copyAll(transfer func(int, []byte, int64) (int, error), fd int, p []byte, pos int64) syscall.Errno {
	for len(p) > 0 {
		n, err := transfer(fd, p, pos)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return syscall.EIO
		}
		p, pos = p[n:], pos+int64(n)
	}
	return 0
}
