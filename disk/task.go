package disk

import (
	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/scsi"
	"iscsictl/session"
)

// kind is what a task does.
type kind uint8

const (
	taskRead kind = iota
	taskWrite
	taskSync
	taskUnmap
	taskSame // WRITE SAME with zeroes
)

// task is one SCSI command for a part of a request. It goes on being the same
// task when it is sent again.
type task struct {
	cmd  session.Command
	req  *device.Request
	next *task  // in a list of the disk
	seq  uint64 // of its making
	sent uint64 // of its sending
	kind kind
	off  int64 // of the disk, in bytes
	n    int64 // bytes
	slot int   // UNMAP: place of its parameter list

	unmap bool // WRITE SAME may unmap
	tries tries
}

// tries counts how often a task was sent again, by reason.
type tries struct {
	attention, aborted, timeout, short, notReady, missing uint16
}

// total is how many bytes of a request are to be handed out as tasks.
func total(r *device.Request) int64 {
	if r.Op == device.Flush {
		return 0
	}
	return r.Length
}

// spare returns a task from the list of spares, or a new one.
func (d *Disk) spare() *task {
	t := d.spares
	if t == nil {
		t = new(task)
		t.cmd.Issuer, t.cmd.Context, t.cmd.LUN = d, t, uint64(d.lun)
		return t
	}
	d.spares, t.next = t.next, nil
	return t
}

// start makes a task for a part of a request.
func (d *Disk) start(r *device.Request, k kind, n int64) *task {
	t := d.spare()
	d.seq++
	t.req, t.seq, t.kind, t.unmap, t.tries = r, d.seq, k, false, tries{}
	t.off, t.n = r.Offset+r.Disk.Done, n
	r.Disk.Done += n
	r.Disk.Pending++
	return t
}

// drop puts a task back among the spares.
func (d *Disk) drop(t *task) {
	if t.kind == taskUnmap {
		d.lists.put(t.slot)
	}
	t.req, t.cmd.In, t.cmd.Out, t.cmd.Err = nil, arena.Extent{}, arena.Extent{}, nil
	t.next, d.spares = d.spares, t
}

// part makes the next task of a request, or returns nil where it must wait for
// memory. A request of a kind that the disk has turned out not to know is
// refused before.
func (d *Disk) part(r *device.Request) *task {
	l := &d.limits
	left := r.Length - r.Disk.Done
	switch r.Op {
	case device.Read:
		return d.start(r, taskRead, min(left, l.transfer))
	case device.Write:
		return d.start(r, taskWrite, min(left, l.transfer))
	case device.Flush:
		return d.start(r, taskSync, 0)
	case device.WriteZeroes:
		t := d.start(r, taskSame, min(left, l.same))
		t.unmap = l.sameUnmap && !r.NoUnmap
		return t
	}
	n := l.discardPart(r.Offset+r.Disk.Done, left)
	if l.discardBySame {
		t := d.start(r, taskSame, n)
		t.unmap = true
		return t
	}
	slot, ok := d.lists.take(d.set.nexus.Arena())
	if !ok {
		return nil
	}
	t := d.start(r, taskUnmap, n)
	t.slot = slot
	return t
}

// fill sets up a task's command from what the disk is now known to do.
func (d *Disk) fill(t *task) {
	r, c := t.req, &t.cmd
	lba, blocks := uint64(t.off/d.limits.block), uint32(t.n/d.limits.block)
	switch t.kind {
	case taskRead:
		at := int(t.off - r.Offset)
		c.CDB = scsi.Read(lba, blocks, false)
		c.In = r.Data.Slice(at, at+int(t.n))
	case taskWrite:
		at := int(t.off - r.Offset)
		c.CDB = scsi.Write(lba, blocks, r.FUA && d.limits.fua)
		c.Out = r.Data.Slice(at, at+int(t.n))
	case taskSync:
		c.CDB = scsi.SynchronizeCache(0, 0)
	case taskUnmap:
		c.Out = d.lists.fill(t.slot, scsi.Extent{LBA: lba, Blocks: blocks})
		c.CDB = scsi.Unmap(uint16(c.Out.Len()))
	case taskSame:
		var flags scsi.SameFlags
		if t.unmap {
			flags = scsi.SameUnmap
		}
		c.CDB = scsi.WriteSame16(lba, blocks, flags)
		c.Out = d.set.zeroes.Slice(0, int(d.limits.block))
	}
}

// taskList is a list of tasks in the order in which they were made.
type taskList struct{ head, tail *task }

// insert puts a task at its place. Tasks that come back together come back in
// about their order, so that the place is mostly the end.
func (l *taskList) insert(t *task) {
	switch {
	case l.head == nil:
		l.head, l.tail, t.next = t, t, nil
	case l.tail.seq < t.seq:
		l.tail.next, t.next = t, nil
		l.tail = t
	case l.head.seq > t.seq:
		t.next, l.head = l.head, t
	default:
		at := l.head
		for at.next.seq < t.seq {
			at = at.next
		}
		t.next, at.next = at.next, t
	}
}

func (l *taskList) pop() *task {
	t := l.head
	if t != nil {
		l.head, t.next = t.next, nil
		if l.head == nil {
			l.tail = nil
		}
	}
	return t
}

// requestList is a list of requests, in the order in which they came.
type requestList struct{ head, tail *device.Request }

func (l *requestList) push(r *device.Request) {
	if l.head == nil {
		l.head = r
	} else {
		l.tail.Disk.Next = r
	}
	l.tail = r
}

func (l *requestList) pop() *device.Request {
	r := l.head
	l.head, r.Disk.Next = r.Disk.Next, nil
	if l.head == nil {
		l.tail = nil
	}
	return r
}
