package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"iscsictl/scsi"
	"iscsictl/session"
)

// Bounds of scans.
const (
	maxLUNs    = 16384
	maxNotes   = 64
	firstDelay = time.Second
	lastDelay  = 10 * time.Second
	// grace is for how long a disk that the target does not know any more is
	// held all the same: a target that starts may be there before its disks.
	grace = 5 * time.Second
	// patience is for how long requests are held for a disk that cannot be
	// looked at though the target is there.
	patience = 2 * time.Minute
)

// ask has something looked at in the background.
func (s *Set) ask(d *Disk, w want) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up == 0 || s.closed || w == 0 {
		return // all is looked at when it is up
	}
	if w&wantScan != 0 {
		s.scan = true
	}
	if w&wantCheck != 0 && d != nil && !d.asked && s.disks[d.LUN()] == d {
		d.asked = true
		s.checks = append(s.checks, d)
	}
	s.work()
}

// askLater has a scan made after a while. The lock is held.
func (s *Set) askLater() {
	if s.later != nil || s.up == 0 || s.closed {
		return
	}
	s.delay = min(max(2*s.delay, firstDelay), lastDelay)
	var t *time.Timer
	t = time.AfterFunc(s.jitter(s.delay), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.later == t { // not of a nexus before
			s.later = nil
			s.scan = true
			s.work()
		}
	})
	s.later = t
}

// work starts the worker, if there is none. The lock is held.
func (s *Set) work() {
	if !s.working && !s.closed {
		s.working = true
		go s.worker()
	}
}

// worker does what is asked for until nothing is left.
func (s *Set) worker() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.up != 0 && (s.scan || len(s.checks) > 0) {
		r := round{Set: s, ctx: s.ctx, number: s.up, full: s.scan}
		targets, waiters := s.checks, []chan error(nil)
		if r.full {
			waiters, s.waiters = s.waiters, nil
		}
		s.scan, s.checks = false, nil
		for _, d := range targets {
			d.asked = false
		}
		if r.full {
			targets = s.sorted()
		}
		s.mu.Unlock()
		err := r.run(targets)
		for _, w := range waiters {
			w <- err
		}
		s.mu.Lock()
		if r.later {
			s.askLater()
		} else if r.full {
			s.delay = 0
		}
	}
	s.working = false
	s.idle.Broadcast()
}

// round is one run of the worker.
type round struct {
	*Set
	ctx     context.Context
	number  uint64 // of the nexus
	full    bool   // look for new ones too
	changed bool   // the logical units have changed meanwhile
	later   bool   // something is to be looked at again after a while
	notes   []string
}

// run checks disks, and looks for new ones in a full round.
func (r *round) run(known []*Disk) error {
	if !r.full {
		r.check(known)
		return r.ctx.Err()
	}
	r.check(slices.DeleteFunc(known, r.deselected))
	err := r.find()
	if r.changed && err == nil {
		// Once more only: some targets say so of each scan.
		r.check(r.Disks())
		r.notes = nil
		err = r.find()
	}
	if r.ctx.Err() != nil {
		return session.ErrNexusLost
	}
	if err != nil {
		r.note("%v", err)
		r.later = true
	}
	r.mu.Lock()
	r.Set.notes, r.scanned = r.notes, true
	r.mu.Unlock()
	if !r.later {
		r.events.Scanned()
	}
	return err
}

func (r *round) note(format string, args ...any) {
	if len(r.notes) < maxNotes {
		r.notes = append(r.notes, fmt.Sprintf(format, args...))
	}
}

// look probes logical units, some at a time, and hands on what was found, in order.
func look[T any](r *round, list []T, lun func(T) scsi.LUN, found func(T, *facts, error)) {
	type result struct {
		f   *facts
		err error
	}
	for part := range slices.Chunk(list, laneCount) {
		var results [laneCount]result
		var wg sync.WaitGroup
		for i, t := range part {
			wg.Go(func() {
				results[i].f, results[i].err = r.lanes[i].probe(r.ctx, lun(t))
			})
		}
		wg.Wait()
		if r.ctx.Err() != nil {
			return
		}
		for i, t := range part {
			found(t, results[i].f, results[i].err)
			r.changed = r.changed || r.lanes[i].changed
			r.lanes[i].changed = false
		}
	}
}

// deselected removes a disk that is not among the chosen ones any more, once what
// was written to it is durable.
func (r *round) deselected(d *Disk) bool {
	if r.choose(d.LUN()) {
		return false
	}
	if d.Geometry().WriteCache {
		if _, err := r.lanes[0].call(r.ctx, d.lun, scsi.SynchronizeCache(0, 0), 0); err != nil {
			r.log.Warn("the write cache of a disk that goes could not be flushed", "lun", d.LUN(), "error", err)
		}
	}
	r.remove(d, "the session is not to have it any more")
	return true
}

