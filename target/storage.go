package target

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// storage holds the bytes of a logical unit. Offsets and lengths are in bytes
// and were checked against the unit's size by the caller.
type storage interface {
	// view returns bytes at off where they lie: n or fewer, at least one, or
	// nil when they can only be copied out with ReadAt.
	view(off, n int64) []byte
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// zero makes n bytes read as zeroes and gives back their space.
	zero(off, n int64) error
	sync() error
	// resize makes the first size bytes accessible. Bytes beyond are not
	// taken away, as someone may be using them.
	resize(size int64) error
	close() error
}

// memory is storage in a memfd, mapped once for each size that it had: pages
// come into being when they are written, and views of an older mapping stay
// valid until close.
type memory struct {
	data atomic.Pointer[[]byte]

	mu   sync.Mutex
	fd   int
	maps [][]byte
}

func newMemory(size int64) (*memory, error) {
	fd, err := unix.MemfdCreate("iscsi-lun", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	m := &memory{fd: fd}
	if err := m.resize(size); err != nil {
		_ = m.close()
		return nil, err
	}
	return m, nil
}

func (m *memory) view(off, n int64) []byte {
	return (*m.data.Load())[off : off+n]
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return copy(p, m.view(off, int64(len(p)))), nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	return copy(m.view(off, int64(len(p))), p), nil
}

func (m *memory) zero(off, n int64) error {
	page := int64(os.Getpagesize())
	first, last := (off+page-1)/page*page, (off+n)/page*page
	if first >= last {
		clear(m.view(off, n))
		return nil
	}
	clear(m.view(off, first-off))
	clear(m.view(last, off+n-last))
	return punchHole(m.fd, first, last-first)
}

func (m *memory) sync() error { return nil }

func (m *memory) resize(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fd < 0 {
		return os.ErrClosed
	}
	if p := m.data.Load(); p != nil && int64(len(*p)) >= size {
		return nil
	}
	if err := unix.Ftruncate(m.fd, size); err != nil {
		return fmt.Errorf("memory of %v: %w", Size(size), err)
	}
	data, err := unix.Mmap(m.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("memory of %v: %w", Size(size), err)
	}
	m.maps = append(m.maps, data)
	m.data.Store(&data)
	return nil
}

func (m *memory) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fd < 0 {
		return nil
	}
	err := unix.Close(m.fd)
	m.fd = -1
	for _, data := range m.maps {
		err = errors.Join(err, unix.Munmap(data))
	}
	m.maps = nil
	return err
}

// null is storage that reads as one byte repeated and forgets what is written.
type null struct {
	pattern []byte
}

// nullView is the longest view of a null unit in bytes.
const nullView = 1 << 20

func newNull(pattern uint8) *null {
	n := &null{pattern: make([]byte, nullView)}
	if pattern != 0 {
		for i := range n.pattern {
			n.pattern[i] = pattern
		}
	}
	return n
}

func (s *null) view(_, n int64) []byte { return s.pattern[:min(n, nullView)] }

func (s *null) ReadAt(p []byte, _ int64) (int, error) {
	for n := 0; n < len(p); {
		n += copy(p[n:], s.pattern)
	}
	return len(p), nil
}

func (s *null) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (s *null) zero(_, _ int64) error                  { return nil }
func (s *null) sync() error                            { return nil }
func (s *null) resize(int64) error                     { return nil }
func (s *null) close() error                           { return nil }

// file is storage in a regular file or block device.
type file struct {
	f *os.File
}

// openFile opens path, and makes it with size bytes if it does not exist. It
// returns the number of bytes that the file has.
func openFile(path string, size int64, readOnly bool) (*file, int64, error) {
	flags := os.O_RDWR
	switch {
	case readOnly:
		flags = os.O_RDONLY
	case size > 0:
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, 0, err
	}
	have, err := f.Seek(0, 2)
	if err == nil && size > have {
		if readOnly {
			err = fmt.Errorf("%s: has %d bytes, fewer than the size %d", path, have, size)
		} else {
			err = f.Truncate(size)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return &file{f}, max(size, have), nil
}

func (s *file) view(_, _ int64) []byte { return nil }

func (s *file) ReadAt(p []byte, off int64) (int, error)  { return s.f.ReadAt(p, off) }
func (s *file) WriteAt(p []byte, off int64) (int, error) { return s.f.WriteAt(p, off) }

func (s *file) zero(off, n int64) error {
	err := punchHole(int(s.f.Fd()), off, n)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	zeroes := make([]byte, min(n, 1<<20))
	for ; n > 0; n -= int64(len(zeroes)) {
		zeroes = zeroes[:min(n, int64(len(zeroes)))]
		if _, err := s.f.WriteAt(zeroes, off); err != nil {
			return err
		}
		off += int64(len(zeroes))
	}
	return nil
}

func (s *file) sync() error { return s.f.Sync() }

func (s *file) resize(size int64) error {
	have, err := s.f.Seek(0, 2)
	if err != nil || have >= size {
		return err
	}
	return s.f.Truncate(size)
}

func (s *file) close() error { return s.f.Close() }

func punchHole(fd int, off, n int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}
