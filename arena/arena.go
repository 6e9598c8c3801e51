// Package arena gives out memory for the data of block requests: page-aligned
// extents of one shared mapping (a memfd) outside of the Go heap, so that a
// kernel (ublk, RDMA memory regions, io_uring) can hold on to them while the
// garbage collector knows nothing of them.
//
// An arena has a byte budget, which is its size: a device that asks for more
// waits. Pages are populated when first touched, so that an idle arena costs
// address space only; those of a resident arena before they are given out.
// Extents are power-of-two blocks of a buddy allocator: giving out and taking
// back are O(log n) and allocate nothing.
package arena

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"

	"golang.org/x/sys/unix"
)

// PageSize is the alignment of every extent, in bytes, and the least that one
// takes from the arena's budget.
const PageSize = 4096

// ErrClosed is returned to those who wait for memory of an arena that closes.
var ErrClosed = errors.New("arena: closed")

// ErrStopped is returned to those whose wait was ended by their own stop channel.
var ErrStopped = errors.New("arena: wait ended")

// Extent is a contiguous piece of an arena, lent to one user at a time. The
// zero Extent has no memory. Extents are values: copying one copies the loan's
// description and not the memory.
type Extent struct {
	arena *Arena
	block uint32 // first page of the block that was given out
	order uint8  // its size in pages is 1<<order
	off   int    // first byte of this view, from the arena's start
	n     int    // bytes in this view
}

// Len returns the number of bytes in the extent.
func (e Extent) Len() int { return e.n }

// Offset returns where the extent begins, in bytes from the arena's start.
func (e Extent) Offset() int { return e.off }

// Bytes returns the extent's memory. It must not be used after Free.
func (e Extent) Bytes() []byte {
	if e.n == 0 {
		return nil
	}
	return e.arena.mem[e.off : e.off+e.n : e.off+e.n]
}

// Slice returns the view [from:to) of the extent. The loan stays one: only
// freeing the extent that Alloc gave out (or any view of it, once) ends it.
func (e Extent) Slice(from, to int) Extent {
	if from < 0 || to < from || to > e.n {
		panic(fmt.Sprintf("arena: slice [%d:%d) of an extent of %d bytes", from, to, e.n))
	}
	e.off, e.n = e.off+from, to-from
	return e
}

// Free gives the extent's memory back. It must be called once for each Alloc,
// when nothing refers to the memory any more: no queued write, no read in
// progress, no work request. The zero Extent may be freed at any time.
func (e Extent) Free() {
	if e.arena != nil {
		e.arena.release(e)
	}
}

// Arena is a budget of memory. Its methods may be called by any goroutine.
type Arena struct {
	mem []byte
	fd  int

	mu      sync.Mutex
	free    [][]uint32 // free blocks by order, as stacks of first pages
	state   []uint8    // by page: order+1 where a free block begins, or 0
	where   []uint32   // by page: index of a free block in its stack
	inUse   int        // bytes given out
	grown   int        // bytes that may be given out: all, or those that are populated
	closed  bool
	waiters []*waiter

	// Of a resident arena:
	target  int       // bytes that are to be populated, whether they are asked for or not
	growing bool      // a goroutine populates
	settled sync.Cond // growing has ended
}

type waiter struct {
	n     int
	ext   Extent
	ready chan struct{} // capacity 1
}

// New makes an arena of size bytes, which must be a power of two and at least
// one page.
func New(size int) (*Arena, error) {
	a, err := empty(size)
	if err != nil {
		return nil, err
	}
	a.grown = size
	a.push(0, order(size))
	return a, nil
}

// empty makes an arena that has nothing to give out yet.
func empty(size int) (*Arena, error) {
	if size < PageSize || size&(size-1) != 0 {
		return nil, fmt.Errorf("arena: size %d is not a power of two of at least %d", size, PageSize)
	}
	fd, err := unix.MemfdCreate("iscsi-arena", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("arena: memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("arena: ftruncate to %d bytes: %w", size, err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("arena: mmap of %d bytes: %w", size, err)
	}
	// A child must not get the pages: copy-on-write would move them away
	// from under a device that has them pinned.
	if err := unix.Madvise(mem, unix.MADV_DONTFORK); err != nil {
		unix.Munmap(mem)
		unix.Close(fd)
		return nil, fmt.Errorf("arena: madvise: %w", err)
	}
	pages, top := size/PageSize, order(size)
	a := &Arena{mem: mem, fd: fd, free: make([][]uint32, top+1), state: make([]uint8, pages), where: make([]uint32, pages)}
	for o := range a.free {
		a.free[o] = make([]uint32, 0, pages>>o)
	}
	return a, nil
}

// order is that of the smallest block that has n bytes.
func order(n int) int { return bits.Len(uint((n+PageSize-1)/PageSize - 1)) }

// Size returns the arena's budget in bytes.
func (a *Arena) Size() int { return len(a.mem) }

// FD returns the memfd behind the arena, which stays the arena's.
func (a *Arena) FD() int { return a.fd }

// InUse returns how many bytes are given out, rounded up to the blocks that
// they take.
func (a *Arena) InUse() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inUse
}