// check looks at disks that are known: each goes on if it is still itself.
func (r *round) check(known []*Disk) {
	doubts := make(map[*Disk]uint64, len(known))
	for _, d := range known {
		doubts[d] = d.doubt()
	}
	look(r, known, func(d *Disk) scsi.LUN { return d.lun }, func(d *Disk, f *facts, err error) {
		r.checked(d, f, err, doubts[d])
	})
}

func (r *round) checked(d *Disk, f *facts, err error, doubt uint64) {
	switch _, other := errors.AsType[typeError](err); {
	case other:
		r.remove(d, err.Error())
	case missing(err):
		r.missing(d, err)
	case f != nil && !d.id.named(f), err == nil && !d.id.same(f):
		r.remove(d, "it is another disk now")
	case errors.Is(err, errReserved): // its requests fail as the target has it
		d.missed, d.ailing = time.Time{}, time.Time{}
		d.resume(r.number, doubt)
	case err != nil:
		r.ailing(d, err)
	default:
		d.missed, d.ailing = time.Time{}, time.Time{}
		g, changed := d.apply(f)
		d.resume(r.number, doubt)
		if changed {
			r.log.Info("the disk has changed", "lun", d.LUN(), "size", g.Size, "readonly", g.ReadOnly)
			r.events.DiskChanged(d, g)
		}
	}
}

// missing takes in that the target does not know a disk.
func (r *round) missing(d *Disk, err error) {
	if d.missed.IsZero() {
		d.missed = time.Now()
		r.log.Warn("the target does not know the disk any more", "lun", d.LUN(), "error", err)
	}
	if time.Since(d.missed) >= grace {
		r.remove(d, err.Error())
		return
	}
	r.later = true
}

// ailing takes in that a disk cannot be looked at now.
func (r *round) ailing(d *Disk, err error) {
	d.missed = time.Time{}
	r.later = true
	switch {
	case d.ailing.IsZero():
		d.ailing = time.Now()
		r.log.Warn("the disk cannot be looked at; trying again", "lun", d.LUN(), "error", err)
	case time.Since(d.ailing) >= patience && d.held():
		r.log.Error("I/O is failed until the disk can be looked at", "lun", d.LUN(), "error", err)
		d.fail(failing)
	}
}

// remove takes a disk out of the set.
func (r *round) remove(d *Disk, why string) {
	n := d.LUN()
	d.fail(gone)
	r.mu.Lock()
	delete(r.disks, n)
	r.past.Add(d.Stats())
	r.mu.Unlock()
	r.log.Warn("the disk is removed", "lun", n, "reason", why)
	r.note("LUN %d was removed: %s", n, why)
	r.events.DiskRemoved(d)
}

// find asks for logical units and adds those that are new.
func (r *round) find() error {
	list, err := r.list()
	if err != nil {
		return err
	}
	r.changed = false // what was said before is in the list
	var fresh []scsi.LUN
	seen := make(map[uint64]bool, len(list))
	for _, l := range list {
		n := l.Number()
		if seen[n] || l.WellKnown() {
			continue
		}
		seen[n] = true
		r.mu.Lock()
		known := r.disks[n] != nil
		r.mu.Unlock()
		if !known && r.choose(n) {
			fresh = append(fresh, l)
		}
	}
	switch {
	case len(seen) == 0:
		r.note("the target has no LUNs for this initiator")
	case len(fresh) == 0 && len(r.Disks()) == 0:
		r.note("none of the target's %d LUNs is selected", len(seen))
	}
	look(r, fresh, func(l scsi.LUN) scsi.LUN { return l }, r.found)
	if len(r.Disks()) == 0 {
		// A target that is being set up may be there before its logical
		// units, and can tell of them only when it is asked something.
		r.later = true
	}
	return r.ctx.Err()
}

// found adds a disk, or notes why a logical unit is none.
func (r *round) found(l scsi.LUN, f *facts, err error) {
	if err != nil {
		if transient(err) {
			r.later = true
		}
		if _, ok := errors.AsType[typeError](err); ok {
			r.note("LUN %s %v", l, err)
		} else {
			r.note("LUN %s: %v", l, err)
		}
		return
	}
	d := newDisk(r.Set, l, f, r.number)
	r.mu.Lock()
	stale := r.up != r.number || r.closed
	if !stale {
		r.disks[d.LUN()] = d
	}
	r.mu.Unlock()
	if stale {
		return // the next nexus finds it again
	}
	g := d.Geometry()
	r.log.Info("disk found", "lun", d.LUN(), "model", d.Model(), "id", d.Identity(), "size", g.Size, "readonly", g.ReadOnly)
	r.events.DiskAdded(d)
}

// transient reports whether a logical unit may yet become a disk without
// anything being said of it.
func transient(err error) bool {
	e, ok := errors.AsType[*checkError](err)
	return errors.Is(err, errNotReady) || errors.Is(err, errReserved) || errors.Is(err, session.ErrTimedOut) ||
		ok && (e.status == scsi.Busy || e.status == scsi.TaskSetFull || e.status == scsi.ACAActive || e.sense.Key == scsi.UnitAttention)
}
