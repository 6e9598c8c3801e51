package ublk

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/users"
)

const (
	// glanceTime is how long others may have a device open that is to be
	// reserved: udev looks at it whenever somebody has written to it.
	glanceTime = 500 * time.Millisecond
)

// Device is a disk with its ublk device.
type Device struct {
	backend *Backend
	log     *slog.Logger
	disk    device.Disk
	name    device.Name
	id      uint32 // N of /dev/ublkbN
	exists  bool   // the driver has it
	flags   uint64 // of the device, as the driver has granted them
	whole   int    // largest read or write, in bytes
	char    int    // descriptor of /dev/ublkcN, or -1
	queues  []*queue
	limits  atomic.Pointer[limits]

	failing  chan struct{} // closed: the host is told that all fails
	failOnce sync.Once
	once     sync.Once // detaching

	mu        sync.Mutex
	told      params // what the host knows
	exclusive int    // descriptor of Reserve, or -1
}

func newDevice(b *Backend, disk device.Disk, name device.Name) *Device {
	return &Device{backend: b, log: b.log, disk: disk, name: name, id: noID, char: -1, exclusive: -1, failing: make(chan struct{})}
}

// take notes what the host was told, and what the disk is.
func (d *Device) take(p params, geo device.Geometry) {
	d.told, d.whole = p, p.whole()
	d.limits.Store(newLimits(geo, &p))
}

// ID returns the device's number, by which Backend.Recover takes it back.
func (d *Device) ID() int { return int(d.id) }

// Path is device.Device's: "ublkb0".
func (d *Device) Path() string { return fmt.Sprintf("ublkb%d", d.id) }

func (d *Device) node() string { return "/dev/" + d.Path() }

// Outlives is device.Device's.
func (d *Device) Outlives() bool {
	return d.flags&(featUserRecovery|featReissue) == featUserRecovery|featReissue
}

// Update is device.Device's.
func (d *Device) Update(g device.Geometry) error {
	if err := check(g, d.disk.Arena()); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if block := 1 << d.told.logicalShift; g.LogicalBlock != block {
		return fmt.Errorf("ublk: %s: a logical block of %d bytes instead of %d needs the session to be removed and added", d.Path(), g.LogicalBlock, block)
	}
	d.limits.Store(newLimits(g, &d.told))
	return errors.Join(d.resize(g.Size), d.setReadOnly(g.ReadOnly))
}

// resize tells the host of a size. d.mu is held.
func (d *Device) resize(size int64) error {
	sectors := uint64(size) >> sectorShift
	if sectors == d.told.devSectors {
		return nil
	}
	if d.flags&featUpdateSize == 0 {
		return fmt.Errorf("ublk: %s: this kernel's ublk cannot change a size (needs Linux 6.16), from %d to %d bytes: it needs the session to be removed and added",
			d.Path(), d.told.devSectors<<sectorShift, size)
	}
	if err := plain("UPDATE_SIZE", cmdUpdateSize, d.id, sectors); err != nil {
		return fmt.Errorf("ublk: %s: %w", d.Path(), err)
	}
	d.told.devSectors = sectors
	return nil
}

// setReadOnly tells the host of write protection. d.mu is held.
func (d *Device) setReadOnly(on bool) error {
	if d.told.attrs&attrReadOnly != 0 {
		if on {
			return nil
		}
		return fmt.Errorf("ublk: %s: the disk is writable now; the session has to be removed and added for that", d.Path())
	}
	fd, err := openBlock(d.node(), unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := 0
	if on {
		value = 1
	}
	if err := unix.IoctlSetPointerInt(fd, unix.BLKROSET, value); err != nil {
		return fmt.Errorf("ublk: %s: BLKROSET: %w", d.Path(), err)
	}
	return nil
}

func openBlock(path string, mode int) (int, error) {
	fd, err := unix.Open(path, mode|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("ublk: %w", &fs.PathError{Op: "open", Path: path, Err: err})
	}
	return fd, nil
}

// Reserve is device.Device's: the device is opened for exclusive use, which
// fails while it is mounted, is swap, or belongs to another such device.
// Processes that have it open without that are looked for.
func (d *Device) Reserve() ([]device.User, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exclusive >= 0 {
		return nil, nil
	}
	fd, err := openBlock(d.node(), unix.O_RDONLY|unix.O_EXCL)
	if errors.Is(err, syscall.EBUSY) {
		return users.Find(d.Path()), fmt.Errorf("ublk: %s: %w", d.Path(), device.ErrInUse)
	}
	if err != nil {
		return nil, err
	}
	if found := lasting(d.Path()); len(found) > 0 {
		unix.Close(fd)
		return found, fmt.Errorf("ublk: %s: %w", d.Path(), device.ErrInUse)
	}
	// A process that dies closes its descriptors in their order. Closing
	// the device may write to it, which waits until it is taken back, and
	// that in turn for the end of /dev/ublkcN: that has to come first.
	d.exclusive, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, d.char+1)
	unix.Close(fd)
	if err != nil {
		d.exclusive = -1
		return nil, fmt.Errorf("ublk: %w", err)
	}
	return nil, nil
}

// lasting returns the users of a device but for this process, and but for
// those who just look at it.
func lasting(name string) (found []device.User) {
	for end := time.Now().Add(glanceTime); ; time.Sleep(50 * time.Millisecond) {
		found = users.Others(name)
		if len(found) == 0 || time.Now().After(end) {
			return found
		}
	}
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
