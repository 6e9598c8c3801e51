package ublk

import (
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func openRing(t *testing.T, entries int, flags uint32) *ring {
	t.Helper()
	r, err := newRing(entries, flags)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		t.Skip("SKIP:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

// TestRing fills a ring of each kind several times over.
func TestRing(t *testing.T) {
	for name, flags := range map[string]uint32{
		"plain": 0, "large entries": setupSQE128, "of one thread": setupSingleIssuer | setupDeferTaskrun,
	} {
		t.Run(name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			r := openRing(t, 8, flags)
			for round := range uint64(5) {
				for i := range uint64(8) {
					r.next().userData = round<<8 | i // opcode 0 is a no-op
				}
				if r.next() != nil {
					t.Fatal("a ninth entry of eight")
				}
				if _, ok := r.take(); ok || r.ready() {
					t.Fatal("completed before it was handed over")
				}
				for seen := uint64(0); seen < 8; {
					if err := r.enter(1); err != nil {
						t.Fatal(err)
					}
					for c, ok := r.take(); ok; c, ok = r.take() {
						if c.userData != round<<8|seen || c.res != 0 {
							t.Fatalf("completion %#x of %d", c.userData, c.res)
						}
						seen++
					}
				}
			}
		})
	}
}

// TestRingEventfd waits for a bell that another goroutine rings.
func TestRingEventfd(t *testing.T) {
	r := openRing(t, 4, 0)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	q := &queue{ring: r, event: fd}
	q.pin.Pin(&q.rings)
	defer q.pin.Unpin()
	for range 3 {
		q.listen()
		go q.ringBell()
		for !r.ready() {
			if err := r.enter(1); err != nil {
				t.Fatal(err)
			}
		}
		if c, _ := r.take(); c.userData != bell || c.res != 8 || q.rings != 1 {
			t.Fatalf("completion %#x of %d, counter %d", c.userData, c.res, q.rings)
		}
	}
}

// TestRingCommand has a command reach a file that takes none, with its data.
func TestRingCommand(t *testing.T) {
	r := openRing(t, 1, setupSQE128)
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	e := r.next()
	e.command(1<<30, cmdGetFeatures, 7) // no such descriptor
	*(*ctrlCmd)(e.payload()) = ctrlCmd{devID: noID}
	if at := uintptr(e.payload()) - uintptr(unsafe.Pointer(e)); at != 48 {
		t.Errorf("a command's data begins at %d", at)
	}
	if err := r.enter(1); err != nil {
		t.Fatal(err)
	}
	if c, ok := r.take(); !ok || c.userData != 7 || unix.Errno(-c.res) != unix.EBADF {
		t.Errorf("completion %+v, %v", c, ok)
	}
}
