package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"iscsictl/control"
	"iscsictl/device"
	"iscsictl/device/names"
	"iscsictl/disk"
)

const (
	attachTimeout = 30 * time.Second
	// detachTimeout is how long a device that goes may wait for its last
	// requests before they are failed.
	detachTimeout = 5 * time.Second
)

// devices are what the host sees of one session's disks. Attaching and
// detaching take time and do I/O of their own, so that they are done one after
// the other by a goroutine of its own, in the order of the events.
type devices struct {
	e *entry

	attaching names.Disk // the disk for which a device is made; the job's
	announced string     // what that will be called, once it is known

	mu     sync.Mutex
	idle   sync.Cond
	jobs   []func()
	busy   bool
	closed bool // no disk is shown any more
	shown  []*shown
	failed map[uint64]failure // by LUN: what has no device
	paths  map[string]path    // by unit: disks that another session has
	// expected are devices that an earlier daemon has left, whose disks were
	// not found yet.
	expected []savedDevice
	lacks    map[uint64]bool // LUNs of expected that the target did not have
}

// shown is a disk that has a device.
type shown struct {
	disk     *disk.Disk
	name     device.Name
	dev      device.Device
	backend  string
	trouble  string // what the host could not be told
	linkedAs string // target name of the link
	closed   bool   // the disk takes no requests any more
	unit     string // what is released with it, or ""
	size     int64  // that the host was told of last
}

// failure is a disk that has no device.
type failure struct {
	disk *disk.Disk
	why  string
}

func (v *devices) init(e *entry) {
	v.e = e
	v.idle.L = &v.mu
	v.lacks = map[uint64]bool{}
	v.failed, v.paths = map[uint64]failure{}, map[string]path{}
}

// do has a job done after those before it.
func (v *devices) do(job func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.jobs = append(v.jobs, job)
	if !v.busy {
		v.busy = true
		go v.work()
	}
}

func (v *devices) work() {
	for {
		v.mu.Lock()
		if len(v.jobs) == 0 {
			v.busy = false
			v.idle.Broadcast()
			v.mu.Unlock()
			return
		}
		job := v.jobs[0]
		v.jobs = v.jobs[1:]
		v.mu.Unlock()
		job()
	}
}

// count returns how many disks have a device.
func (v *devices) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.shown)
}

// working reports whether there are jobs to be done.
func (v *devices) working() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.busy
}

// wait returns when all jobs are done.
func (v *devices) wait() {
	v.mu.Lock()
	for v.busy {
		v.idle.Wait()
	}
	v.mu.Unlock()
}

// DiskAdded implements disk.Events.
func (v *devices) DiskAdded(d *disk.Disk) {
	v.do(func() {
		if !v.isClosed() {
			v.attach(d)
		}
	})
}

// DiskChanged implements disk.Events.
func (v *devices) DiskChanged(d *disk.Disk, g device.Geometry) { v.do(func() { v.update(d, g) }) }

// DiskRemoved implements disk.Events.
func (v *devices) DiskRemoved(d *disk.Disk) {
	v.do(func() {
		v.mu.Lock()
		if v.failed[d.LUN()].disk == d {
			delete(v.failed, d.LUN())
		}
		v.mu.Unlock()
		v.leave(d)
		if s := v.take(func(s *shown) bool { return s.disk == d }); s != nil {
			s.closed = true
			v.detach(s)
		}
	})
}

// Scanned implements disk.Events.
func (v *devices) Scanned() {
	v.do(func() {
		if !v.isClosed() {
			v.missing()
		}
	})
}

// attach shows a disk, unless another session has it: by the device that it had
// when an earlier daemon died, or by the first back-end that can.
func (v *devices) attach(d *disk.Disk) {
	name := device.Name{Session: v.e.id, LUN: d.LUN(), Target: v.e.target().TargetName, Serial: d.Serial()}
	unit := unitOf(d, name.Target)
	p := path{v, d, name}
	other, held := v.e.d.units.claim(unit, p)
	switch {
	case other != nil:
		v.asPath(unit, p, other)
		return
	case !held && !v.expects(name.LUN, unit):
		unit = "" // another LUN of this session holds it
	}
	v.attachAs(d, name, unit)
}

