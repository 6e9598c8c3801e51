package ublk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/block"
	"iscsictl/device/users"
)

// retryTime is between two attempts to take back a device whose daemon is just
// about to end.
const retryTime = 10 * time.Millisecond

// classDir has the devices of the driver, ublkcN for each.
const classDir = "/sys/class/ublk-char"

// Waiting is a device whose daemon has died, and whose users wait.
type Waiting struct {
	ID    int
	Path  string // "ublkb0"
	Size  int64  // bytes
	owner uint64
}

// Of reports whether the device was a target's logical unit.
func (w Waiting) Of(name device.Name) bool { return w.owner == owner(name) }

// Quiesced returns the devices that wait for a daemon to take them back.
func (b *Backend) Quiesced() []Waiting {
	var all []Waiting
	for _, id := range b.foreign() {
		info, err := getInfo(id)
		if err != nil || info.state != stateQuiesced && (info.state != stateLive || alive(int(info.pid))) {
			continue
		}
		w := Waiting{ID: int(id), Path: fmt.Sprintf("ublkb%d", id), owner: info.owner}
		if p, err := getParams(id); err == nil {
			w.Size = int64(p.devSectors) << sectorShift
		}
		all = append(all, w)
	}
	return all
}

// foreign returns the numbers of devices that a daemon of this program has
// made, but not this one.
func (b *Backend) foreign() (ids []uint32) {
	paths, _ := filepath.Glob(classDir + "/ublkc*")
	for _, path := range paths {
		n, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(path), "ublkc"), 10, 31)
		if err != nil || b.devices.Has(int(n)) {
			continue
		}
		if info, err := getInfo(uint32(n)); err == nil && info.owner>>32 == ownerMagic {
			ids = append(ids, uint32(n))
		}
	}
	slices.Sort(ids)
	return ids
}

// alive reports whether a process is there and not just not yet waited for.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// After the name, which may have any character, comes the state.
	at := strings.LastIndex(string(b), ") ")
	return at >= 0 && !strings.ContainsAny(string(b[at+2:min(at+3, len(b))]), "ZX")
}

// TakeBack takes back a device that a daemon has left that died: as soon as the
// driver is through with that one. The requests that it had come again, so that
// nothing of it may be under way any more at the disk. Where the disk has
// changed meanwhile, the caller has to Update.
//
// Where that fails the device goes on to wait.
func (b *Backend) TakeBack(ctx context.Context, id int, disk device.Disk, name device.Name) (device.Device, error) {
	if id < 0 || int64(id) >= noID {
		return nil, fmt.Errorf("ublk: there is no device %d", id)
	}
	geo := disk.Geometry()
	if err := check(geo, disk.Arena()); err != nil {
		return nil, err
	}
	if _, err := probe(); err != nil {
		return nil, err
	}
	if err := b.devices.Claim(name); err != nil {
		return nil, fmt.Errorf("ublk: %w", err)
	}
	d := newDevice(b, disk, name)
	d.id, d.exists = uint32(id), true
	if err := d.takeBack(ctx, geo); err != nil {
		d.abandon()
		return nil, fmt.Errorf("ublk: taking back %s: %w", d.Path(), err)
	}
	return d, nil
}

func (d *Device) takeBack(ctx context.Context, geo device.Geometry) error {
	if d.backend.devices.Has(int(d.id)) {
		return errors.New("it is in service")
	}
	info, p, err := d.look(geo)
	if err != nil {
		return err
	}
	d.flags = info.flags
	d.take(p, geo)
	if err := d.beginRecovery(ctx); err != nil {
		return err
	}
	if err := d.openChar(ctx); err != nil {
		return err
	}
	if err := d.startQueues(int(info.queues), int(info.depth)); err != nil {
		return err
	}
	if err := plain("END_USER_RECOVERY", cmdEndUserRecovery, d.id, uint64(os.Getpid())); err != nil {
		return err
	}
	d.backend.devices.Add(int(d.id))
	d.tune()
	return nil
}

// look returns what the driver has of a device, where it is the disk's.
func (d *Device) look(geo device.Geometry) (info devInfo, p params, err error) {
	if info, err = getInfo(d.id); err != nil {
		if errors.Is(err, unix.ENODEV) {
			err = errors.New("there is no such device any more")
		}
		return info, p, err
	}
	if p, err = getParams(d.id); err != nil {
		return info, p, err
	}
	arenaSize := d.disk.Arena().Size()
	switch {
	case info.owner != owner(d.name):
		err = fmt.Errorf("it is not LUN %d of %s", d.name.LUN, d.name.Target)
	case info.state == stateDead:
		err = errors.New("it was stopped")
	case info.flags&featUserRecovery == 0, info.flags&featUserCopy == 0:
		err = errors.New("it was not made to be taken back")
	case p.types&typeBasic == 0, 1<<p.logicalShift != geo.LogicalBlock:
		err = fmt.Errorf("the disk has now a logical block of %d bytes instead of %d", geo.LogicalBlock, 1<<p.logicalShift)
	case p.whole() > maxBuffer || p.whole() > arenaSize/2:
		err = fmt.Errorf("its requests of %d bytes need a larger arena than one of %d", p.whole(), arenaSize)
	case info.depth == 0 || info.depth > maxDepth || info.queues == 0:
		err = fmt.Errorf("the driver says that it has %d queues of %d", info.queues, info.depth)
	}
	return info, p, err
}

