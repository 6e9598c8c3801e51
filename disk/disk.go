package disk

import (
	"fmt"
	"sync"
	"syscall"
	"time"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/scsi"
	"iscsictl/session"
	"iscsictl/wait"
)

// maxInFlight bounds the commands of one disk that are with the session.
const maxInFlight = 512

// state is what a disk does with requests.
type state uint8

const (
	running state = iota
	holding       // no nexus, or it is not known yet who is there on this one
	failing       // the recovery time-out has passed
	gone          // removed or closed
)

// Disk is a logical unit as a disk. It implements device.Disk, and is the
// issuer of its commands.
type Disk struct {
	set    *Set
	lun    scsi.LUN
	id     identity
	count  counters
	missed time.Time // when the target was first found not to know it; the worker's
	ailing time.Time // when it could first not be looked at; the worker's
	asked  bool      // is to be checked; guarded by Set.mu

	mu       sync.Mutex
	quiet    sync.Cond // calls or inFlight has become 0
	state    state
	doubts   uint64 // how often the target made us hold
	facts    facts
	nexus    uint64 // number of the nexus that is up, or 0
	calls    int    // goroutines that are handing commands to the session
	inFlight int    // commands with the session
	limit    int    // of inFlight; less than maxInFlight after TASK SET FULL
	full     fullness
	learned  learned
	limits   limits
	geometry device.Geometry
	accept   int64       // largest transfer that may ever have been offered
	again    taskList    // to be sent again, before what is in queue
	queue    requestList // not handed out, or not wholly (the first one)
	seq      uint64      // of the last task
	spares   *task
	batches  *batch
	lists    unmapLists
	wait     backoff
	quietLog time.Time // errors are not logged before
}

// learned is what a disk has turned out not to know, whatever it says.
type learned struct {
	noSync, noFUA, noUnmap, noSame, noSameUnmap bool
}

func newDisk(s *Set, lun scsi.LUN, f *facts, nexus uint64) *Disk {
	d := &Disk{set: s, lun: lun, id: f.identity(), nexus: nexus, limit: maxInFlight}
	d.quiet.L = &d.mu
	d.wait.timer = time.AfterFunc(time.Hour, d.unpause)
	d.wait.timer.Stop()
	d.apply(f)
	return d
}

// apply takes in facts and returns the geometry, and whether it has changed.
func (d *Disk) apply(f *facts) (device.Geometry, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.facts = *f
	// FUA once off stays off: parts of a request that were sent without it
	// are made durable by the flush that only a disk without FUA gets.
	if d.geometry.LogicalBlock != 0 && !d.limits.fua {
		d.learned.noFUA = true
	}
	l := d.facts.requestLimits(d.set.nexus.MaxTransfer())
	k := d.learned
	l.fua = l.fua && !k.noFUA
	l.sameUnmap = l.sameUnmap && !k.noSameUnmap
	if k.noSame {
		l.same = 0
	}
	if k.noUnmap || l.discardBySame && (k.noSame || k.noSameUnmap) {
		l.discard = 0
	}
	d.limits = l
	arenaSize := d.set.nexus.Arena().Size()
	g := d.facts.geometry(&d.limits, arenaSize)
	changed := g != d.geometry
	d.geometry = g
	d.accept = max(d.accept, int64(g.MaxTransfer), offered(arenaSize))
	return g, changed
}

// LUN returns the logical unit number as people write it.
func (d *Disk) LUN() uint64 { return d.lun.Number() }

// Serial returns the unit serial number (VPD 80), printable; it may be empty.
func (d *Disk) Serial() string { return d.id.serial }

// Identity returns the best name of VPD 83, such as "naa.6001405…", or "".
func (d *Disk) Identity() string {
	if !d.id.hasName {
		return ""
	}
	return d.id.name.String()
}

// IsUnique reports whether Identity is made to be that of no other disk in the
// world.
func (d *Disk) IsUnique() bool { return d.id.hasName && d.id.name.Unique() }

// Names are what a disk is called by the host.
type Names struct {
	scsi.HostID
	PathLUN                               string // the LUN in names of paths
	Vendor, Product, Revision, UnitSerial string
}

// Names returns what the host calls the disk.
func (d *Disk) Names() Names {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.facts.inquiry
	return Names{
		HostID: scsi.NewHostID(q, d.facts.names, d.facts.serial), PathLUN: d.lun.Path(),
		Vendor: scsi.HostName(q.Vendor), Product: scsi.HostName(q.Product), Revision: scsi.HostName(q.Revision), UnitSerial: scsi.HostName(d.facts.serial),
	}
}

// Model returns the vendor and the product.
func (d *Disk) Model() string { return fmt.Sprintf("%s %s", d.id.vendor, d.id.product) }

// Stats returns the disk's counters.
func (d *Disk) Stats() Stats { return d.count.stats() }

// Geometry implements device.Disk.
func (d *Disk) Geometry() device.Geometry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.geometry
}

// Arena implements device.Disk.
func (d *Disk) Arena() *arena.Arena { return d.set.nexus.Arena() }

// Attend implements wait.Attended, where the session does.
func (d *Disk) Attend(t wait.Thread) {
	if n, ok := d.set.nexus.(wait.Attended); ok {
		n.Attend(t)
	}
}

// Dismiss implements wait.Attended.
func (d *Disk) Dismiss(t wait.Thread) {
	if n, ok := d.set.nexus.(wait.Attended); ok {
		n.Dismiss(t)
	}
}

// Submit implements device.Disk.
func (d *Disk) Submit(reqs []*device.Request) {
	now := time.Since(d.set.base).Nanoseconds()
	d.mu.Lock()
	b := d.batch()
	for _, r := range reqs {
		r.Errno = 0
		r.Disk = device.DiskState{Start: now}
		if errno, ended := d.admit(r); ended {
			r.Errno = errno
			d.end(b, r)
			continue
		}
		d.queue.push(r)
	}
	d.leave(b)
}