// attachAs shows a disk whose unit is held, or has none.
func (v *devices) attachAs(d *disk.Disk, name device.Name, unit string) {
	ctx, cancel := context.WithTimeout(v.e.d.ctx, attachTimeout)
	defer cancel()
	if v.takeBack(ctx, d, name, unit) {
		return
	}
	dev, backend, err := v.make(ctx, d, name)
	if err != nil {
		v.fail(d, err)
		v.e.d.units.release(unit, v)
		return
	}
	g := d.Geometry()
	v.show(&shown{disk: d, name: name, dev: dev, backend: backend, linkedAs: name.Target, unit: unit, size: g.Size})
	v.e.log.Info(fmt.Sprintf("LUN %d is %s, %d bytes in blocks of %d", name.LUN, dev.Path(), g.Size, g.LogicalBlock))
}

// show takes a device into the list.
func (v *devices) show(s *shown) {
	if nodePath(s.dev) != s.dev.Path() { // the kernel frees no memory by what goes to a socket
		v.e.reserveMemory()
	}
	v.mu.Lock()
	v.shown = append(v.shown, s)
	slices.SortFunc(v.shown, func(a, b *shown) int { return cmp.Compare(a.name.LUN, b.name.LUN) })
	delete(v.failed, s.name.LUN)
	v.mu.Unlock()
	v.link(s)
	v.e.d.save()
}

// fail notes that a disk has no device, until another attempt is made.
func (v *devices) fail(d *disk.Disk, err error) {
	why := strings.ReplaceAll(err.Error(), "\n", "; ") // of joined errors
	v.mu.Lock()
	v.failed[d.LUN()] = failure{d, why}
	v.mu.Unlock()
	v.e.log.Error(fmt.Sprintf("LUN %d has no device: %s", d.LUN(), why))
}

// retry makes another attempt for the disks that have no device.
func (v *devices) retry() {
	v.do(func() {
		v.mu.Lock()
		failed := v.failed
		v.failed = map[uint64]failure{}
		closed := v.closed
		v.mu.Unlock()
		for _, f := range failed {
			if !closed {
				v.attach(f.disk)
			}
		}
	})
}

// remake has all disks shown anew, by what the session asks for now.
func (v *devices) remake() {
	v.do(func() {
		var gone []shown
		for s := v.take(every); s != nil; s = v.take(every) {
			gone = append(gone, *s)
			s.unit = "" // stays ours
			v.detach(s)
		}
		for _, s := range gone {
			if v.isClosed() {
				v.e.d.units.release(s.unit, v)
				continue
			}
			v.attachAs(s.disk, s.name, s.unit)
		}
	})
	v.retry()
}

// nodePath is the full path of a device.
func nodePath(d device.Device) string {
	if strings.HasPrefix(d.Path(), "/") {
		return d.Path()
	}
	return "/dev/" + d.Path()
}

func (v *devices) update(d *disk.Disk, g device.Geometry) {
	v.mu.Lock()
	i := slices.IndexFunc(v.shown, func(s *shown) bool { return s.disk == d })
	if i < 0 {
		v.mu.Unlock()
		return
	}
	s := v.shown[i]
	v.mu.Unlock()
	err := s.dev.Update(g)
	v.mu.Lock()
	s.trouble = ""
	if err != nil {
		s.trouble = err.Error()
	}
	v.mu.Unlock()
	switch {
	case err != nil:
		v.e.log.Warn(fmt.Sprintf("LUN %d (%s) has changed: %v", s.name.LUN, s.dev.Path(), err))
	case s.size != g.Size:
		s.size = g.Size
		v.e.log.Info(fmt.Sprintf("LUN %d (%s) has now %d bytes", s.name.LUN, s.dev.Path(), g.Size))
	}
}

// take takes the first that matches off the list.
func (v *devices) take(match func(*shown) bool) *shown {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := slices.IndexFunc(v.shown, match)
	if i < 0 {
		return nil
	}
	s := v.shown[i]
	v.shown = slices.Delete(v.shown, i, i+1)
	return s
}

func (v *devices) detach(s *shown) {
	defer v.e.d.units.release(s.unit, v)
	v.unlink(s)
	err := s.dev.Detach()
	if b := block(s.dev.Path()); b != "" {
		v.e.d.names.Gone(b)
	}
	if err != nil {
		v.e.log.Error(fmt.Sprintf("LUN %d (%s): %v", s.name.LUN, s.dev.Path(), err))
		return
	}
	if !s.closed && !flush(s.disk) {
		v.e.log.Warn(fmt.Sprintf("LUN %d (%s): its write cache could not be flushed", s.name.LUN, s.dev.Path()))
	}
	v.e.d.save()
	v.e.log.Info(fmt.Sprintf("LUN %d (%s) removed", s.name.LUN, s.dev.Path()))
}

// flush has the target make durable what was written, as far as that takes no
// longer than detachTimeout.
func flush(d *disk.Disk) bool {
	done := make(flushed, 1)
	r := &device.Request{Op: device.Flush, Queue: done}
	d.Submit([]*device.Request{r})
	select {
	case <-done:
		return r.Errno == 0
	case <-time.After(detachTimeout):
		return false
	}
}

