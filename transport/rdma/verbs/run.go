//go:build linux && cgo && rdma

package verbs

// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"iscsictl/transport/rdma"
)

const (
	// lingerTime is how long completions are waited for after the peer has
	// gone, and each of the two ways of ending a queue pair may take.
	lingerTime = 500 * time.Millisecond
	// partingTime is how long a peer that has left is still listened to. Its word
	// comes another way than its last messages, and disconnecting drops what has
	// not been taken in yet: a refused login's answer among it.
	partingTime = 100 * time.Millisecond
	// causeTime is how long the connection manager may take to say why the
	// queue pair has failed.
	causeTime = time.Second
)

// Start implements rdma.Conn.
func (c *conn) Start(h rdma.Handler) {
	c.handlers.Set(h)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started = true
	if c.ended { // Close sees to the end, or has done so
		go func() {
			<-c.over
			h.Closed(c.cause)
		}()
		return
	}
	go c.attend()
	go func() {
		c.Flush() // what was posted before
		c.run()
	}()
}

// Handover implements rdma.Conn.
func (c *conn) Handover(h rdma.Handler) { c.handlers.Set(h) }

// Close implements rdma.Conn.
func (c *conn) Close(err error) {
	if err == nil {
		err = rdma.ErrClosed
	}
	c.mu.Lock()
	already, started := c.ended, c.started
	c.endLocked(err)
	c.mu.Unlock()
	if !already && !started {
		close(c.attended)
		c.finish()
		C.vb_free(c.h.c)
		close(c.over)
	}
}

// endLocked ends the connection, unless it has ended: run sees to it.
func (c *conn) endLocked(err error) {
	if c.cause == nil {
		c.cause = err
	}
	if !c.ended {
		c.ended = true
		close(c.ending)
	}
	c.interrupt()
}

// attend looks after the connection manager's events.
func (c *conn) attend() {
	defer close(c.attended)
	for {
		e, err := c.h.next()
		if err != nil { // woken, as it ends
			return
		}
		if err := failure(e); err != nil {
			if errors.Is(err, rdma.ErrDisconnected) {
				c.part(err)
			}
			c.lost(err)
			return
		}
	}
}

// part waits for what a peer that disconnects has sent before.
func (c *conn) part(err error) {
	c.mu.Lock()
	if c.cause == nil {
		c.cause = err
	}
	c.mu.Unlock()
	t := time.NewTimer(partingTime)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.ending:
	}
}

// lost notes that the peer has gone. What has come from it before is still
// delivered: the end is where the queue pair's flushed requests begin.
func (c *conn) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	if c.cause == nil {
		c.cause = err
	}
	_ = C.vb_disconnect(c.h.c)
	if c.lent != nil {
		c.lent.ring() // which ends the lending
	}
	c.completions.until(time.Now().Add(lingerTime))
}

// drain takes what has completed.
func (c *conn) drain() (bool, error) {
	n := C.vb_drain(c.h.c)
	c.taken = int(max(n, 0))
	return n > 0, errno(n)
}

// next waits for completions. To be told of one takes the device an interrupt,
// and this process system calls and the waking of a thread: it may be worth
// looking for a while before.
func (c *conn) next() error {
	for began, most := time.Now(), c.spinTime(); most > 0; {
		if some, err := c.poll(); some || err != nil {
			return err
		}
		if time.Since(began) > most || c.isEnding() {
			break
		}
		runtime.Gosched()
	}
	return c.completions.wait()
}

func (c *conn) spinTime() time.Duration {
	if c.spin == nil {
		return 0
	}
	return c.spin()
}

func (c *conn) isEnding() bool {
	select {
	case <-c.ending:
		return true
	default:
		return false
	}
}

// poll takes what has completed, and has the next completion told of as little as
// it was before.
func (c *conn) poll() (bool, error) {
	n := C.vb_poll(c.h.c)
	c.taken = int(max(n, 0))
	return n > 0, errno(n)
}

// run delivers completions until the connection ends, and ends it.
func (c *conn) run() {
	for {
		err := c.next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = c.lend(err)
		} else if err == nil {
			err = c.deliver()
		}
		if errors.Is(err, errFlushed) {
			err = c.whyFlushed()
		}
		c.mu.Lock()
		if err != nil && !c.ended {
			c.endLocked(err)
		}
		ended := c.ended
		c.mu.Unlock()
		if ended {
			break
		}
	}
	c.finish()
	c.handlers.Current().Closed(c.cause)
	C.vb_free(c.h.c)
}

