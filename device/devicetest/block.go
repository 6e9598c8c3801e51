package devicetest

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctls of block devices.
const (
	blkDiscard   = 0x1277
	blkZeroOut   = 0x127f
	blkGetSize64 = 0x80081272
)

// Block is a client of a block device, past the page cache.
type Block struct{ *os.File }

// OpenBlock opens a block device: to read, where that is all it allows.
func OpenBlock(path string, flags int) (*Block, error) {
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		f, err = os.OpenFile(path, flags&^unix.O_ACCMODE|unix.O_DIRECT, 0)
	}
	if err != nil {
		return nil, err
	}
	return &Block{f}, nil
}

// Flush is Client's.
func (f *Block) Flush() error { return f.Sync() }

// WriteFUA is Client's.
func (f *Block) WriteFUA(p []byte, off int64) error {
	_, err := unix.Pwritev2(int(f.Fd()), [][]byte{p}, off, unix.RWF_DSYNC)
	return err
}

func (f *Block) ioctl(request uintptr, p unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}

// Discard is Client's.
func (f *Block) Discard(off, n int64) error {
	return f.ioctl(blkDiscard, unsafe.Pointer(&[2]uint64{uint64(off), uint64(n)}))
}

// WriteZeroes is Client's.
func (f *Block) WriteZeroes(off, n int64) error {
	return f.ioctl(blkZeroOut, unsafe.Pointer(&[2]uint64{uint64(off), uint64(n)}))
}

// Size is Client's.
func (f *Block) Size() (n int64, err error) {
	err = f.ioctl(blkGetSize64, unsafe.Pointer(&n))
	return n, err
}

// AlignedBuffer returns a buffer for direct I/O.
func AlignedBuffer(n int) []byte {
	b := make([]byte, n+4096)
	skip := -uintptr(unsafe.Pointer(&b[0])) & 4095
	return b[skip : int(skip)+n : int(skip)+n]
}
