package arena

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A resident arena gives out only memory that is there. To use a page for the
// first time is to wait for the kernel to find one, which may have to write to a
// disk for that: to the very disk whose request waits. So a goroutine of its own
// populates more when more is asked for, and waits in the place of the requests,
// which go on with what there is.

const (
	// residentFirst is what a resident arena begins with, in bytes.
	residentFirst = 512 << 10
	// residentStep is the most that is populated at once.
	residentStep = 1 << 20
	// retryTime is after how long more is asked for again where there was none.
	retryTime = 100 * time.Millisecond
)

// NewResident makes an arena as New does, whose memory is populated before it is
// given out: a little now, and more when it is first asked for.
func NewResident(size int) (*Arena, error) {
	a, err := empty(size)
	if err != nil {
		return nil, err
	}
	a.settled.L = &a.mu
	first := min(size, residentFirst)
	if err := a.populate(0, first); err != nil {
		return nil, errors.Join(fmt.Errorf("arena: %w", err), a.Close())
	}
	a.mu.Lock()
	a.add(first)
	a.mu.Unlock()
	return a, nil
}

// Resident returns how many bytes are there to be given out, or are given out.
func (a *Arena) Resident() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.grown
}

// Reserve has n bytes populated soon, whether they are asked for or not, so that
// a request of up to half of that can be done whatever happens to the memory of
// the host later.
func (a *Arena) Reserve(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.target = min(max(a.target, n), len(a.mem))
	if a.grown < a.target {
		a.grow()
	}
}

// add puts the next n populated bytes to the free ones: as many as there are
// already, or a smaller power of two, so that they are whole blocks. a.mu is held.
func (a *Arena) add(n int) {
	page := uint32(a.grown / PageSize)
	a.grown += n
	a.join(page, order(n))
	a.serve()
}

// grow sees to it that more is populated, in the background. a.mu is held.
func (a *Arena) grow() {
	if a.growing || a.closed || a.grown == len(a.mem) {
		return
	}
	a.growing = true
	go a.growUp()
}

// growUp populates one step, and further ones as long as somebody waits.
func (a *Arena) growUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		from := a.grown
		n := min(from, residentStep)
		a.mu.Unlock()
		err := a.populate(from, n)
		if err != nil {
			time.Sleep(retryTime)
		}
		a.mu.Lock()
		if err == nil {
			a.add(n)
		}
		if a.closed || a.grown == len(a.mem) || a.grown >= a.target && len(a.waiters) == 0 {
			a.growing = false
			a.settled.Broadcast()
			return
		}
	}
}

// populate brings pages into memory that nobody has been given yet.
func (a *Arena) populate(from, n int) error {
	part := a.mem[from : from+n]
	err := unix.Madvise(part, unix.MADV_POPULATE_WRITE)
	if errors.Is(err, unix.EINVAL) { // before Linux 5.14
		for i := 0; i < n; i += PageSize {
			part[i] = 0
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("populating %d bytes: %w", n, err)
	}
	return nil
}
