package ublk

import (
	"golang.org/x/sys/unix"

	"iscsictl/wait"
)

// watch is a source that the queue's thread waits for besides its requests, by
// polls of one shot each, for what comes in and for room to write.
type watch struct {
	source  wait.Source // nil: given back, and what is here of polls is of no interest
	in, out bool        // a poll is under way
}

// Watch implements wait.Thread.
func (q *queue) Watch(s wait.Source) bool {
	q.mu.Lock()
	if q.ended {
		q.mu.Unlock()
		return false
	}
	q.sources = append(q.sources, s)
	ring := q.alarm()
	q.mu.Unlock()
	if ring {
		q.ringBell()
	}
	return true
}

// adopt takes over the sources that have come. q.mu is held.
func (q *queue) adopt() {
	for _, s := range q.sources {
		*q.vacant() = watch{source: s}
	}
	q.sources = nil
}

// vacant returns a place that is free.
func (q *queue) vacant() *watch {
	for i := range q.watches {
		if w := &q.watches[i]; w.source == nil && !w.in && !w.out {
			return w
		}
	}
	q.watches = append(q.watches, watch{})
	return &q.watches[len(q.watches)-1]
}

// poll has the kernel report what the sources wait for.
func (q *queue) poll() {
	for i := range q.watches {
		w := &q.watches[i]
		if w.source == nil {
			continue
		}
		data := watching | uint64(i)<<1
		if !w.in {
			w.in = true
			q.pollFor(w.source, unix.POLLIN, data)
		}
		if !w.out && w.source.Full() {
			w.out = true
			q.pollFor(w.source, unix.POLLOUT, data|1)
		}
	}
}

func (q *queue) pollFor(s wait.Source, events uint32, data uint64) {
	e := q.entry()
	e.opcode, e.fd, e.rwFlags, e.userData = uringPollAdd, int32(s.FD()), events, data
}

// polled takes in the end of a poll.
func (q *queue) polled(c cqe) {
	w := &q.watches[(c.userData-watching)>>1]
	goesOn := c.res >= 0
	if c.userData&1 != 0 {
		w.out = false
		if goesOn && w.source != nil {
			w.source.Writable()
		}
	} else {
		w.in = false
		goesOn = goesOn && w.source != nil && w.source.Readable()
	}
	if !goesOn && w.source != nil {
		w.source.Return()
		w.source = nil
	}
}

// giveBack gives all sources back; the queue has ended.
func (q *queue) giveBack() {
	for i := range q.watches {
		if s := q.watches[i].source; s != nil {
			q.watches[i].source = nil
			s.Return()
		}
	}
}
