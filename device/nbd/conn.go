package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/arena"
	"iscsictl/device"
)

const (
	// maxCommands is how many commands of one connection may be under way.
	maxCommands = 256
	// bufferSize is how much a connection reads at once.
	bufferSize = 64 << 10
	// sendVectors bounds one vectored write: two for each reply.
	sendVectors = 128
)

// errLeft ends a connection in an orderly way.
var errLeft = errors.New("nbd: the client has left")

// command is one command of a client, from its header to its reply. It becomes
// one or several requests to the disk.
type command struct {
	next   *command // in the free list, or among the replies
	cookie uint64
	op     device.Op
	errno  syscall.Errno
	ext    arena.Extent
	reqs   []device.Request  // the disk's requests of this round
	ptrs   []*device.Request // to these

	pending   int           // requests of this round that are under way
	from, end int64         // Discard, WriteZeroes: what is left for later rounds
	noUnmap   bool          // WriteZeroes
	flush     bool          // a Flush is to follow, for FUA
	round     chan struct{} // told when a round is over, where the reader waits for it

	header  [dataHeaderSize]byte
	headerN int // bytes of the header that are sent
	dataN   int // bytes of the extent that are sent
}

// conn is one connection in transmission phase. It is the device.Queue of its
// requests.
type conn struct {
	export     *Export
	disk       device.Disk
	nc         net.Conn
	raw        syscall.RawConn
	structured bool
	commands   [maxCommands]command
	stop       chan struct{} // closed: nothing more is read
	kick       chan struct{} // capacity 1: the writer has to go on
	wake       chan struct{} // capacity 1: a command was given back
	over       chan struct{} // closed at the end

	in  intake
	out sender

	mu          sync.Mutex
	free        *command
	outstanding int      // commands taken
	held        int      // bytes of memory that these have
	waiting     bool     // the reader wants to be woken
	head, tail  *command // replies to be sent
	sending     bool     // somebody sends; only they take from the replies
	dead        bool     // nothing more can be sent
	draining    bool     // stop is closed
}

func newConn(e *Export, nc net.Conn, structured bool) (*conn, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("nbd: a %T is not a connection of the operating system", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	c := &conn{
		export: e, disk: e.disk, nc: nc, raw: raw, structured: structured,
		stop: make(chan struct{}), kick: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), over: make(chan struct{}),
	}
	for i := range c.commands {
		cmd := &c.commands[i]
		cmd.reqs = make([]device.Request, 1)
		cmd.link(c, i)
		cmd.next, c.free = c.free, cmd
	}
	c.in.init(c)
	c.out.init(c)
	raw.Control(func(fd uintptr) { growSendBuffer(int(fd)) })
	return c, nil
}

// link makes the command's requests its own.
func (cmd *command) link(c *conn, index int) {
	cmd.ptrs = cmd.ptrs[:0]
	for i := range cmd.reqs {
		cmd.reqs[i].Queue, cmd.reqs[i].Tag = c, uint64(index)
		cmd.ptrs = append(cmd.ptrs, &cmd.reqs[i])
	}
}

// growSendBuffer has a socket take as much as may be, so that replies seldom
// need the writer. The plain option's limit is not for a privileged process.
func growSendBuffer(fd int) {
	const size = 1 << 20
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size)
	}
}

// serve reads commands until the client leaves or the export closes, and
// returns when all that were read are done with.
func (c *conn) serve() error {
	go c.out.run()
	err := c.in.run()
	c.submit()
	switch {
	case errors.Is(err, errLeft), errors.Is(err, io.EOF):
		err = nil // the client may yet read its replies
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, arena.ErrStopped), errors.Is(err, errClosed):
		err = nil // drain
	default:
		c.kill()
	}
	c.await(func() bool { return c.outstanding == 0 }, nil)
	close(c.over)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.dead && !c.draining {
		err = errors.New("nbd: the connection broke before all was replied to")
	}
	return err
}

// drain ends the reading of commands.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return
	}
	c.draining = true
	close(c.stop)
	c.nc.SetReadDeadline(time.Unix(1, 0))
	c.nc.SetWriteDeadline(time.Now().Add(c.export.drain)) // for a write that is waiting
}

// kill gives the connection up. Memory of replies that are not being sent is
// given back at once; that of others by the sender, that of requests under way
// when the disk has done with them.
func (c *conn) kill() {
	c.mu.Lock()
	c.dead = true
	mine := !c.sending
	c.sending = true
	c.mu.Unlock()
	c.nc.Close()
	if mine {
		c.out.drop()
	}
}

// take waits for a free command with n bytes of memory, an extent of its own
// where n is not 0.
func (c *conn) take(n int) (*command, error) {
	size := blockFor(n)
	limit := c.export.limits.Load().held
	if !c.tryTake(size, limit) {
		c.submit()
		if !c.await(func() bool { return c.tryTakeLocked(size, limit) }, c.stop) {
			return nil, errClosed
		}
	}
	c.mu.Lock()
	cmd := c.free
	c.free = cmd.next
	c.mu.Unlock()
	cmd.next = nil
	cmd.errno, cmd.pending, cmd.flush, cmd.noUnmap = 0, 0, false, false
	cmd.from, cmd.end = 0, 0
	if n == 0 {
		return cmd, nil
	}
	var ok bool
	if cmd.ext, ok = c.disk.Arena().Alloc(n); ok {
		return cmd, nil
	}
	c.submit()
	var err error
	if cmd.ext, err = c.disk.Arena().Wait(n, c.stop); err != nil {
		c.mu.Lock()
		c.held -= size
		c.recycle(cmd)
		c.mu.Unlock()
		return nil, err
	}
	return cmd, nil
}

