package ublk

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/block"
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
	if unit := 1 << d.told.logicalShift; g.LogicalBlock != unit {
		return fmt.Errorf("ublk: %s: a logical block of %d bytes instead of %d needs the session to be removed and added", d.Path(), g.LogicalBlock, unit)
	}
	d.limits.Store(newLimits(g, &d.told))
	if err := errors.Join(d.resize(g.Size), block.SetReadOnly(d.Path(), g.ReadOnly)); err != nil {
		return fmt.Errorf("ublk: %s: %w", d.Path(), err)
	}
	return nil
}

// resize tells the host of a size. d.mu is held.
func (d *Device) resize(size int64) error {
	sectors := uint64(size) >> sectorShift
	if sectors == d.told.devSectors {
		return nil
	}
	if d.flags&featUpdateSize == 0 {
		return fmt.Errorf("this kernel's ublk cannot change a size (needs Linux 6.16), from %d to %d bytes: it needs the session to be removed and added",
			d.told.devSectors<<sectorShift, size)
	}
	if err := plain("UPDATE_SIZE", cmdUpdateSize, d.id, sectors); err != nil {
		return err
	}
	d.told.devSectors = sectors
	return nil
}

// Reserve is device.Device's.
func (d *Device) Reserve() (found []device.User, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exclusive >= 0 {
		return nil, nil
	}
	if d.exclusive, found, err = block.Reserve(d.Path(), d.char); err != nil {
		return found, fmt.Errorf("ublk: %s: %w", d.Path(), err)
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