// flushed is the queue of a flush.
type flushed chan struct{}

func (f flushed) Complete([]*device.Request) { f <- struct{}{} }

// clear detaches all, in the background; closed says that the disks take no
// requests any more.
func (v *devices) clear(closed bool) {
	v.do(func() {
		v.leave(nil)
		for s := v.take(every); s != nil; s = v.take(every) {
			s.closed = closed
			v.detach(s)
		}
		v.discard()
	})
}

func every(*shown) bool { return true }

func (v *devices) isClosed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.closed
}

// shut has no disk be shown any more.
func (v *devices) shut() {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
}

// close detaches all and returns when that is done. A disk that is found while
// the session ends is not shown any more.
func (v *devices) close() {
	v.shut()
	v.clear(false)
	v.wait()
}

func anyLUN(uint64) bool { return true }

// reserve keeps new users away from the devices of some LUNs. Where one is in use
// it says by whom, with device.ErrInUse, and nothing is kept.
func (v *devices) reserve(which func(lun uint64) bool) error {
	v.mu.Lock()
	all, left := slices.Clone(v.shown), slices.Clone(v.expected)
	v.mu.Unlock()
	all = slices.DeleteFunc(all, func(s *shown) bool { return !which(s.name.LUN) })
	left = slices.DeleteFunc(left, func(s savedDevice) bool { return !which(s.LUN) })
	for _, s := range left {
		if found := v.e.d.usersOf(s.Path); len(found) > 0 {
			return fmt.Errorf("%w: /dev/%s (%s)", device.ErrInUse, s.Path, list(found))
		}
	}
	for i, s := range all {
		users, err := s.dev.Reserve()
		if err == nil {
			continue
		}
		for _, kept := range all[:i] {
			kept.dev.Release()
		}
		if len(users) == 0 {
			return err
		}
		return fmt.Errorf("%w: %s (%s)", device.ErrInUse, nodePath(s.dev), list(users))
	}
	return nil
}

// release lets new users have the devices of some LUNs.
func (v *devices) release(which func(lun uint64) bool) {
	v.mu.Lock()
	all := slices.Clone(v.shown)
	v.mu.Unlock()
	for _, s := range all {
		if which(s.name.LUN) {
			s.dev.Release()
		}
	}
}

// usersShown bounds how many users of a device are named.
const usersShown = 8

func list(users []device.User) string {
	var names []string
	for i, u := range users {
		if i == usersShown {
			names = append(names, fmt.Sprintf("%d more", len(users)-i))
			break
		}
		if u.PID != 0 {
			names = append(names, fmt.Sprintf("%s (pid %d)", u.What, u.PID))
			continue
		}
		names = append(names, u.What)
	}
	return strings.Join(names, ", ")
}

// list returns what a client is shown.
func (v *devices) list() []control.Device {
	list := append(v.own(), v.others()...)
	slices.SortFunc(list, func(a, b control.Device) int { return cmp.Compare(a.LUN, b.LUN) })
	return list
}

// others are the paths to disks of other sessions.
func (v *devices) others() (list []control.Device) {
	v.mu.Lock()
	paths := maps.Clone(v.paths)
	v.mu.Unlock()
	for key, p := range paths {
		of := v.e.d.units.holder(key)
		if of == nil || of == v {
			continue // becomes one of ours
		}
		if name, backend := of.deviceOf(key); name != "" {
			list = append(list, control.Device{LUN: p.name.LUN, Name: name, Backend: backend, PathOf: of.e.id})
		}
	}
	return list
}

// own are the devices of this session.
func (v *devices) own() []control.Device {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := make([]control.Device, 0, len(v.shown))
	for _, left := range v.expected {
		note := "waits for the target"
		if v.lacks[left.LUN] {
			note = "waits, and the target does not have it any more"
		}
		list = append(list, control.Device{LUN: left.LUN, Name: left.Path, Backend: left.Backend, Outlives: true, Note: note})
	}
	for _, s := range v.shown {
		list = append(list, control.Device{LUN: s.name.LUN, Name: s.dev.Path(), Backend: s.backend, Outlives: s.dev.Outlives(), Note: s.trouble})
	}
	return list
}

// notes says which disks have no device.
func (v *devices) notes() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var notes []string
	for lun, f := range v.failed {
		notes = append(notes, fmt.Sprintf("LUN %d has no device: %s", lun, f.why))
	}
	slices.Sort(notes)
	return notes
}
