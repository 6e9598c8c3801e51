package ublk

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/wait"
)

const (
	// bell is the user data of the read of a queue's eventfd; user data from
	// watching on are those of polls (watch.go). Other user data are tags.
	bell     = 1 << 32
	watching = 2 << 32
	// spareEntries are those of the ring that are not for tags.
	spareEntries = 8
	// burst is how many bytes are copied before what is ready is handed on,
	// so that the last of a large batch does not keep the first waiting.
	burst = 256 << 10
)

// queue is one hardware queue of a device. A goroutine that is locked to its
// thread owns the ring and all that is not guarded by mu: the driver takes
// commits of a queue from one thread only.
type queue struct {
	dev  *Device
	disk device.Disk
	id   int
	char int // descriptor of /dev/ublkcN, which is the device's

	ring     *ring
	descs    []byte // mapped
	event    int    // eventfd
	rings    uint64 // where the eventfd is read to
	heard    uint64 // sum of these
	pin      runtime.Pinner
	slots    []*command // by tag
	batch    []*device.Request
	copied   int // bytes since the last handing over
	starving int // commands that wait for memory
	returned int // tags that the driver has ended
	failed   bool
	finished atomic.Uint64 // requests; for others, who look whether it goes on
	hungry   chan *command // to the feeder; capacity: all
	leaving  atomic.Bool   // the goroutine is to end, with the device left as it is
	watches  []watch
	over     chan struct{} // closed when the goroutine has ended

	mu         sync.Mutex
	commands   []*command    // by number; the first ones are the slots
	head, tail *command      // done by the disk, or fed
	sources    []wait.Source // to be watched
	asleep     bool          // the goroutine waits in the kernel
	rung       uint64        // how often it was or is to be woken
	ended      bool          // and takes nothing any more
	orphans    int
	idle       sync.Cond // orphans has become 0
}

func newQueue(d *Device, id, depth int) *queue {
	q := &queue{
		dev: d, disk: d.disk, id: id, char: d.char, event: -1,
		slots: make([]*command, depth), batch: make([]*device.Request, 0, depth*maxParts),
		hungry: make(chan *command, depth), over: make(chan struct{}),
	}
	q.idle.L = &q.mu
	for tag := range q.slots {
		q.slots[tag] = newCommand(q, tag, tag)
	}
	q.commands = append(q.commands, q.slots...)
	return q
}

// run is the queue's goroutine. It tells of its start, when the driver has all
// tags or an error has come instead.
func (q *queue) run(started chan<- error) {
	// Never unlocked: the thread ends with the goroutine, and the driver
	// learns by that that nobody serves the queue.
	runtime.LockOSThread()
	defer close(q.over)
	defer q.close()
	if err := q.open(); err != nil {
		started <- err
		return
	}
	started <- nil
	go q.feed()
	if d, ok := q.disk.(wait.Attended); ok {
		d.Attend(q)
		defer d.Dismiss(q)
	}
	for q.returned < len(q.slots) && !q.leaving.Load() {
		q.collect()
		q.handOver()
		if err := q.sleep(); err != nil {
			q.dev.log.Error(fmt.Sprintf("%s: queue %d ends: %v", q.dev.Path(), q.id, err))
			return
		}
		q.reap()
		q.handOver()
	}
}

// open makes the ring and gives all tags to the driver.
func (q *queue) open() (err error) {
	if q.ring, err = newRing(len(q.slots)+spareEntries, setupSingleIssuer|setupDeferTaskrun); errors.Is(err, unix.EINVAL) {
		q.ring, err = newRing(len(q.slots)+spareEntries, 0) // Linux before 6.1
	}
	if err != nil {
		return err
	}
	if q.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	q.descs, err = unix.Mmap(q.char, int64(q.id)*int64(descSize(maxDepth)), descSize(len(q.slots)),
		unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("mapping the requests of queue %d: %w", q.id, err)
	}
	q.pin.Pin(&q.rings)
	q.listen()
	for tag := range q.slots {
		q.give(ioFetch, tag, 0)
	}
	if err := q.ring.enter(0); err != nil {
		return err
	}
	// The driver refuses at once; it accepts without a word.
	if c, ok := q.ring.take(); ok && c.userData != bell && c.res < 0 {
		return fmt.Errorf("FETCH_REQ of queue %d: %w", q.id, unix.Errno(-c.res))
	}
	return nil
}

// close takes the queue apart. The kernel ends what it has of the ring.
func (q *queue) close() {
	close(q.hungry)
	q.mu.Lock()
	q.ended = true
	q.adopt()
	rung := q.rung
	for c := q.head; c != nil; c = c.next {
		q.settle(c)
	}
	q.head, q.tail = nil, nil
	for _, c := range q.slots {
		if c.place == atDisk { // the host will ask again
			c.place = orphaned
			q.orphans++
		}
	}
	q.mu.Unlock()
	q.giveBack()
	if q.ring != nil && rung > 0 {
		// Somebody may be about to ring the bell, which has to be there yet.
		for q.heard < rung && q.ring.enter(1) == nil {
			q.reap()
		}
	}
	if q.ring != nil {
		q.ring.close()
	}
	q.pin.Unpin()
	if q.event >= 0 {
		unix.Close(q.event)
	}
	if q.descs != nil {
		unix.Munmap(q.descs)
	}
}

// entry returns a new entry of the ring.
func (q *queue) entry() *sqe {
	for range 2 {
		if e := q.ring.next(); e != nil {
			return e
		}
		q.ring.enter(0)
	}
	panic("ublk: the kernel takes no submissions") // it takes all, or enter fails
}