// beginRecovery waits until the driver is through with the daemon before.
func (d *Device) beginRecovery(ctx context.Context) error {
	for {
		err := plain("START_USER_RECOVERY", cmdStartUserRecovery, d.id, 0)
		if err == nil {
			return nil
		}
		info, infoErr := getInfo(d.id)
		switch {
		case infoErr != nil:
			return infoErr
		case errors.Is(err, unix.EINVAL) && info.state == stateQuiesced:
			// A daemon got this far, and died before it took the
			// first tag: the driver has no queue to take back.
			return nil
		case !errors.Is(err, unix.EBUSY):
			return err
		}
		select {
		case <-ctx.Done():
			if info.state == stateLive && alive(int(info.pid)) {
				return fmt.Errorf("it is served by process %d: %w", info.pid, ctx.Err())
			}
			return fmt.Errorf("the driver is not through with the daemon before: %w", ctx.Err())
		case <-time.After(retryTime):
		}
	}
}

// Remove takes away a device that waits to be taken back. What its users wait
// for fails. Where it is in use it stays, with an error that is
// device.ErrInUse and its users, but with force.
func (b *Backend) Remove(id int, force bool) ([]device.User, error) {
	at := slices.IndexFunc(b.Quiesced(), func(w Waiting) bool { return w.ID == id })
	if at < 0 {
		return nil, fmt.Errorf("ublk: no device ublkb%d waits to be taken back", id)
	}
	d := newDevice(b, nil, device.Name{})
	d.id, d.exists = uint32(id), true
	// Opening it could wait for ever.
	if found := users.Find(d.Path()); len(found) > 0 && !force {
		return found, fmt.Errorf("ublk: %s: %w", d.Path(), device.ErrInUse)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- plain("STOP_DEV", cmdStopDev, d.id, 0) }()
	err, ended := block.Wait(stopped, b.step)
	if !ended {
		err = errors.New("STOP_DEV does not end")
	}
	if err == nil {
		err = d.remove()
	}
	if err != nil {
		return nil, fmt.Errorf("ublk: removing %s: %w", d.Path(), err)
	}
	return nil, nil
}

// Clean is device.Backend's. It takes away devices that were never started or
// are stopped. Those that wait to be taken back stay: see Quiesced.
func (b *Backend) Clean() []string {
	var lines []string
	for _, id := range b.foreign() {
		info, err := getInfo(id)
		if err != nil || info.state != stateDead || inService(id) {
			continue
		}
		d := newDevice(b, nil, device.Name{})
		d.id = id
		if err := d.remove(); err != nil {
			lines = append(lines, fmt.Sprintf("%s of a daemon that died: %v", d.Path(), err))
			continue
		}
		lines = append(lines, fmt.Sprintf("removed %s of a daemon that died", d.Path()))
	}
	return lines
}

// inService reports whether somebody is about to serve a stopped device.
func inService(id uint32) bool {
	fd, err := unix.Open(fmt.Sprintf("/dev/ublkc%d", id), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Is(err, unix.EBUSY)
	}
	unix.Close(fd)
	return false
}

// number is the device of a path, "ublkb3".
func number(path string) (int, error) {
	digits, ours := strings.CutPrefix(path, "ublkb")
	id, err := strconv.ParseUint(digits, 10, 31)
	if !ours || err != nil {
		return 0, fmt.Errorf("ublk: %q is not the name of a device", path)
	}
	return int(id), nil
}

// Recover is device.Recoverer's: TakeBack by the device's path.
func (b *Backend) Recover(ctx context.Context, path string, disk device.Disk, name device.Name) (device.Device, error) {
	id, err := number(path)
	if err != nil {
		return nil, err
	}
	return b.TakeBack(ctx, id, disk, name)
}

// Discard is device.Recoverer's: Remove by the device's path, also where it is in use.
func (b *Backend) Discard(path string) error {
	id, err := number(path)
	if err != nil {
		return err
	}
	_, err = b.Remove(id, true)
	return err
}

// Waiting is device.Recoverer's: the paths of the devices that Quiesced returns.
func (b *Backend) Waiting() []string {
	var paths []string
	for _, w := range b.Quiesced() {
		paths = append(paths, w.Path)
	}
	return paths
}

// Left is device.Recoverer's.
func (b *Backend) Left(path string, name device.Name) bool {
	id, err := number(path)
	if err != nil || b.devices.Has(id) {
		return false
	}
	info, err := getInfo(uint32(id))
	return err == nil && info.owner == owner(name) && (info.state == stateLive || info.state == stateQuiesced)
}

var _ device.Recoverer = (*Backend)(nil)
