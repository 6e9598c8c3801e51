// Package devicetest has what the tests of back-ends share: a disk in memory
// whose behaviour a test sets, and a suite that every back-end has to pass.
package devicetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/arena"
	"iscsictl/device"
)

// maxViolations bounds how many broken rules a disk remembers.
const maxViolations = 16

// Disk is a disk in memory. It completes requests in batches on a goroutine of
// its own, and notes where a back-end breaks the rules of device.Disk.
type Disk struct {
	arena *arena.Arena
	mem   []byte // all that the disk can grow to; zeroes where not written

	mu         sync.Mutex
	geo        device.Geometry
	fail       func(*device.Request) syscall.Errno
	delay      time.Duration
	shuffle    *rand.Rand
	holding    bool
	queue      []*device.Request // submitted
	held       []*device.Request // kept from being done
	resumed    []chan struct{}   // closed when what is queued has been completed
	count      [device.WriteZeroes + 1]int
	fua        int
	violations []string
	closed     bool

	wake chan struct{} // capacity 1
	done chan struct{}
}

// Geometry4M is a small disk that offers everything.
var Geometry4M = device.Geometry{
	Size: 4 << 20, LogicalBlock: 512, PhysicalBlock: 4096, MaxTransfer: 256 << 10,
	WriteCache: true, FUA: true, DiscardMax: 1 << 20, DiscardUnit: 4096, ZeroesMax: 1 << 20,
}

// NewDisk makes a disk of zeroes with an arena of arenaSize bytes. It can grow
// to 64 MiB more than geo.Size; only what is written takes memory.
func NewDisk(geo device.Geometry, arenaSize int) (*Disk, error) {
	a, err := arena.New(arenaSize)
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(-1, 0, int(geo.Size)+64<<20, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("memory disk of %d bytes: %w", geo.Size, err)
	}
	d := &Disk{arena: a, mem: mem, geo: geo, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go d.run()
	return d, nil
}

// CheckedDisk makes a disk that is checked at the test's end.
func CheckedDisk(t testing.TB, geo device.Geometry, arenaSize int) *Disk {
	t.Helper()
	d, err := NewDisk(geo, arenaSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Close ends the disk, once no request is under way, and returns an error for
// every rule that was broken and every extent that was not given back.
func (d *Disk) Close() error {
	d.mu.Lock()
	d.closed = true
	if n := len(d.queue) + len(d.held); n > 0 {
		d.violate("%d requests are under way at the disk's end", n)
	}
	d.mu.Unlock()
	d.poke()
	<-d.done
	unix.Munmap(d.mem)
	if err := d.arena.Close(); err != nil {
		d.violate("%v", err)
	}
	if len(d.violations) > 0 {
		return fmt.Errorf("rules of device.Disk broken: %q", d.violations)
	}
	return nil
}

// Geometry is device.Disk's.
func (d *Disk) Geometry() device.Geometry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.geo
}

// Arena is device.Disk's.
func (d *Disk) Arena() *arena.Arena { return d.arena }

// Submit is device.Disk's.
func (d *Disk) Submit(batch []*device.Request) {
	d.mu.Lock()
	for _, r := range batch {
		d.check(r)
		d.count[r.Op]++
		if r.FUA {
			d.fua++
		}
		if d.holding {
			d.held = append(d.held, r)
		} else {
			d.queue = append(d.queue, r)
		}
	}
	d.mu.Unlock()
	d.poke()
}

// SetGeometry changes the disk; what lies beyond a smaller size is lost.
func (d *Disk) SetGeometry(geo device.Geometry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if geo.Size < d.geo.Size {
		clear(d.mem[geo.Size:d.geo.Size])
	}
	d.geo = geo
}

// SetErrors has f give the outcome of each request, before it is done; nil
// stops that.
func (d *Disk) SetErrors(f func(*device.Request) syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = f
}

// SetDelay has each batch take so long.
func (d *Disk) SetDelay(t time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.delay = t
}

// Shuffle has requests done in an order drawn from seed.
func (d *Disk) Shuffle(seed uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shuffle = rand.New(rand.NewPCG(seed, 1))
}

// Hold keeps requests that come from now on from being done.
func (d *Disk) Hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holding = true
}

// Held returns how many requests are kept.
func (d *Disk) Held() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held)
}

// Resume lets the requests that were kept be done, with errno as their outcome
// where that is not 0, and returns when they have been handed back.
func (d *Disk) Resume(errno syscall.Errno) {
	done := make(chan struct{})
	d.mu.Lock()
	for _, r := range d.held {
		r.Errno = errno
		d.queue = append(d.queue, r)
	}
	d.held, d.holding = nil, false
	d.resumed = append(d.resumed, done)
	d.mu.Unlock()
	d.poke()
	select {
	case <-done:
	case <-d.done: // the disk was closed
	}
}

