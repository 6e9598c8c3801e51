package tcp

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iovMax is the most pieces that the kernel takes in one call (UIO_MAXIOV).
const iovMax = 1024

func iovec(p []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(p)}
	v.SetLen(len(p))
	return v
}

// length is how many bytes a vector has room for.
func length(v []unix.Iovec) (n int) {
	for i := range v {
		n += int(v[i].Len)
	}
	return n
}

// follows reports whether p begins in memory where v ends.
func follows(v unix.Iovec, p []byte) bool {
	// As numbers: a pointer just behind an object is not one that may be made.
	return uintptr(unsafe.Pointer(v.Base))+uintptr(v.Len) == uintptr(unsafe.Pointer(unsafe.SliceData(p)))
}

// The two calls below do not tell the scheduler (RawSyscall): the socket never
// blocks, and handing the processor over during a copy in the kernel, as the
// scheduler otherwise may, has cost a third of the CPU time of small requests.

// writev writes what it can of the vector without blocking and returns the rest.
func writev(fd uintptr, v []unix.Iovec) (rest []unix.Iovec, err error) {
	for len(v) > 0 {
		n, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&v[0])), uintptr(min(len(v), iovMax)))
		switch errno {
		case 0:
			v = advance(v, uint64(n))
		case unix.EINTR:
		default:
			return v, errno
		}
	}
	return nil, nil
}

// advance takes n bytes off the front of the vector.
func advance(v []unix.Iovec, n uint64) []unix.Iovec {
	for len(v) > 0 && n >= v[0].Len {
		n -= v[0].Len
		v = v[1:]
	}
	if n > 0 {
		v[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(v[0].Base), n))
		v[0].Len -= n
	}
	return v
}

var errClosed = errors.New("the target closed the connection")

// readv reads once into the vector's one or two pieces.
func readv(fd uintptr, v []unix.Iovec) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)))
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, errClosed
		default:
			return int(n), nil
		}
	}
}
