package main

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/session"
)

// paceStep is the least time between two batches of the pacer: waking up more
// often than that costs more than it tells.
const paceStep = 50 * time.Microsecond

// pace sends requests when they are due. Go's timers have a resolution of a
// millisecond when nothing else goes on, so that the thread sleeps for itself.
func (l *load) pace() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Without it a sleep takes 50 µs more; where it fails, it does.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	due := time.Duration(0)
	batch := make([]*session.Command, 0, l.o.depth)
	for {
		now := time.Since(l.zero)
		l.mu.Lock()
		if l.stopped || now >= l.o.time {
			l.stopped = true
			l.leave(1)
			l.mu.Unlock()
			return
		}
		batch = batch[:0]
		for due <= now && len(l.idle) > 0 {
			c := l.idle[len(l.idle)-1]
			l.idle = l.idle[:len(l.idle)-1]
			l.prepare(c.Context.(*request), due)
			batch = append(batch, c)
			due += l.interval
		}
		l.outstanding += len(batch)
		l.mu.Unlock()
		if len(batch) > 0 {
			l.session.Submit(batch)
		}
		if due <= now {
			<-l.wake // all are outstanding
			continue
		}
		l.sleep(min(due, l.o.time), now)
	}
}

// sleep returns at the given time, since the load's start, or a little later.
func (l *load) sleep(until, now time.Duration) {
	t := unix.NsecToTimespec(int64(max(until-now, paceStep)))
	_ = unix.Nanosleep(&t, nil) // woken early, the loop looks again
}