// Alloc gives out an extent of n bytes whose content is whatever its last user
// left. It reports false where none is free just now, or where others are
// waiting already. It panics on an n that can never be had.
func (a *Arena) Alloc(n int) (Extent, bool) {
	a.check(n)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.waiters) > 0 {
		return Extent{}, false
	}
	e, ok := a.take(n)
	if !ok {
		a.grow()
	}
	return e, ok
}

// Wait is Alloc that waits its turn, first come first served, until memory is
// free, the arena closes (ErrClosed) or stop is closed (ErrStopped).
func (a *Arena) Wait(n int, stop <-chan struct{}) (Extent, error) {
	a.check(n)
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return Extent{}, ErrClosed
	}
	if len(a.waiters) == 0 {
		if e, ok := a.take(n); ok {
			a.mu.Unlock()
			return e, nil
		}
	}
	w := &waiter{n: n, ready: make(chan struct{}, 1)}
	a.waiters = append(a.waiters, w)
	a.grow()
	a.mu.Unlock()
	select {
	case <-w.ready:
	case <-stop:
		a.mu.Lock()
		for i, x := range a.waiters {
			if x == w {
				a.waiters = append(a.waiters[:i], a.waiters[i+1:]...)
				a.serve()
				a.mu.Unlock()
				return Extent{}, ErrStopped
			}
		}
		a.mu.Unlock() // served, or closed, at the same moment
		w.ext.Free()
		return Extent{}, ErrStopped
	}
	if w.ext.arena == nil {
		return Extent{}, ErrClosed
	}
	return w.ext, nil
}

// Close wakes all who wait and unmaps the memory, which nobody may be using any more.
func (a *Arena) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	if a.inUse != 0 {
		return fmt.Errorf("arena: close: %d bytes are still given out", a.inUse)
	}
	a.closed = true
	for _, w := range a.waiters {
		w.ready <- struct{}{}
	}
	a.waiters = nil
	for a.growing {
		a.settled.Wait()
	}
	err := unix.Munmap(a.mem)
	a.mem = nil
	return errors.Join(err, unix.Close(a.fd))
}

func (a *Arena) check(n int) {
	if n <= 0 || n > 1<<(len(a.free)-1)*PageSize {
		panic(fmt.Sprintf("arena: an extent of %d bytes of an arena of %d", n, 1<<(len(a.free)-1)*PageSize))
	}
}

func (a *Arena) take(n int) (Extent, bool) {
	want := order(n)
	for o := want; o < len(a.free); o++ {
		if len(a.free[o]) == 0 {
			continue
		}
		page := a.free[o][len(a.free[o])-1]
		a.drop(page, o)
		for o > want { // give the upper halves back
			o--
			a.push(page+1<<o, o)
		}
		a.inUse += PageSize << want
		return Extent{arena: a, block: page, order: uint8(want), off: int(page) * PageSize, n: n}, true
	}
	return Extent{}, false
}

func (a *Arena) release(e Extent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inUse -= PageSize << e.order
	a.join(e.block, int(e.order))
	a.serve()
}

// join puts a block to the free ones, together with its neighbours.
func (a *Arena) join(page uint32, o int) {
	for o < len(a.free)-1 {
		buddy := page ^ 1<<o
		if a.state[buddy] != uint8(o)+1 {
			break
		}
		a.drop(buddy, o)
		page &^= 1 << o
		o++
	}
	a.push(page, o)
}

// serve gives memory to those who wait, in their order.
func (a *Arena) serve() {
	for len(a.waiters) > 0 {
		w := a.waiters[0]
		e, ok := a.take(w.n)
		if !ok {
			return
		}
		a.waiters = append(a.waiters[:0], a.waiters[1:]...)
		w.ext = e
		w.ready <- struct{}{}
	}
}

func (a *Arena) push(page uint32, o int) {
	a.state[page] = uint8(o) + 1
	a.where[page] = uint32(len(a.free[o]))
	a.free[o] = append(a.free[o], page)
}

func (a *Arena) drop(page uint32, o int) {
	i, last := a.where[page], len(a.free[o])-1
	moved := a.free[o][last]
	a.free[o][i], a.where[moved] = moved, i
	a.free[o] = a.free[o][:last]
	a.state[page] = 0
}