// admit judges a new request: it is over at once, or it is to be queued.
func (d *Disk) admit(r *device.Request) (errno syscall.Errno, ended bool) {
	g := &d.geometry
	if d.state == failing || d.state == gone {
		return syscall.EIO, true
	}
	if r.Op == device.Flush {
		return 0, !d.flushes()
	}
	unit := int64(g.LogicalBlock)
	if r.Offset < 0 || r.Length < 0 || r.Offset%unit != 0 || r.Length%unit != 0 {
		return syscall.EINVAL, true
	}
	if errno := d.admitOp(r); errno != 0 {
		return errno, true
	}
	if r.Offset > g.Size || r.Length > g.Size-r.Offset {
		return syscall.ENOSPC, true
	}
	return 0, r.Length == 0
}

// admitOp judges what depends on the kind of request.
func (d *Disk) admitOp(r *device.Request) syscall.Errno {
	g := &d.geometry
	most := d.accept
	switch r.Op {
	case device.Read, device.Write:
		if int64(r.Data.Len()) < r.Length {
			return syscall.EINVAL
		}
	case device.Discard:
		most = g.DiscardMax
	case device.WriteZeroes:
		most = g.ZeroesMax
	default:
		return syscall.EOPNOTSUPP
	}
	switch {
	case r.Op != device.Read && g.ReadOnly:
		return syscall.EROFS
	case most == 0:
		return syscall.EOPNOTSUPP
	case r.Length > most:
		return syscall.EINVAL
	}
	return 0
}

// flushes reports whether completed writes need SYNCHRONIZE CACHE to be durable.
// A disk that is silent on its cache and does not know the command has none.
func (d *Disk) flushes() bool {
	return d.limits.cache == cacheOn || d.limits.cache == cacheUnknown && !d.learned.noSync
}

// Complete implements session.Issuer.
func (d *Disk) Complete(done []*session.Command) {
	d.mu.Lock()
	b := d.batch()
	for _, c := range done {
		d.inFlight--
		d.settle(b, c.Context.(*task))
	}
	if d.inFlight == 0 {
		d.quiet.Broadcast()
	}
	d.leave(b)
}

// settle takes in a command's outcome.
func (d *Disk) settle(b *batch, t *task) {
	v := d.judge(b, t)
	b.want |= v.want
	if v.act == over {
		d.finish(b, t, v.errno)
		return
	}
	if t.req.Errno != 0 || d.state == failing || d.state == gone {
		d.finish(b, t, syscall.EIO)
		return
	}
	d.count.retries.Add(1)
	d.again.insert(t)
	switch {
	case v.act == sendLater:
		d.pause()
	case v.act == holdAll:
		d.doubts++
		if d.state == running {
			d.state = holding
		}
	}
}

// finish ends a task, and its request with the last of them.
func (d *Disk) finish(b *batch, t *task, errno syscall.Errno) {
	r, k := t.req, t.kind
	if r.Errno == 0 {
		r.Errno = errno
	}
	d.drop(t)
	r.Disk.Pending--
	if r.Errno != 0 && d.queue.head == r { // the rest is not handed out any more
		d.queue.pop()
		r.Disk.Done = total(r)
	}
	if r.Disk.Pending > 0 || r.Disk.Done < total(r) {
		return
	}
	if r.Errno == 0 && k != taskSync && d.needsFlush(r) {
		if d.state != failing && d.state != gone {
			d.again.insert(d.start(r, taskSync, 0))
			return
		}
		r.Errno = syscall.EIO
	}
	d.end(b, r)
}

// needsFlush reports whether a request that is done has to be made durable yet.
func (d *Disk) needsFlush(r *device.Request) bool {
	switch r.Op {
	case device.Write:
		return r.FUA && !d.limits.fua && d.flushes()
	case device.WriteZeroes:
		return r.FUA && d.flushes()
	}
	return false
}

// end completes a request.
func (d *Disk) end(b *batch, r *device.Request) {
	d.count.requests.Add(1)
	switch {
	case r.Errno != 0:
		d.count.errors.Add(1)
	case r.Op == device.Read:
		d.count.read.Add(uint64(r.Length))
	case r.Op == device.Write:
		d.count.written.Add(uint64(r.Length))
	}
	b.done = append(b.done, r)
}

// dispatch makes commands of what waits, as far as they may be sent now.
func (d *Disk) dispatch(b *batch) {
	for d.state == running && !d.wait.on && d.inFlight < d.limit {
		if t := d.again.pop(); t != nil {
			d.send(b, t)
			continue
		}
		r := d.queue.head
		if r == nil {
			return
		}
		if d.unknown(r) {
			d.queue.pop()
			r.Errno = syscall.EOPNOTSUPP
			r.Disk.Done = total(r)
			if r.Disk.Pending == 0 {
				d.end(b, r)
			}
			continue
		}
		t := d.part(r)
		if t == nil { // no memory for its parameters
			if d.inFlight == 0 {
				d.pause()
			}
			return
		}
		if r.Disk.Done >= total(r) {
			d.queue.pop()
		}
		d.send(b, t)
	}
}

// unknown reports whether the disk has turned out not to know a request.
func (d *Disk) unknown(r *device.Request) bool {
	return r.Op == device.Discard && d.limits.discard == 0 || r.Op == device.WriteZeroes && d.limits.same == 0
}

func (d *Disk) send(b *batch, t *task) {
	d.fill(t)
	d.full.sent++
	t.sent = d.full.sent
	d.inFlight++
	b.cmds = append(b.cmds, &t.cmd)
}
