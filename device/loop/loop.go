// Package loop shows a disk as a loop device, for kernels that have neither
// ublk nor NBD: the disk is the one file of a FUSE file system, opened for
// direct I/O, with a loop device on it, so that there is a real /dev/loopN.
//
// A request passes from the loop driver to FUSE and from there, through
// package go-fuse, to the disk. Data of reads goes to the kernel straight from
// the arena's extent; data of writes is copied once, from go-fuse's buffer.
//
// The process serves a file system that it uses itself: whatever opens or
// looks at the file, or does I/O on the loop device, must be another goroutine
// than those that serve, and must be bounded where the disk may hang. The way
// out is to abort the FUSE connection, after which all that waits on it fails.
//
// A loop device does not outlive the daemon: its requests fail when the
// daemon dies. Backend.Clean takes the remains away.
package loop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/device/block"
	"iscsictl/device/modules"
)

// DefaultDir is where the FUSE file systems are mounted.
const DefaultDir = "/run/iscsid/loop"

// fileName is the only file of each of these.
const fileName = "disk"

// stepTime bounds each step of detaching where it depends on the disk.
const stepTime = 5 * time.Second

// Backend is the back-end "loop".
type Backend struct {
	dir  string
	log  *slog.Logger
	step time.Duration // stepTime, but in tests

	mu   sync.Mutex
	live map[string]bool // mount points of attached disks
}

// New makes the back-end, with the directory for its mounts. Messages of the
// FUSE library go to log at debug level.
func New(dir string, log *slog.Logger) *Backend {
	return &Backend{dir: filepath.Clean(dir), log: log, step: stepTime, live: make(map[string]bool)}
}

// Name is device.Backend's.
func (b *Backend) Name() string { return "loop" }

// Probe is device.Backend's.
func (b *Backend) Probe() error {
	for _, x := range [...]struct{ node, module string }{{"/dev/fuse", "fuse"}, {"/dev/loop-control", "loop"}} {
		if err := usable(x.node); err != nil {
			needs := modules.Need(x.module)
			if err := usable(x.node); err != nil {
				return fmt.Errorf("loop: not supported: %w (%s)", err, needs)
			}
		}
	}
	if !modules.Admin() {
		return errors.New("loop: mounting needs CAP_SYS_ADMIN: run as root, in a container with that capability")
	}
	return nil
}

func usable(node string) error {
	fd, err := unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: node, Err: err}
	}
	return unix.Close(fd)
}

// Attach is device.Backend's. Where ctx ends first, such as when the disk does
// not answer the kernel's search for partitions, all is taken back.
func (b *Backend) Attach(ctx context.Context, disk device.Disk, name device.Name) (device.Device, error) {
	geo := disk.Geometry()
	if err := check(geo, disk.Arena()); err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, fmt.Sprintf("%d-%d", name.Session, name.LUN))
	if err := b.claim(dir); err != nil {
		return nil, err
	}
	d := &Device{backend: b, dir: dir, files: newDiskFS(disk, geo), number: -1, exclusive: -1}
	if err := d.attach(ctx, geo); err != nil {
		d.Detach()
		return nil, fmt.Errorf("loop: %w", err)
	}
	return d, nil
}

// check returns an error for what a loop device cannot be.
func check(g device.Geometry, a *arena.Arena) error {
	switch unit := g.LogicalBlock; {
	case unit < 512 || unit > arena.PageSize || unit&(unit-1) != 0:
		return fmt.Errorf("loop: a logical block of %d bytes cannot be shown", unit)
	case g.Size <= 0 || g.Size%int64(unit) != 0:
		return fmt.Errorf("loop: a size of %d bytes cannot be shown", g.Size)
	case g.MaxTransfer < unit:
		return fmt.Errorf("loop: largest transfer of %d bytes is less than a block of %d", g.MaxTransfer, unit)
	case a.Size() < 8*arena.PageSize:
		return fmt.Errorf("loop: an arena of %d bytes is too small", a.Size())
	}
	return nil
}

func (b *Backend) claim(dir string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.live[dir] {
		return fmt.Errorf("loop: %s is attached already", dir)
	}
	b.live[dir] = true
	return nil
}

func (b *Backend) unclaim(dir string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.live, dir)
}

// Device is a disk with its mount and its loop device.
type Device struct {
	backend *Backend
	dir     string
	files   *diskFS
	served  chan struct{} // closed when the FUSE server ended; nil before it began
	fuseFD  int
	number  int // of the loop device; -1 where there is none yet

	mu        sync.Mutex
	exclusive int // descriptor of Reserve, or -1
	once      sync.Once
}

func (d *Device) attach(ctx context.Context, geo device.Geometry) error {
	// What is there is a dead daemon's, as the claim to the directory is ours.
	// It goes first: nothing can be asked of a dead mount, not even by MkdirAll.
	clean(func(dir string) bool { return dir == d.dir })
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	if err := d.mount(); err != nil {
		return err
	}
	type outcome struct {
		number int
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		n, err := configure(filepath.Join(d.dir, fileName), geo)
		done <- outcome{n, err}
	}()
	var out outcome
	select {
	case out = <-done:
	case <-ctx.Done():
		d.files.stop()
		abort(d.dir)
		out = <-done // the kernel's I/O has failed
		if out.err == nil {
			out.err = ctx.Err()
		}
	}
	d.number = out.number
	if out.err != nil {
		return out.err
	}
	tune(d.number, geo)
	return nil
}

// Path is device.Device's: "loop0".
func (d *Device) Path() string { return fmt.Sprintf("loop%d", d.number) }

// Outlives is device.Device's.
func (d *Device) Outlives() bool { return false }

// Update is device.Device's.
func (d *Device) Update(g device.Geometry) error {
	old := d.files.geometry()
	if err := check(g, d.files.disk.Arena()); err != nil {
		return err
	}
	if g.LogicalBlock != old.LogicalBlock {
		return fmt.Errorf("loop: %s: a logical block of %d bytes instead of %d needs the session to be removed and added", d.Path(), g.LogicalBlock, old.LogicalBlock)
	}
	d.files.geo.Store(&g)
	if g.Size != old.Size {
		if err := d.resize(g.Size); err != nil {
			return fmt.Errorf("loop: %s: telling the kernel of the new size of %d bytes: %w", d.Path(), g.Size, err)
		}
	}
	if g.ReadOnly != old.ReadOnly {
		if err := block.SetReadOnly(d.Path(), g.ReadOnly); err != nil {
			return fmt.Errorf("loop: %s: %w", d.Path(), err)
		}
	}
	tune(d.number, g)
	return nil
}

// resize has the kernel take in the file's size, and the loop driver the
// kernel's: that driver looks no further in older kernels.
func (d *Device) resize(size int64) error {
	d.files.invalidate()
	var st unix.Statx_t
	path := filepath.Join(d.dir, fileName)
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC, unix.STATX_SIZE, &st); err != nil {
		return err
	}
	if int64(st.Size) != size {
		return fmt.Errorf("the kernel sees %d bytes", st.Size)
	}
	return setCapacity(d.number)
}

// Reserve is device.Device's.
func (d *Device) Reserve() (found []device.User, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exclusive >= 0 {
		return nil, nil
	}
	if d.exclusive, found, err = block.Reserve(d.Path(), d.fuseFD); err != nil {
		return found, fmt.Errorf("loop: %s: %w", d.Path(), err)
	}
	return nil, nil
}

// Release is device.Device's.
func (d *Device) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exclusive >= 0 {
		unix.Close(d.exclusive)
		d.exclusive = -1
	}
}