// listen has the next ring of the bell reported.
func (q *queue) listen() {
	e := q.entry()
	e.opcode, e.fd, e.userData = uringRead, int32(q.event), bell
	e.addr, e.length = uint64(uintptr(unsafe.Pointer(&q.rings))), 8
}

// give gives a tag to the driver, with the outcome of its request.
func (q *queue) give(command uint32, tag int, result int32) {
	e := q.entry()
	e.command(q.char, command, uint64(tag))
	*(*ioCmd)(e.payload()) = ioCmd{queue: uint16(q.id), tag: uint16(tag), result: result}
}

// sleep enters the kernel, with what is to be committed. It waits for something
// to happen where nothing has.
func (q *queue) sleep() error {
	q.mu.Lock()
	n := 0
	if q.head == nil && len(q.sources) == 0 && !q.leaving.Load() && q.failed == q.dev.isFailing() {
		q.asleep, n = true, 1
	}
	q.mu.Unlock()
	q.copied = 0
	q.poll() // now: who fills a socket from here on rings the bell
	err := q.ring.enter(n)
	if n > 0 {
		q.mu.Lock()
		q.asleep = false
		q.mu.Unlock()
	}
	return err
}

// Wake has the goroutine look again: at whether it is to leave or to fail, and, as
// wait.Thread says, at what its sources wait for.
func (q *queue) Wake() {
	q.mu.Lock()
	ring := q.alarm()
	q.mu.Unlock()
	if ring {
		q.ringBell()
	}
}

// alarm reports whether the caller has to ring the bell, once it has given up
// q.mu, which it holds.
func (q *queue) alarm() bool {
	if !q.asleep || q.ended {
		return false
	}
	q.asleep = false
	q.rung++
	return true
}

func (q *queue) ringBell() {
	one := [8]byte{}
	*(*uint64)(unsafe.Pointer(&one)) = 1
	for {
		if _, err := unix.Write(q.event, one[:]); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// reap takes what the kernel reports: mostly new requests.
func (q *queue) reap() {
	for {
		c, ok := q.ring.take()
		switch {
		case !ok:
			return
		case c.userData == bell:
			q.heard += q.rings
			q.listen()
		case c.userData >= watching:
			q.polled(c)
		case c.res != 0: // -ENODEV: the device was stopped
			q.returned++
		default:
			q.start(int(c.userData))
		}
	}
}

// start begins with the request that came with a tag.
func (q *queue) start(tag int) {
	if q.ended {
		return // the host will ask another daemon
	}
	c := q.slots[tag]
	d := (*ioDesc)(unsafe.Pointer(&q.descs[tag*int(unsafe.Sizeof(ioDesc{}))]))
	l := q.dev.limits.Load()
	c.errno = c.set(d.opFlags, d.sectors, d.start, l, q.dev.whole)
	if q.failed && c.errno == 0 {
		c.errno = syscall.EIO
	}
	if c.errno != 0 {
		q.finish(c)
		return
	}
	if c.data() {
		var ok bool
		if q.starving == 0 {
			c.ext, ok = q.disk.Arena().Alloc(int(c.length))
		}
		if !ok {
			q.starving++
			c.place = atFeeder
			q.hungry <- c // has room for all
			return
		}
	}
	q.begin(c, l)
}

// begin has the disk do a command, which has its memory.
func (q *queue) begin(c *command, l *limits) {
	if c.op == device.Write {
		if c.errno = c.fetchData(); c.errno != 0 {
			q.finish(c)
			return
		}
		q.copied += int(c.length)
	}
	c.nextRound(l)
	q.add(c)
}

// add puts a command's requests into the batch.
func (q *queue) add(c *command) {
	c.place = atDisk
	q.batch = append(q.batch, c.ptrs[:c.pending]...)
	if q.copied >= burst {
		q.handOver()
	}
}

// handOver hands the batch to the disk.
func (q *queue) handOver() {
	if len(q.batch) > 0 {
		q.copied = 0
		q.disk.Submit(q.batch)
		q.batch = q.batch[:0]
	}
}

// finish commits a command.
func (q *queue) finish(c *command) {
	if c.errno == 0 && c.op == device.Read {
		c.errno = c.storeData()
		q.copied += int(c.length)
	}
	c.release()
	c.place = atHost
	q.finished.Store(q.finished.Load() + 1) // nobody else writes it
	q.give(ioCommitAndFetch, c.tag, c.result())
	if q.copied >= burst {
		q.copied = 0
		q.ring.enter(0)
	}
}

// collect goes on with what the disk has done and with what has got memory.
func (q *queue) collect() {
	if !q.failed && q.dev.isFailing() {
		q.fail()
	}
	q.mu.Lock()
	c := q.head
	q.head, q.tail = nil, nil
	q.adopt()
	q.mu.Unlock()
	l := q.dev.limits.Load()
	for c != nil {
		next := c.next
		c.next = nil
		q.advance(c, l)
		c = next
	}
}

func (q *queue) advance(c *command, l *limits) {
	switch c.place {
	case orphaned:
		q.mu.Lock()
		q.settle(c)
		q.mu.Unlock()
	case atFeeder:
		q.starving--
		if q.failed && c.errno == 0 {
			c.errno = syscall.EIO
		}
		if c.errno != 0 {
			q.finish(c)
			return
		}
		q.begin(c, l)
	default:
		if c.errno == 0 && c.nextRound(l) {
			q.add(c)
			return
		}
		q.finish(c)
	}
}
