package disk

import (
	"syscall"
	"time"
)

// Back-off of a disk that is busy.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
)

// backoff is a pause in which a disk is sent nothing new.
type backoff struct {
	on    bool
	told  bool // the log knows
	next  time.Duration
	timer timer
}

// timer is a *time.Timer, or its like in simulated time.
type timer interface {
	Reset(time.Duration) bool
	Stop() bool
}

// pause begins a pause, if there is none. The lock is held.
func (d *Disk) pause() {
	w := &d.wait
	if w.on {
		return
	}
	w.next = min(max(2*w.next, firstPause), lastPause)
	w.on = true
	w.timer.Reset(d.set.jitter(w.next))
}

// unpause is the timer's.
func (d *Disk) unpause() {
	d.mu.Lock()
	d.wait.on = false
	d.leave(d.batch())
}

// hold stops sending; nexus is the number of the one that is up now, or 0. It
// returns when no goroutine is handing commands to the session any more, so that
// none of those made before can reach a nexus that comes after.
func (d *Disk) hold(nexus uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == gone {
		return
	}
	if d.state == running || nexus != 0 {
		d.state = holding
	}
	d.nexus = nexus
	d.wait.on, d.wait.told, d.wait.next = false, false, 0
	d.wait.timer.Stop()
	d.limit, d.full.good = maxInFlight, 0
	for d.calls > 0 {
		d.quiet.Wait()
	}
}

// doubt returns what resume is to be given after the disk was looked at.
func (d *Disk) doubt() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.doubts
}

// resume sends what was held, if the nexus on which the disk was found to be
// itself is still up, and nothing has made that doubtful since.
func (d *Disk) resume(nexus, doubt uint64) {
	d.mu.Lock()
	if d.nexus == nexus && d.doubts == doubt && d.state != gone {
		d.state = running
	}
	d.leave(d.batch())
}

// fail completes all that waits with EIO, and all that comes as well.
func (d *Disk) fail(s state) {
	d.mu.Lock()
	if d.state == gone {
		d.mu.Unlock()
		return
	}
	d.state = s
	d.wait.on = false
	d.wait.timer.Stop()
	b := d.batch()
	for t := d.again.pop(); t != nil; t = d.again.pop() {
		d.finish(b, t, syscall.EIO)
	}
	for d.queue.head != nil {
		r := d.queue.pop()
		r.Errno = syscall.EIO
		r.Disk.Done = total(r)
		if r.Disk.Pending == 0 {
			d.end(b, r)
		}
	}
	d.leave(b)
}

// drain waits until no command of the disk is with the session.
func (d *Disk) drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.inFlight > 0 || d.calls > 0 {
		d.quiet.Wait()
	}
}

// held reports whether the disk is waiting to be looked at.
func (d *Disk) held() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state == holding
}