func (c *conn) tryTake(size, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tryTakeLocked(size, limit)
}

// tryTakeLocked counts a command of size bytes in, where there is room: always
// for the only one.
func (c *conn) tryTakeLocked(size, limit int) bool {
	if c.outstanding == maxCommands || c.outstanding > 0 && c.held+size > limit {
		return false
	}
	c.outstanding++
	c.held += size
	return true
}

// await waits until cond, which is called with c.mu held, or stop. It is for
// the reader only. It reports whether cond came true.
func (c *conn) await(cond func() bool, stop <-chan struct{}) bool {
	for {
		c.mu.Lock()
		if cond() {
			c.waiting = false
			c.mu.Unlock()
			return true
		}
		c.waiting = true
		c.mu.Unlock()
		select {
		case <-c.wake:
		case <-stop:
			return false
		}
	}
}

// release gives back what a command has. c.mu is held.
func (c *conn) release(cmd *command) {
	c.held -= blockFor(cmd.ext.Len())
	cmd.ext.Free()
	cmd.ext = arena.Extent{}
	c.recycle(cmd)
}

func (c *conn) recycle(cmd *command) {
	cmd.next, c.free = c.free, cmd
	c.outstanding--
	if c.waiting {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// blockFor returns how much of an arena an extent of n bytes takes.
func blockFor(n int) int {
	size := arena.PageSize
	for size < n {
		size <<= 1
	}
	if n == 0 {
		return 0
	}
	return size
}

// Complete is device.Queue's: it takes note of what is done, and replies.
func (c *conn) Complete(done []*device.Request) {
	var again *command
	c.mu.Lock()
	for _, r := range done {
		cmd := &c.commands[r.Tag]
		if r.Errno != 0 && cmd.errno == 0 {
			cmd.errno = r.Errno
		}
		if cmd.pending--; cmd.pending > 0 {
			continue
		}
		if cmd.errno == 0 && c.nextRound(cmd) {
			cmd.next, again = again, cmd
			continue
		}
		c.finish(cmd)
	}
	mine := c.head != nil && !c.sending
	c.sending = c.sending || mine
	c.mu.Unlock()
	for again != nil {
		cmd := again
		again, cmd.next = cmd.next, nil // it may be completed within Submit
		c.disk.Submit(cmd.ptrs[:cmd.pending])
	}
	if mine {
		c.out.try()
	}
}

// nextRound sets up what is left of a command, and reports whether there was
// anything.
func (c *conn) nextRound(cmd *command) bool {
	if cmd.from < cmd.end {
		c.split(cmd)
		return true
	}
	if cmd.flush {
		cmd.flush = false
		cmd.reqs[0].Op, cmd.reqs[0].FUA, cmd.reqs[0].Data = device.Flush, false, arena.Extent{}
		cmd.reqs[0].Offset, cmd.reqs[0].Length = 0, 0
		cmd.pending = 1
		return true
	}
	return false
}

// finish puts a command's reply among those to be sent, or tells the reader.
// c.mu is held.
func (c *conn) finish(cmd *command) {
	if cmd.round != nil {
		cmd.round <- struct{}{}
		return
	}
	if c.dead {
		c.release(cmd)
		return
	}
	c.setReply(cmd)
	cmd.next = nil
	if c.head == nil {
		c.head = cmd
	} else {
		c.tail.next = cmd
	}
	c.tail = cmd
}

// setReply makes the header of a command's reply, and gives back memory whose
// content is not sent.
func (c *conn) setReply(cmd *command) {
	cmd.dataN = 0
	if cmd.op == device.Read && cmd.errno == 0 {
		cmd.dataN = cmd.ext.Len()
	} else if cmd.ext.Len() > 0 {
		c.held -= blockFor(cmd.ext.Len())
		cmd.ext.Free()
		cmd.ext = arena.Extent{}
	}
	switch {
	case cmd.op != device.Read || !c.structured:
		cmd.headerN = putSimple(cmd.header[:], cmd.cookie, cmd.errno)
	case cmd.errno != 0:
		cmd.headerN = putError(cmd.header[:], cmd.cookie, cmd.errno)
	default:
		cmd.headerN = putData(cmd.header[:], cmd.cookie, cmd.reqs[0].Offset, cmd.dataN, true)
	}
}

func putSimple(b []byte, cookie uint64, errno syscall.Errno) int {
	be.PutUint32(b, magicSimple)
	be.PutUint32(b[4:], wireErrno(errno))
	be.PutUint64(b[8:], cookie)
	return simpleSize
}

func putStructured(b []byte, flags, kind uint16, cookie uint64, length int) {
	be.PutUint32(b, magicStructured)
	be.PutUint16(b[4:], flags)
	be.PutUint16(b[6:], kind)
	be.PutUint64(b[8:], cookie)
	be.PutUint32(b[16:], uint32(length))
}

func putError(b []byte, cookie uint64, errno syscall.Errno) int {
	putStructured(b, replyFlagDone, replyTypeError, cookie, errorReplySize-structuredSize)
	be.PutUint32(b[structuredSize:], wireErrno(errno))
	be.PutUint16(b[structuredSize+4:], 0)
	return errorReplySize
}

// putData makes the header of a chunk of n bytes that were read at off.
func putData(b []byte, cookie uint64, off int64, n int, last bool) int {
	var flags uint16
	if last {
		flags = replyFlagDone
	}
	putStructured(b, flags, replyTypeOffsetDat, cookie, 8+n)
	be.PutUint64(b[structuredSize:], uint64(off))
	return dataHeaderSize
}
