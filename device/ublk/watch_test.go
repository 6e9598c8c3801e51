package ublk

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/devicetest"
	"iscsictl/wait"
)

// wired is a disk that does what it is asked to when a wire says so: a byte for
// each batch, that comes back on a socket, for which the device's thread waits.
type wired struct {
	*devicetest.Disk
	t    *testing.T
	ours int // end of the wire

	mu        sync.Mutex
	batches   [][]*device.Request
	submitted int
	cut       bool

	watcher  atomic.Pointer[wait.Thread]
	full     atomic.Bool
	thread   atomic.Int64 // the last that submitted
	same     atomic.Int64 // times that it also took in what came
	rooms    atomic.Int64 // times that it waited for room
	returned atomic.Int64
	attends  atomic.Int64 // less dismissals
}

func newWired(t *testing.T) *wired {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(pair[1], false); err != nil {
		t.Fatal(err)
	}
	go func() { // echoes until our end is shut down
		defer unix.Close(pair[1])
		var b [64]byte
		for {
			n, err := unix.Read(pair[1], b[:])
			if n <= 0 || err != nil {
				return
			}
			if _, err := unix.Write(pair[1], b[:n]); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { unix.Close(pair[0]) })
	return &wired{Disk: devicetest.CheckedDisk(t, devicetest.Geometry4M, 32<<20), t: t, ours: pair[0]}
}

func (w *wired) Attend(q wait.Thread) {
	if w.attends.Add(1) > 1 {
		return
	}
	w.watcher.Store(&q)
	if !q.Watch(w) {
		w.t.Error("a thread that attends does not watch")
	}
}

func (w *wired) Dismiss(wait.Thread) { w.attends.Add(-1) }

func (w *wired) Submit(batch []*device.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		w.Disk.Submit(batch)
		return
	}
	w.batches = append(w.batches, append([]*device.Request(nil), batch...))
	w.thread.Store(int64(unix.Gettid()))
	if w.submitted++; w.submitted%3 == 0 && !w.full.Load() {
		w.full.Store(true)
		if q := w.watcher.Load(); q != nil {
			(*q).Wake()
		}
		return
	}
	w.send()
}

func (w *wired) send() {
	if _, err := unix.Write(w.ours, []byte{1}); err != nil && err != unix.EPIPE { // cut: Readable sees it
		w.t.Error(err)
	}
}

func (w *wired) FD() int    { return w.ours }
func (w *wired) Full() bool { return w.full.Load() }
func (w *wired) Return()    { w.returned.Add(1) }
func (w *wired) Writable() {
	if w.full.Swap(false) {
		w.rooms.Add(1)
		w.send()
	}
}

func (w *wired) Readable() bool {
	var b [16]byte
	n, err := unix.Read(w.ours, b[:])
	w.mu.Lock()
	if err == nil && n == 0 {
		w.cut = true
		n = len(w.batches)
	}
	done := append([][]*device.Request(nil), w.batches[:max(n, 0)]...)
	w.batches = w.batches[len(done):]
	cut := w.cut
	w.mu.Unlock()
	if int64(unix.Gettid()) == w.thread.Load() {
		w.same.Add(1)
	}
	for _, batch := range done {
		for _, r := range batch {
			switch r.Op {
			case device.Read:
				w.Peek(r.Data.Bytes(), r.Offset)
			case device.Write:
				w.Poke(r.Data.Bytes(), r.Offset)
			}
			r.Errno = 0
			r.Queue.Complete([]*device.Request{r})
		}
	}
	return !cut
}

// TestWatch: a queue's thread takes in what comes for the disk, and sees to what
// there was no room for, until the wire is cut; the disk goes on without.
func TestWatch(t *testing.T) {
	b := backend(t)
	w := newWired(t)
	dev := attach(t, b, w)
	verify := func(seed byte) {
		t.Helper()
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				f, err := devicetest.OpenBlock("/dev/"+dev.Path(), unix.O_RDWR)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				p, got := devicetest.AlignedBuffer(64<<10), devicetest.AlignedBuffer(64<<10)
				for round := range 50 {
					for k := range p {
						p[k] = seed + byte(i*50+round)
					}
					off := int64(i) * int64(len(p))
					if _, err := f.WriteAt(p, off); err != nil {
						t.Error(err)
						return
					}
					if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, p) {
						t.Errorf("round %d: %v, or other bytes than were written", round, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	verify(1)
	if w.same.Load() == 0 || w.rooms.Load() == 0 || w.returned.Load() != 0 {
		t.Errorf("taken in %d times by the thread that submits, waited for room %d times, returned %d times",
			w.same.Load(), w.rooms.Load(), w.returned.Load())
	}
	t.Logf("%d batches, %d times room", w.submitted, w.rooms.Load())
	if err := unix.Shutdown(w.ours, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	verify(2)
	if err := dev.Detach(); err != nil {
		t.Error(err)
	}
	if w.returned.Load() != 1 || w.attends.Load() != 0 {
		t.Errorf("returned %d times, and %d threads still attend", w.returned.Load(), w.attends.Load())
	}
}

// TestWatchDetach: a device that goes gives back what it was lent, and has
// everything dismissed.
func TestWatchDetach(t *testing.T) {
	b := backend(t)
	w := newWired(t)
	dev := attach(t, b, w)
	if err := dev.Detach(); err != nil {
		t.Error(err)
	}
	if w.returned.Load() != 1 || w.attends.Load() != 0 {
		t.Errorf("returned %d times, and %d threads still attend", w.returned.Load(), w.attends.Load())
	}
	if dev.queues[0].Watch(w) || dev.queues[1].Watch(w) {
		t.Error("a thread that has ended watches")
	}
}
