package daemon

import (
	"fmt"
	"slices"
	"sync"

	"iscsictl/device"
	"iscsictl/disk"
)

// units knows which session's device a logical unit is, so that a second session
// to it makes no second disk: that is a path to the first, idle until there is
// multipath, and becomes a disk when the first goes away.
//
// A unit is known by its designator (VPD 83). One that is not made to be unique
// in the world (targets are seen that call all their units the same) counts
// for one unit only where the target, the LUN, the serial number and the size
// are the same, too. Two LUNs of one session are two disks in any case.
type units struct {
	mu      sync.Mutex
	of      map[string]*unit
	stopped bool // no path becomes a disk any more
}

type unit struct {
	holder *devices // the session whose device it is
	paths  []path   // further ones, in the order in which they came
}

// path is a disk that has no device, since another session has.
type path struct {
	v    *devices
	disk *disk.Disk
	name device.Name
}

// unitOf returns what a logical unit is known by, or "".
func unitOf(d *disk.Disk, target string) string {
	id, world := d.Identity(), d.IsUnique()
	switch {
	case id == "":
		return ""
	case world:
		return id
	}
	return fmt.Sprintf("%s of %s, LUN %d, serial number %s, %d bytes", id, target, d.LUN(), d.Serial(), d.Geometry().Size)
}

// claim makes a session the holder of a unit, and returns nil; where another is
// that already, the disk becomes a path, and the holder is returned. held says
// that it has to be released.
func (u *units) claim(key string, p path) (other *devices, held bool) {
	if key == "" {
		return nil, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of == nil {
		u.of = map[string]*unit{}
	}
	one := u.of[key]
	switch {
	case one == nil:
		u.of[key] = &unit{holder: p.v}
		return nil, true
	case one.holder == p.v:
		return nil, false // a second LUN, or the device that was expected
	}
	one.paths = append(one.paths, p)
	return one.holder, false
}

// release ends the holding of a unit. The first of its paths becomes its disk.
func (u *units) release(key string, v *devices) {
	if next, ok := u.next(key, v); ok {
		next.v.do(func() { next.v.promote(key, next) })
	}
}

// next makes the first of a unit's paths its holder in place of v.
func (u *units) next(key string, v *devices) (next path, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	one := u.of[key]
	switch {
	case one == nil || one.holder != v:
		return path{}, false
	case len(one.paths) == 0 || u.stopped:
		delete(u.of, key)
		return path{}, false
	}
	next = one.paths[0]
	one.holder, one.paths = next.v, one.paths[1:]
	return next, true
}

// leave takes a disk off the paths.
func (u *units) leave(key string, d *disk.Disk) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if one := u.of[key]; one != nil {
		one.paths = slices.DeleteFunc(one.paths, func(p path) bool { return p.disk == d })
	}
}

// holder returns the session whose device a unit is, or nil.
func (u *units) holder(key string) *devices {
	u.mu.Lock()
	defer u.mu.Unlock()
	if one := u.of[key]; one != nil {
		return one.holder
	}
	return nil
}

// stop has no path become a disk any more.
func (u *units) stop() {
	u.mu.Lock()
	u.stopped = true
	u.mu.Unlock()
}

// asPath notes that a disk is a path to another session's.
func (v *devices) asPath(key string, p path, of *devices) {
	v.mu.Lock()
	v.paths[key] = p
	v.mu.Unlock()
	v.e.log.Info(fmt.Sprintf("LUN %d is the disk of session %d by another way; it is kept idle", p.name.LUN, of.e.id))
}

// promote makes a disk of a path.
func (v *devices) promote(key string, p path) {
	v.mu.Lock()
	there := v.paths[key].disk == p.disk
	if there {
		delete(v.paths, key)
	}
	closed := v.closed
	v.mu.Unlock()
	if !there || closed {
		v.e.d.units.release(key, v)
		return
	}
	v.e.log.Info(fmt.Sprintf("LUN %d is a disk now, as the session that had it is gone", p.name.LUN))
	v.attachAs(p.disk, p.name, key)
}

// leave takes paths off the list: those of one disk, or all.
func (v *devices) leave(d *disk.Disk) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for key, p := range v.paths {
		if d == nil || p.disk == d {
			delete(v.paths, key)
			v.e.d.units.leave(key, p.disk)
		}
	}
}

// deviceOf returns the device of a unit that this session holds, as far as there
// is one.
func (v *devices) deviceOf(key string) (name, backend string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.shown {
		if s.unit == key {
			return s.dev.Path(), s.backend
		}
	}
	for _, left := range v.expected {
		if left.Unit == key {
			return left.Path, left.Backend
		}
	}
	return "", ""
}
