package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"iscsictl/control"
	"iscsictl/device"
	"iscsictl/disk"
)

// Devices of back-ends that can do so outlive the daemon. What is here takes
// them back when a daemon has died and another goes on with its state.

// saved returns the devices that go on existing when the daemon dies.
func (v *devices) saved() []savedDevice {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := slices.Clone(v.expected)
	for _, s := range v.shown {
		if s.dev.Outlives() {
			list = append(list, savedDevice{LUN: s.name.LUN, Backend: s.backend, Path: s.dev.Path(), Identity: s.disk.Identity(), Unit: s.unit})
		}
	}
	return list
}

// outlive reports whether there are devices and all of them go on existing when
// the daemon dies.
func (v *devices) outlive() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.shown {
		if !s.dev.Outlives() {
			return false
		}
	}
	return len(v.shown)+len(v.expected) > 0
}

// expect names the devices that an earlier daemon has left for our disks: no
// other session is to make disks of these.
func (v *devices) expect(list []savedDevice) {
	v.expected = list
	for _, left := range list {
		v.e.d.units.claim(left.Unit, path{v: v})
	}
}

// expects reports whether a LUN's device is to be taken back, as that unit.
func (v *devices) expects(lun uint64, unit string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.ContainsFunc(v.expected, func(s savedDevice) bool { return s.LUN == lun && s.Unit == unit })
}

// takeBack gives a disk the device that it had. It reports false where there is
// none: then the disk gets a new one.
func (v *devices) takeBack(ctx context.Context, d *disk.Disk, name device.Name, unit string) bool {
	v.mu.Lock()
	i := slices.IndexFunc(v.expected, func(s savedDevice) bool { return s.LUN == name.LUN })
	if i < 0 {
		v.mu.Unlock()
		return false
	}
	left := v.expected[i]
	v.mu.Unlock()
	forget := func() {
		v.mu.Lock()
		v.expected = slices.DeleteFunc(v.expected, func(s savedDevice) bool { return s == left })
		delete(v.lacks, left.LUN)
		v.mu.Unlock()
		if left.Unit != unit {
			v.e.d.units.release(left.Unit, v)
		}
	}
	r := v.e.d.recoverer(left.Backend)
	// Not what waits: the daemon before may still be dying.
	if r == nil || !r.Left(left.Path, name) {
		v.e.log.Warn(fmt.Sprintf("LUN %d was %s, which is gone", left.LUN, left.Path))
		forget()
		return false
	}
	if left.Identity != d.Identity() {
		v.e.log.Error(fmt.Sprintf("LUN %d was %s and is another disk now; what waits for the old one fails", left.LUN, left.Path))
		forget()
		if err := v.e.d.takeAway(r, left.Path); err != nil {
			v.e.log.Error(err.Error())
		}
		return false
	}
	dev, err := r.Recover(ctx, left.Path, d, name)
	if err != nil {
		v.fail(d, err) // it goes on to wait; a new device would be another
		return true
	}
	forget()
	g := d.Geometry()
	v.show(&shown{disk: d, name: name, dev: dev, backend: left.Backend, linkedAs: name.Target, unit: unit, size: g.Size})
	v.e.log.Info(fmt.Sprintf("LUN %d is %s again, %d bytes in blocks of %d", left.LUN, left.Path, g.Size, g.LogicalBlock))
	v.update(d, g) // it may have changed meanwhile
	return true
}

// missing tells of devices that wait for logical units which the target did not
// have when all of them were looked at: it may be that they come yet.
func (v *devices) missing() {
	v.mu.Lock()
	var news []savedDevice
	for _, left := range v.expected {
		if !v.lacks[left.LUN] && v.failed[left.LUN].why == "" { // what has failed was there
			v.lacks[left.LUN] = true
			news = append(news, left)
		}
	}
	v.mu.Unlock()
	for _, left := range news {
		v.e.log.Warn(fmt.Sprintf("LUN %d was %s, and the target does not have it any more; what waits on it waits until it is there again, or until iscsictl -R --force of session %d takes it away",
			left.LUN, left.Path, v.e.id))
	}
}

