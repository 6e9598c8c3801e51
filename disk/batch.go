package disk

import (
	"fmt"
	"time"

	"iscsictl/device"
	"iscsictl/session"
)

// want is what the Set is asked to do for a disk in the background.
type want uint8

const (
	wantCheck want = 1 << iota // ask the logical unit again what it is
	wantScan                   // ask the target for its logical units
)

// batch is what an event leaves to be done without the disk's lock.
type batch struct {
	next *batch
	cmds []*session.Command
	done []*device.Request
	want want
	logs []string
}

// batch returns an empty batch. The lock is held.
func (d *Disk) batch() *batch {
	b := d.batches
	if b == nil {
		return &batch{cmds: make([]*session.Command, 0, 64), done: make([]*device.Request, 0, 64)}
	}
	d.batches, b.next = b.next, nil
	return b
}

// leave ends an event: it sends what can be sent, gives up the lock, and does
// what the batch has.
func (d *Disk) leave(b *batch) {
	d.dispatch(b)
	if len(b.cmds) > 0 {
		d.calls++
		d.mu.Unlock()
		d.set.nexus.Submit(b.cmds)
		d.mu.Lock()
		d.calls--
		if d.calls == 0 {
			d.quiet.Broadcast()
		}
	}
	if len(b.done) > 0 || b.want != 0 || len(b.logs) > 0 {
		d.mu.Unlock()
		deliver(b.done)
		for _, line := range b.logs {
			d.set.log.Warn(line, "lun", d.LUN())
		}
		if b.want != 0 {
			d.set.ask(d, b.want)
		}
		d.mu.Lock()
	}
	clear(b.done)
	b.cmds, b.done, b.want, b.logs = b.cmds[:0], b.done[:0], 0, b.logs[:0]
	b.next, d.batches = d.batches, b
	d.mu.Unlock()
}

// deliver tells each queue of its requests.
func deliver(done []*device.Request) {
	for len(done) > 0 {
		n := 1
		for i := 1; i < len(done); i++ {
			if done[i].Queue == done[0].Queue {
				done[i], done[n] = done[n], done[i]
				n++
			}
		}
		// The requests may be in use again when Complete returns.
		done[0].Queue.Complete(done[:n])
		done = done[n:]
	}
}

// logEvery is how long errors of a disk are not logged after one was.
const logEvery = time.Second

// errorf logs a failed request, at most one in logEvery.
func (d *Disk) errorf(b *batch, format string, args ...any) {
	now := time.Now()
	if now.Before(d.quietLog) {
		return
	}
	d.quietLog = now.Add(logEvery)
	b.logs = append(b.logs, fmt.Sprintf(format, args...))
}