// deliver hands a batch of completions over.
func (c *conn) deliver() (err error) {
	h := c.handlers.Enter()
	for i := range c.done[:c.taken] {
		if c.handlers.Current() != h { // it has handed over
			h.Leave()
			h = c.handlers.Enter()
		}
		d := &c.done[i]
		switch {
		case err != nil: // the rest of the batch is counted only
			c.count(d)
		case d.status != 0:
			err = c.failed(d)
			c.count(d)
		case d.id&C.VB_RECEIVE != 0:
			err = c.received(h, d)
		default:
			err = c.sent(h, uint64(d.id))
		}
	}
	h.Leave()
	return err
}

func (c *conn) received(h rdma.Handler, d *C.struct_vb_done) error {
	slot := int(d.id &^ C.VB_RECEIVE)
	key := rdma.Key(d.invalidated)
	c.mu.Lock()
	c.arrived++
	c.held = false
	if key != 0 {
		c.regions.invalidated(key)
	}
	ended := c.ended
	c.mu.Unlock()
	if ended {
		return nil
	}
	return h.Received(slot, c.receiveSlot(slot)[:d.len], key)
}

// sent ends the requests that are complete with the completion of one of them.
// They are executed in order, and one may stand for those before it; but siw
// completes what follows an RDMA Read before the Read is answered, so that each
// Read has a completion of its own.
func (c *conn) sent(h rdma.Handler, number uint64) error {
	c.mu.Lock()
	c.completed = max(c.completed, number+1)
	c.items[number%uint64(len(c.items))].read = false
	c.mu.Unlock()
	for {
		c.mu.Lock()
		it := c.items[c.head%uint64(len(c.items))]
		if c.ended || c.head == c.completed || it.read {
			c.mu.Unlock()
			return nil
		}
		c.head++
		if it.region != none {
			c.regions.put(it.region)
		}
		c.mu.Unlock()
		if err := h.Done(it.id); err != nil {
			return err
		}
	}
}

var errFlushed = errors.New("verbs: the queue pair has failed")

// failed says what is wrong where a request was not successful.
func (c *conn) failed(d *C.struct_vb_done) error {
	what := "a request of ours"
	if d.id&C.VB_RECEIVE != 0 {
		what = "a message of the peer"
	}
	if d.status == flushed {
		return errFlushed
	}
	return fmt.Errorf("verbs: %s failed: %s (vendor error %#x)", what, C.GoString(C.vb_status_name(d.status)), uint32(d.vendor))
}

// flushed is IBV_WC_WR_FLUSH_ERR: the queue pair had failed before.
const flushed = 5

// whyFlushed waits for the connection manager's word.
func (c *conn) whyFlushed() error {
	late := time.NewTimer(causeTime)
	defer late.Stop()
	select {
	case <-c.attended:
	case <-late.C:
	}
	return rdma.ErrDisconnected // unless there is another cause
}

// finish ends the queue pair, waits until all requests have come back, and takes
// everything down but the slots, which the user may still look at.
func (c *conn) finish() {
	c.mu.Lock()
	for c.posting {
		c.idle.Wait()
	}
	c.mu.Unlock()
	_ = C.vb_disconnect(c.h.c) // it may be disconnected already
	if !c.flush() {
		_ = C.vb_to_error(c.h.c)
		c.flush() // if a device keeps one, it goes with the queue pair
	}
	c.h.events.wake()
	<-c.attended
	unwatchDevice(c)
	c.completions.close()
	C.vb_destroy_queues(c.h.c)
	c.mu.Lock()
	if c.regions != nil {
		c.regions.close()
	}
	c.mu.Unlock()
	c.h.events.close()
	C.vb_destroy(c.h.c)
}

// flush waits until the requests that were posted have come back, or for a while.
func (c *conn) flush() bool {
	c.completions.until(time.Now().Add(lingerTime))
	for c.completed < c.posted || c.arrived < c.receivePosted {
		if c.completions.wait() != nil {
			return false
		}
		for i := range c.done[:c.taken] {
			c.count(&c.done[i])
		}
	}
	return true
}

// count notes that a request has come back that nobody is told of.
func (c *conn) count(d *C.struct_vb_done) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.id&C.VB_RECEIVE != 0 {
		c.arrived++
	} else {
		c.completed = max(c.completed, uint64(d.id)+1)
	}
}
