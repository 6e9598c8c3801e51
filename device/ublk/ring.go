package ublk

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What follows is of linux/io_uring.h.
const (
	setupSQE128       = 1 << 10
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
	featSingleMmap    = 1 << 0
	featNoDrop        = 1 << 1
	enterGetEvents    = 1 << 0
	offSQRing         = 0
	offSQEs           = 0x10000000
	uringPollAdd      = 6
	uringRead         = 22
	uringCmd          = 46
)

// sqe is struct io_uring_sqe, to where a command's own data begins.
type sqe struct {
	opcode   uint8
	flags    uint8
	ioprio   uint16
	fd       int32
	off      uint64 // or the command's number, in the lower half
	addr     uint64
	length   uint32
	rwFlags  uint32
	userData uint64
	_        [8]byte
	cmd      [16]byte // 80 bytes where the ring has entries of 128
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// sqOffsets is struct io_sqring_offsets.
type sqOffsets struct {
	head, tail, mask, entries, flags, dropped, array, _ uint32
	_                                                   uint64
}

// cqOffsets is struct io_cqring_offsets.
type cqOffsets struct {
	head, tail, mask, entries, overflow, cqes, flags, _ uint32
	_                                                   uint64
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	_                                                                  [3]uint32
	sq                                                                 sqOffsets
	cq                                                                 cqOffsets
}

// ring is an io_uring, for one goroutine, which has to be locked to its thread
// where the ring was made with setupSingleIssuer. What is queued goes to the
// kernel with the next enter.
type ring struct {
	fd     int
	stride uintptr // bytes of an entry of the submission queue
	rings  []byte  // both rings
	sqes   []byte

	sqHead, sqTail *uint32 // shared with the kernel
	sqMask         uint32
	tail           uint32 // entries before this one are filled

	cqHead, cqTail *uint32
	cqMask         uint32
	cqes           unsafe.Pointer
}

// newRing makes a ring with room for entries submissions.
func newRing(entries int, flags uint32) (*ring, error) {
	p := ringParams{flags: flags}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, setupError(errno)
	}
	r := &ring{fd: int(fd), stride: unsafe.Sizeof(sqe{})}
	if flags&setupSQE128 != 0 {
		r.stride = 128
	}
	if p.features&(featSingleMmap|featNoDrop) != featSingleMmap|featNoDrop {
		r.close()
		return nil, errors.New("io_uring: this kernel's is too old (needs Linux 5.19)")
	}
	if err := r.mmap(&p); err != nil {
		r.close()
		return nil, fmt.Errorf("io_uring: mapping the rings: %w", err)
	}
	return r, nil
}

func setupError(errno unix.Errno) error {
	switch {
	case errors.Is(errno, unix.ENOSYS):
		return fmt.Errorf("io_uring: %w (this kernel has none, or a container's seccomp filter forbids it)", errno)
	case errors.Is(errno, unix.EPERM):
		return fmt.Errorf("io_uring: %w (see the sysctl kernel.io_uring_disabled, and a container's seccomp filter)", errno)
	case errors.Is(errno, unix.ENOMEM):
		return fmt.Errorf("io_uring: %w (see the limit of locked memory, RLIMIT_MEMLOCK)", errno)
	}
	return fmt.Errorf("io_uring: %w", errno)
}

func (r *ring) mmap(p *ringParams) (err error) {
	size := max(int(p.sq.array+p.sqEntries*4), int(p.cq.cqes)+int(p.cqEntries)*int(unsafe.Sizeof(cqe{})))
	const prot, how = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.rings, err = unix.Mmap(r.fd, offSQRing, size, prot, how); err != nil {
		return err
	}
	if r.sqes, err = unix.Mmap(r.fd, offSQEs, int(p.sqEntries)*int(r.stride), prot, how); err != nil {
		return err
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqHead, r.sqTail, r.sqMask = word(p.sq.head), word(p.sq.tail), *word(p.sq.mask)
	r.cqHead, r.cqTail, r.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.mask)
	r.cqes = unsafe.Pointer(&r.rings[p.cq.cqes])
	r.tail = *r.sqTail
	// The indirection is not used: entry i of the queue is always sqes[i].
	for i, array := uint32(0), unsafe.Slice(word(p.sq.array), p.sqEntries); i < p.sqEntries; i++ {
		array[i] = i
	}
	return nil
}

// next returns a new entry of zeroes, or nil where there is no room before the
// next enter.
func (r *ring) next() *sqe {
	if r.tail-atomic.LoadUint32(r.sqHead) > r.sqMask {
		return nil
	}
	at := uintptr(r.tail&r.sqMask) * r.stride
	clear(r.sqes[at : at+r.stride])
	r.tail++
	return (*sqe)(unsafe.Pointer(&r.sqes[at]))
}

// payload returns where the data of a command is, size bytes of which are used.
func (e *sqe) payload() unsafe.Pointer { return unsafe.Pointer(&e.cmd) }

// command makes the entry a command to a file.
func (e *sqe) command(fd int, number uint32, userData uint64) {
	e.opcode, e.fd, e.off, e.userData = uringCmd, int32(fd), uint64(number), userData
}

// enter hands over what is queued and waits for a number of completions. It
// blocks in a system call, which lets other goroutines run meanwhile.
func (r *ring) enter(wait int) error {
	atomic.StoreUint32(r.sqTail, r.tail)
	for {
		submit := r.tail - atomic.LoadUint32(r.sqHead)
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(wait), enterGetEvents, 0, 0)
		switch {
		case errors.Is(errno, unix.EINTR) && wait > 0 && !r.ready():
			continue // a signal of Go's runtime
		case errors.Is(errno, unix.EINTR), errors.Is(errno, unix.EAGAIN), errors.Is(errno, unix.EBUSY):
			return nil // completions have to be taken first
		case errno != 0:
			return fmt.Errorf("io_uring: %w", errno)
		}
		return nil
	}
}

// ready reports whether there are completions to be taken.
func (r *ring) ready() bool { return atomic.LoadUint32(r.cqTail) != *r.cqHead }

// take takes one completion; ok is false where there is none.
func (r *ring) take() (c cqe, ok bool) {
	head := *r.cqHead // only we write it
	if head == atomic.LoadUint32(r.cqTail) {
		return cqe{}, false
	}
	c = *(*cqe)(unsafe.Add(r.cqes, uintptr(head&r.cqMask)*unsafe.Sizeof(cqe{})))
	atomic.StoreUint32(r.cqHead, head+1)
	return c, true
}

func (r *ring) close() {
	if r.sqes != nil {
		unix.Munmap(r.sqes)
	}
	if r.rings != nil {
		unix.Munmap(r.rings)
	}
	unix.Close(r.fd)
	r.sqes, r.rings, r.fd = nil, nil, -1
}
