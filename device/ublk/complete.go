package ublk

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
)

// Complete is device.Queue's.
func (q *queue) Complete(done []*device.Request) {
	q.mu.Lock()
	for _, r := range done {
		c := q.commands[r.Tag]
		if r.Errno != 0 && c.errno == 0 {
			c.errno = r.Errno
		}
		if c.pending--; c.pending == 0 {
			q.put(c)
		}
	}
	ring := q.alarm()
	q.mu.Unlock()
	if ring {
		q.ringBell()
	}
}

// put puts a command on the list for the goroutine. q.mu is held.
func (q *queue) put(c *command) {
	if q.ended {
		q.settle(c)
		return
	}
	c.next = nil
	if q.head == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
}

// settle ends a command that the host waits for no more. q.mu is held.
func (q *queue) settle(c *command) {
	c.release()
	if c.place == orphaned {
		if q.orphans--; q.orphans == 0 {
			q.idle.Broadcast()
		}
	}
	c.place = atHost
}

// feed is the goroutine that waits for memory in the place of the queue's own,
// for one command after the other, so that large ones get their turn too.
func (q *queue) feed() {
	for c := range q.hungry {
		ext, err := q.disk.Arena().Wait(int(c.length), q.dev.failing)
		q.mu.Lock()
		c.ext = ext
		if err != nil {
			c.errno = syscall.EIO
		}
		q.put(c)
		ring := q.alarm()
		q.mu.Unlock()
		if ring {
			q.ringBell()
		}
	}
}

// fail tells the host of all that the disk has that it failed, and has all that
// comes fail. What the disk has keeps its memory until it is done, and its
// tags go on with other commands.
func (q *queue) fail() {
	q.failed = true
	for tag, c := range q.slots {
		if c.place != atDisk {
			continue
		}
		q.mu.Lock()
		c.place = orphaned
		q.orphans++
		q.slots[tag] = newCommand(q, tag, len(q.commands))
		q.commands = append(q.commands, q.slots[tag])
		q.mu.Unlock()
		q.give(ioCommitAndFetch, tag, -int32(unix.EIO))
	}
}

// drained waits until the disk has nothing of the queue any more, which must
// have ended, and returns how many requests it still has when limit is over.
func (q *queue) drained(limit time.Duration) int {
	late := false
	timer := time.AfterFunc(limit, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		late = true
		q.idle.Broadcast()
	})
	defer timer.Stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.orphans > 0 && !late {
		q.idle.Wait()
	}
	return q.orphans
}
