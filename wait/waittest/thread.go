// Package waittest has a wait.Thread for tests.
package waittest

import (
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"iscsictl/wait"
)

// Thread is a thread that waits for sources with poll(2), until Stop.
type Thread struct {
	t     testing.TB
	event int // eventfd
	over  chan struct{}
	came  chan struct{} // a source has come

	mu      sync.Mutex
	ended   bool
	sources []wait.Source
	watched int
	rooms   int
}

// New starts a thread.
func New(t testing.TB) *Thread {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	w := &Thread{t: t, event: fd, over: make(chan struct{}), came: make(chan struct{}, 1)}
	go w.run()
	return w
}

// Watch implements wait.Thread.
func (w *Thread) Watch(s wait.Source) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.sources = append(w.sources, s)
		w.watched++
		w.ring()
		select {
		case w.came <- struct{}{}:
		default:
		}
	}
	return !w.ended
}

// Wake implements wait.Thread.
func (w *Thread) Wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ring()
	}
}

// Stop gives back what there is, and returns how many sources there were in all.
func (w *Thread) Stop() int {
	w.mu.Lock()
	w.ended = true
	w.ring()
	w.mu.Unlock()
	<-w.over
	unix.Close(w.event)
	return w.watched
}

// Came is sent to when a source comes.
func (w *Thread) Came() <-chan struct{} { return w.came }

// Watched returns how many sources there were so far.
func (w *Thread) Watched() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watched
}

// Has returns how many sources there are.
func (w *Thread) Has() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sources)
}

// Rooms returns how often one waited for room.
func (w *Thread) Rooms() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rooms
}

func (w *Thread) ring() {
	if _, err := unix.Write(w.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		w.t.Error(err)
	}
}

func (w *Thread) run() {
	defer close(w.over)
	for {
		w.mu.Lock()
		sources := slices.Clone(w.sources)
		if w.ended {
			w.sources = nil
			w.mu.Unlock()
			for _, s := range sources {
				s.Return()
			}
			return
		}
		w.mu.Unlock()
		list := []unix.PollFd{{Fd: int32(w.event), Events: unix.POLLIN}}
		for _, s := range sources {
			events := int16(unix.POLLIN)
			if s.Full() {
				events |= unix.POLLOUT
				w.mu.Lock()
				w.rooms++
				w.mu.Unlock()
			}
			list = append(list, unix.PollFd{Fd: int32(s.FD()), Events: events})
		}
		if _, err := unix.Poll(list, -1); err != nil && err != unix.EINTR {
			w.t.Error(err)
		}
		var b [8]byte
		_, _ = unix.Read(w.event, b[:]) // EAGAIN where nobody rang
		for i, f := range list[1:] {
			w.serve(sources[i], f.Revents)
		}
	}
}

func (w *Thread) serve(s wait.Source, events int16) {
	if events&unix.POLLOUT != 0 {
		s.Writable()
	}
	if events&^unix.POLLOUT != 0 && !s.Readable() {
		w.mu.Lock()
		i := slices.Index(w.sources, s)
		w.sources = slices.Delete(w.sources, i, i+1)
		w.mu.Unlock()
		s.Return()
	}
}
