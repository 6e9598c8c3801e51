//go:build linux && cgo && rdma

package verbs

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/wait"
)

// lentMax is how many batches of completions a thread takes in at a time: it has
// other things to do as well.
const lentMax = 8

// bundle is what a thread waits for that a connection is lent to, as one
// descriptor: its completions, and a bell.
type bundle struct {
	epoll, bell int
	rung        atomic.Bool
}

func newBundle(completions int) (*bundle, error) {
	b := &bundle{epoll: -1, bell: -1}
	var err error
	if b.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		b.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	}
	for _, fd := range []int{b.bell, completions} {
		if err == nil {
			err = unix.EpollCtl(b.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN})
		}
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// ring has the thread look.
func (b *bundle) ring() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(b.bell, one[:])
	b.rung.Store(true) // last: a bell that rings, and is not known to, rings on
}

// hush makes the bell silent again.
func (b *bundle) hush() {
	if b.rung.Swap(false) {
		var count [8]byte
		_, _ = unix.Read(b.bell, count[:])
	}
}

func (b *bundle) close() {
	for _, fd := range []int{b.epoll, b.bell} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// interrupt has whoever waits for completions look at the connection. c.mu is held.
func (c *conn) interrupt() {
	if c.lent != nil {
		c.lent.ring()
	}
	c.completions.wake()
}

// Lend implements wait.Lender. A connection that is to spin does so itself.
func (c *conn) Lend(t wait.Thread) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spinTime() > 0 {
		t = nil
	}
	c.wanted = t
	if t != nil && c.lent == nil && !c.ended && c.cause == nil {
		c.completions.wake()
	}
}

// lend lends the connection to who wants it, and returns when it is back, with
// what has ended it. late is what is returned where it was interrupted for its end.
func (c *conn) lend(late error) error {
	c.mu.Lock()
	thread := c.wanted
	c.wanted = nil
	switch {
	case c.ended || c.cause != nil && thread == nil:
		c.mu.Unlock()
		return late
	case c.cause != nil: // Lend may have cut the lingering short
		c.completions.until(time.Now().Add(lingerTime))
		c.mu.Unlock()
		return nil
	}
	var err error
	if thread != nil {
		c.lent, err = newBundle(int(c.memory.completion_fd))
	}
	if thread == nil || err != nil { // without a descriptor to be had, it goes on as it was
		c.completions.until(time.Time{})
		c.mu.Unlock()
		return nil
	}
	c.completions.close()
	c.lent.ring() // what there is may have been left, and then makes no event
	c.mu.Unlock()
	if thread.Watch(c) {
		<-c.back
	}
	return c.takeBack()
}

// takeBack has the netpoller watch the completions again.
func (c *conn) takeBack() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lent.close()
	c.lent = nil
	ended := c.lentErr
	c.lentErr = nil
	own, err := newChannel(int(c.memory.completion_fd), "completions", c.drain)
	if err != nil {
		return err
	}
	c.completions = own
	switch {
	case c.ended || c.wanted != nil:
		own.wake()
	case c.cause != nil:
		own.until(time.Now().Add(lingerTime))
	}
	return ended
}

// FD implements wait.Source.
func (c *conn) FD() int { return c.lent.epoll }

// Readable implements wait.Source.
func (c *conn) Readable() bool {
	c.lent.hush()
	for range lentMax {
		c.mu.Lock()
		over := c.ended || c.cause != nil
		c.mu.Unlock()
		if over {
			return false
		}
		some, err := c.drain()
		if some {
			err = c.deliver()
		}
		if err != nil {
			c.lentErr = err
			return false
		}
		if !some {
			return true
		}
	}
	c.lent.ring() // the completions make no event before they are all taken
	return true
}

// Full implements wait.Source.
func (c *conn) Full() bool { return false }

// Writable implements wait.Source.
func (c *conn) Writable() {}

// Return implements wait.Source.
func (c *conn) Return() { c.back <- struct{}{} }
