package loop

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/devicetest"
	"iscsictl/device/users"
)

const (
	blkDiscard   = 0x1277
	blkZeroOut   = 0x127f
	blkGetSize64 = 0x80081272
)

// backend makes a back-end, or skips the test where there can be none.
func backend(t testing.TB) *Backend {
	t.Helper()
	b := New(t.TempDir(), nil)
	b.step = time.Second
	if err := b.Probe(); err != nil {
		t.Skip("SKIP:", err)
	}
	return b
}

// file is a client of a block device, past the page cache.
type file struct{ fd int }

func open(path string, flags int) (*file, error) {
	fd, err := unix.Open(path, flags|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		fd, err = unix.Open(path, flags&^unix.O_ACCMODE|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	}
	return &file{fd}, err
}

func (f *file) ReadAt(p []byte, off int64) (int, error)  { return unix.Pread(f.fd, p, off) }
func (f *file) WriteAt(p []byte, off int64) (int, error) { return unix.Pwrite(f.fd, p, off) }
func (f *file) Flush() error                             { return unix.Fsync(f.fd) }
func (f *file) Close() error                             { return unix.Close(f.fd) }

func (f *file) WriteFUA(p []byte, off int64) error {
	_, err := unix.Pwritev2(f.fd, [][]byte{p}, off, unix.RWF_DSYNC)
	return err
}

func (f *file) ioctl(request uintptr, p unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), request, uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}

func (f *file) Discard(off, n int64) error {
	return f.ioctl(blkDiscard, unsafe.Pointer(&[2]uint64{uint64(off), uint64(n)}))
}

func (f *file) WriteZeroes(off, n int64) error {
	return f.ioctl(blkZeroOut, unsafe.Pointer(&[2]uint64{uint64(off), uint64(n)}))
}

func (f *file) Size() (n int64, err error) {
	err = f.ioctl(blkGetSize64, unsafe.Pointer(&n))
	return n, err
}

// aligned returns a buffer for direct I/O.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+4096)
	skip := -uintptr(unsafe.Pointer(&b[0])) & 4095
	return b[skip : int(skip)+n : int(skip)+n]
}

func TestConformance(t *testing.T) {
	backend(t)
	devicetest.Run(t, &devicetest.Harness{
		New: func(t *testing.T) device.Backend { return backend(t) },
		Open: func(_ *testing.T, d device.Device) (devicetest.Client, error) {
			return open("/dev/"+d.Path(), unix.O_RDWR|unix.O_EXCL)
		},
		Alloc:      alignedBuffer,
		SeesResize: true,
		ZeroesOnly: true,
	})
}

// newDisk makes a disk in memory that is checked at the test's end.
func newDisk(t testing.TB, geo device.Geometry) *devicetest.Disk {
	t.Helper()
	d, err := devicetest.NewDisk(geo, 32<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// attach attaches a disk for the time of the test, which must leave nothing.
func attach(t testing.TB, b *Backend, disk device.Disk) *Device {
	t.Helper()
	dev, err := b.Attach(context.Background(), disk, device.Name{Session: 1, LUN: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dev.Detach()
		for _, m := range users.Mounts() {
			if filepath.Dir(m.Point) == b.dir {
				t.Errorf("%s is still mounted", m.Point)
			}
		}
		if left, _ := os.ReadDir(b.dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return dev.(*Device)
}

// TestAttachHungDisk: the disk does not answer while the kernel looks for
// partitions. What it has had completes after all is taken back.
func TestAttachHungDisk(t *testing.T) {
	b := backend(t)
	disk := newDisk(t, devicetest.Geometry4M)
	disk.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	dev, err := b.Attach(ctx, disk, device.Name{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("attached: %v, %v", dev, err)
	}
	disk.Resume(syscall.EIO)
	for end := time.Now().Add(10 * time.Second); disk.Arena().InUse() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("memory was not given back")
		}
	}
	attach(t, b, disk) // and nothing is in the way of the next
}

// TestDetachHungDisk: the disk never answers. Detach says so, in time.
func TestDetachHungDisk(t *testing.T) {
	b := backend(t)
	b.step = 200 * time.Millisecond
	disk := newDisk(t, devicetest.Geometry4M)
	dev := attach(t, b, disk)
	f, err := open("/dev/"+dev.Path(), unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	disk.Hold()
	failed := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(alignedBuffer(4096), 0)
		failed <- err
		f.Close()
	}()
	for disk.Held() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := dev.Detach(); err == nil {
		t.Error("nothing is said of the requests that are with the disk")
	} else {
		t.Log(err)
	}
	if err := <-failed; err == nil {
		t.Error("a write that never was succeeded")
	}
	disk.Resume(syscall.EIO)
	for end := time.Now().Add(10 * time.Second); disk.Arena().InUse() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("memory was not given back")
		}
	}
}

func TestBadGeometry(t *testing.T) {
	disk := newDisk(t, devicetest.Geometry4M)
	for name, change := range map[string]func(*device.Geometry){
		"block":    func(g *device.Geometry) { g.LogicalBlock = 520 },
		"8 KiB":    func(g *device.Geometry) { g.LogicalBlock = 8192 },
		"size":     func(g *device.Geometry) { g.Size++ },
		"nothing":  func(g *device.Geometry) { g.Size = 0 },
		"transfer": func(g *device.Geometry) { g.MaxTransfer = 511 },
	} {
		geo := devicetest.Geometry4M
		change(&geo)
		if check(geo, disk.Arena()) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