// Count returns how many requests of a kind came, and FUA how many with FUA.
func (d *Disk) Count(op device.Op) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count[op]
}

// FUA returns how many requests came with FUA set.
func (d *Disk) FUA() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fua
}

// Peek copies from the disk, beside all requests.
func (d *Disk) Peek(p []byte, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(p, d.mem[off:])
}

// Poke copies to the disk, beside all requests.
func (d *Disk) Poke(p []byte, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.mem[off:], p)
}

func (d *Disk) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *Disk) run() {
	defer close(d.done)
	var batch []*device.Request
	for range d.wake {
		for {
			d.mu.Lock()
			batch, d.queue = d.queue, batch[:0]
			resumed := d.resumed
			d.resumed = nil
			delay, closed := d.delay, d.closed
			if d.shuffle != nil {
				d.shuffle.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
			}
			for _, r := range batch {
				d.do(r)
			}
			d.mu.Unlock()
			if closed {
				return
			}
			if len(batch) > 0 && delay > 0 {
				time.Sleep(delay)
			}
			complete(batch)
			for _, done := range resumed {
				close(done)
			}
			if len(batch) == 0 {
				break
			}
		}
	}
}

// complete hands a batch back, in runs of one queue.
func complete(batch []*device.Request) {
	for len(batch) > 0 {
		n := 1
		for n < len(batch) && batch[n].Queue == batch[0].Queue {
			n++
		}
		batch[0].Queue.Complete(batch[:n])
		batch = batch[n:]
	}
}

// check notes what a back-end must not do. d.mu is held.
func (d *Disk) check(r *device.Request) {
	switch {
	case r.Op > device.WriteZeroes:
		d.violate("unknown request %d", r.Op)
		r.Op = device.Flush
	case r.Queue == nil:
		d.violate("a request without a queue")
	case r.Disk.Pending != 0:
		d.violate("a request was submitted while under way")
	case (r.Op == device.Read || r.Op == device.Write) && int64(r.Data.Len()) != r.Length:
		d.violate("%d bytes of data for a length of %d", r.Data.Len(), r.Length)
	}
	r.Disk.Pending = 1
	r.Errno = 0
}

func (d *Disk) violate(format string, args ...any) {
	if len(d.violations) < maxViolations {
		d.violations = append(d.violations, fmt.Sprintf(format, args...))
	}
}

// do carries a request out. d.mu is held.
func (d *Disk) do(r *device.Request) {
	r.Disk.Pending = 0
	if r.Errno == 0 && d.fail != nil {
		r.Errno = d.fail(r)
	}
	if r.Errno == 0 {
		r.Errno = d.invalid(r)
	}
	if r.Errno != 0 {
		return
	}
	switch r.Op {
	case device.Read:
		copy(r.Data.Bytes(), d.mem[r.Offset:])
	case device.Write:
		copy(d.mem[r.Offset:], r.Data.Bytes())
	case device.Discard, device.WriteZeroes:
		zero(d.mem[r.Offset : r.Offset+r.Length])
	}
}

// invalid returns what a request outside of the disk's limits ends with.
func (d *Disk) invalid(r *device.Request) syscall.Errno {
	if r.Op == device.Flush {
		return 0
	}
	limit := int64(d.geo.MaxTransfer)
	switch r.Op {
	case device.Discard:
		limit = d.geo.DiscardMax
	case device.WriteZeroes:
		limit = d.geo.ZeroesMax
	}
	block := int64(d.geo.LogicalBlock)
	switch {
	case r.Offset < 0 || r.Length <= 0 || r.Offset%block != 0 || r.Length%block != 0:
		return syscall.EINVAL
	case limit == 0:
		return syscall.EOPNOTSUPP
	case r.Length > limit:
		return syscall.EINVAL
	case r.Offset > d.geo.Size-r.Length:
		return syscall.ENOSPC
	case r.Op != device.Read && d.geo.ReadOnly:
		return syscall.EROFS
	}
	return 0
}

// zero clears memory; whole pages of an anonymous mapping are given back to
// the kernel, which makes them read as zeroes.
func zero(b []byte) {
	if len(b) >= 64<<10 && len(b)%arena.PageSize == 0 && unix.Madvise(b, unix.MADV_DONTNEED) == nil {
		return
	}
	clear(b)
}