// discard takes away the devices that still wait for our disks.
func (v *devices) discard() {
	v.mu.Lock()
	list := v.expected
	v.expected = nil
	v.mu.Unlock()
	for _, left := range list {
		v.e.d.units.release(left.Unit, v)
		if r := v.e.d.recoverer(left.Backend); r != nil {
			if err := v.e.d.takeAway(r, left.Path); err != nil {
				v.e.log.Error(fmt.Sprintf("LUN %d (%s): %v", left.LUN, left.Path, err))
				continue
			}
			v.e.log.Warn(fmt.Sprintf("LUN %d (%s), which was not found again, is taken away", left.LUN, left.Path))
		}
	}
	if len(list) > 0 {
		v.e.d.save()
	}
}

// takeAway takes away a device that waits, with its names.
func (d *Daemon) takeAway(r device.Recoverer, path string) error {
	d.names.Drop(path)
	err := r.Discard(path)
	d.names.Gone(path)
	return err
}

// recoverer returns the back-end of that name, if its devices can be taken back.
func (d *Daemon) recoverer(name string) device.Recoverer {
	for _, b := range d.cfg.Backends {
		if r, ok := b.(device.Recoverer); ok && b.Name() == name {
			return r
		}
	}
	return nil
}

// orphans tells of devices that wait and that no session of ours has had.
func (d *Daemon) orphans() {
	for _, path := range d.waiting() {
		if d.expecting(path) != nil {
			continue
		}
		if !slices.Contains(d.cfg.Discard, path) {
			d.cfg.Log.Warn(fmt.Sprintf("%s waits for an iscsid, and is of no session that this one knows; \"iscsictl -R --device %s\" takes it away, with --force also from those who use it", path, path))
			continue
		}
		if err := d.discard(path); err != nil {
			d.cfg.Log.Error(err.Error())
		}
	}
}

// removeOrphan takes away a device that waits and that no session of ours has had.
func (d *Daemon) removeOrphan(path string, force bool) error {
	all := d.waiting()
	if !slices.Contains(all, path) {
		if len(all) == 0 {
			return control.Errorf(syscall.ESRCH, "no device waits for an iscsid")
		}
		return control.Errorf(syscall.ESRCH, "%s does not wait for an iscsid; what does: %s", path, strings.Join(all, ", "))
	}
	if e := d.expecting(path); e != nil {
		return control.Errorf(syscall.EBUSY, "%s is of session %d to %s, which waits for the target: remove the session", path, e.id, e.name())
	}
	if found := d.usersOf(path); len(found) > 0 && !force {
		return control.Errorf(syscall.EBUSY, "%s is in use (%s): end its use, or use --force", path, list(found))
	}
	return d.discard(path)
}

// waiting returns the devices that wait for a daemon.
func (d *Daemon) waiting() (paths []string) {
	for _, b := range d.cfg.Backends {
		if r, ok := b.(device.Recoverer); ok {
			paths = append(paths, r.Waiting()...)
		}
	}
	return paths
}

// discard takes a device away that waits.
func (d *Daemon) discard(path string) error {
	for _, b := range d.cfg.Backends {
		r, ok := b.(device.Recoverer)
		if !ok || !slices.Contains(r.Waiting(), path) {
			continue
		}
		if err := d.takeAway(r, path); err != nil {
			return err
		}
		d.cfg.Log.Info(fmt.Sprintf("%s, which was of no session, is taken away", path))
	}
	return nil
}

// expecting returns the session that had a device which waits, or nil.
func (d *Daemon) expecting(path string) *entry {
	for _, e := range d.all() {
		if e.find == nil && slices.ContainsFunc(e.devs.saved(), func(s savedDevice) bool { return s.Path == path }) {
			return e
		}
	}
	return nil
}

// Leave tells what does not go on when the process ends without a stop.
func (d *Daemon) Leave() {
	for _, e := range d.all() {
		if e.find == nil {
			e.devs.farewell()
		}
	}
}

// farewell tells which devices end with the process.
func (v *devices) farewell() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.shown {
		if !s.dev.Outlives() {
			v.e.log.Warn(fmt.Sprintf("LUN %d (%s) does not outlive iscsid: its users get I/O errors", s.name.LUN, s.dev.Path()))
		}
	}
}
