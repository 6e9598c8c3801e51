package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"iscsictl/arena"
	"iscsictl/scsi"
	"iscsictl/session"
)

// request is one of the requests of a load. It is used again and again.
type request struct {
	cmd    session.Command
	extent arena.Extent
	unit   *unit
	began  time.Duration // when it was sent or, with a rate, due; since the load's start
}

// load keeps requests outstanding in one session.
type load struct {
	o        *options
	session  *session.Session
	fate     <-chan error // of the session
	requests []request
	interval time.Duration // between requests; 0: each follows upon the end of another
	zero     time.Time     // the start
	ended    chan struct{} // closed when none is outstanding any more
	failed   chan struct{} // is told when err is set

	mu          sync.Mutex
	next        []uint64 // by unit: the LBA that a sequential request begins at
	units       []unit
	outstanding int
	stopped     bool
	err         error
	idle        []*session.Command // with a rate: those that wait to be due
	wake        chan struct{}      // with a rate: one was added to the idle, or the load stops

	latency  histogram
	requestN uint64
	again    uint64 // sent again after BUSY, TASK SET FULL or a unit attention
}

// newLoad makes the requests, with their memory, of session number index.
// failed, of capacity 1, is told of an error.
func newLoad(o *options, n *nexus, units []unit, index int, failed chan struct{}) (*load, error) {
	l := &load{
		o: o, session: n.session, fate: n.fate, failed: failed, units: units, next: make([]uint64, len(units)),
		requests: make([]request, o.depth), ended: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	if o.rate > 0 {
		l.interval = time.Duration(float64(time.Second) * float64(o.sessions) / o.rate)
		l.idle = make([]*session.Command, 0, o.depth)
	}
	for i := range units {
		// Sessions share a unit's blocks out among them.
		step := uint64(o.block / units[i].blockLength)
		l.next[i] = units[i].blocks / uint64(o.sessions) * uint64(index) / step * step
	}
	for i := range l.requests {
		r := &l.requests[i]
		var ok bool
		if r.extent, ok = n.arena.Alloc(o.block); !ok {
			return nil, fmt.Errorf("no memory for %d requests of %d bytes", o.depth, o.block)
		}
		rand.Read(r.extent.Bytes()) // what is written cannot be compressed; never fails
		r.cmd.Issuer, r.cmd.Context = l, r
		r.unit = &units[i%len(units)]
		r.cmd.LUN = uint64(r.unit.lun)
	}
	return l, nil
}

// free gives the memory back. The session must have been closed.
func (l *load) free() {
	for i := range l.requests {
		l.requests[i].extent.Free()
	}
}

// start sends the first requests.
func (l *load) start(zero time.Time) {
	l.zero = zero
	all := make([]*session.Command, len(l.requests))
	for i := range l.requests {
		all[i] = &l.requests[i].cmd
	}
	if l.interval > 0 {
		l.idle = append(l.idle, all...)
		l.outstanding = 1 // the pacer itself
		go l.pace()
		return
	}
	l.outstanding = len(all)
	for i := range l.requests {
		l.prepare(&l.requests[i], 0)
	}
	l.session.Submit(all)
}

// stop ends the load once what is outstanding has ended.
func (l *load) stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	notify(l.wake)
}

// halt ends the load because of an error. The lock is held.
func (l *load) halt(err error) {
	if l.err == nil {
		l.err = err
	}
	l.stopped = true
	notify(l.failed)
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// failure returns why the load ended before its time. A connection's commands are
// completed before its end is told of, which is waited for.
func (l *load) failure() error {
	l.mu.Lock()
	err := l.err
	l.mu.Unlock()
	if errors.Is(err, session.ErrNexusLost) {
		return fmt.Errorf("the connection was lost: %s", session.Text(<-l.fate))
	}
	return err
}

// Complete implements session.Issuer: what has ended is counted, and sent again
// as another request. It allocates nothing.
func (l *load) Complete(done []*session.Command) {
	now := time.Since(l.zero)
	l.mu.Lock()
	for _, c := range done {
		l.count(c, now)
	}
	if now >= l.o.time {
		l.stopped = true
	}
	if l.interval > 0 {
		l.idle = append(l.idle, done...)
	}
	if l.stopped || l.interval > 0 {
		l.leave(len(done))
		l.mu.Unlock()
		notify(l.wake)
		return
	}
	for _, c := range done {
		l.prepare(c.Context.(*request), now)
	}
	l.mu.Unlock()
	l.session.Submit(done)
}

// leave notes that n are not outstanding any more. The lock is held.
func (l *load) leave(n int) {
	if l.outstanding -= n; l.outstanding == 0 {
		close(l.ended)
	}
}

// count takes in how a request has ended. The lock is held.
func (l *load) count(c *session.Command, now time.Duration) {
	err := outcome(c)
	switch {
	case err == nil && c.Residual == 0:
		l.requestN++
		l.latency.add(now - c.Context.(*request).began)
	case err == nil:
		l.halt(fmt.Errorf("%v of LUN %v: %d bytes short", scsi.Opcode(c.CDB[0]), scsi.LUN(c.LUN), c.Residual))
	case passing(c, err):
		l.again++
	case errors.Is(err, session.ErrNexusLost):
		l.halt(err)
	default:
		l.halt(fmt.Errorf("%v of LUN %v: %w", scsi.Opcode(c.CDB[0]), scsi.LUN(c.LUN), err))
	}
}

// prepare makes the next request of r. The lock is held.
func (l *load) prepare(r *request, began time.Duration) {
	r.began = began
	blocks := uint64(l.o.block / r.unit.blockLength)
	write := l.o.mode.writes()
	if l.o.mode == mixed {
		write = mathrand.Uint32N(100) >= mixedReads
	}
	lba := l.place(r.unit, blocks)
	r.cmd.In, r.cmd.Out = r.extent, arena.Extent{}
	if write {
		r.cmd.In, r.cmd.Out = arena.Extent{}, r.extent
		r.cmd.CDB = scsi.Write(lba, uint32(blocks), false)
	} else {
		r.cmd.CDB = scsi.Read(lba, uint32(blocks), false)
	}
}

// place chooses where a request of so many blocks begins.
func (l *load) place(u *unit, blocks uint64) uint64 {
	slots := u.blocks / blocks
	if l.o.mode.random() {
		return mathrand.Uint64N(slots) * blocks
	}
	for i := range l.units {
		if &l.units[i] == u {
			lba := l.next[i]
			if l.next[i] += blocks; l.next[i] > (slots-1)*blocks {
				l.next[i] = 0
			}
			return lba
		}
	}
	return 0
}
