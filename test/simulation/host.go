package simulation

import (
	"bytes"
	"fmt"

	"iscsictl/device"
)

// poison is what a read's memory holds before it: none of the target's blocks do.
const poison = 0xa5

// unfilled is what no block holds but memory that was left as it was.
var unfilled = bytes.Repeat([]byte{poison}, 16)

const (
	requestsMax  = 6  // under way at a time
	requestSpan  = 12 // blocks of a request, at most
	requestCount = 32 // of a run, until the network is well
)

// request is a block request of the host, with what it is to do.
type request struct {
	device.Request
	from, n int
	value   uint32
}

// change reports whether the request changes blocks.
func (r *request) change() bool { return r.Op != device.Read && r.Op != device.Flush }

// ask makes a request up and submits it, together with others at times.
func (w *world) ask() {
	var batch []*device.Request
	for range 1 + w.rng.IntN(3) {
		if len(w.requests) < requestsMax && w.asked < requestCount {
			if r := w.request(); r != nil {
				batch = append(batch, &r.Request)
			}
		}
	}
	if len(batch) > 0 {
		w.disk.Disk().Submit(batch)
	}
}

func (w *world) request() *request {
	n := 1 + w.rng.IntN(requestSpan)
	from := w.rng.IntN(w.area - n + 1)
	r := &request{from: from, n: n}
	r.Op = []device.Op{device.Read, device.Read, device.Write, device.Write, device.Write, device.Flush, device.Discard, device.WriteZeroes}[w.rng.IntN(8)]
	switch r.Op {
	case device.Flush:
		r.n = 0
	case device.Write:
		r.FUA = w.rng.IntN(4) == 0
		r.value = w.history.next()
	}
	if r.Op == device.Read || r.Op == device.Write {
		r.n = min(r.n, w.disk.Disk().Geometry().MaxTransfer/blockSize)
	}
	if !w.history.free(r.from, r.n, r.change()) {
		return nil
	}
	return w.begin(r)
}

// begin takes a request in that is to be submitted.
func (w *world) begin(r *request) *request {
	r.Queue = w
	r.Offset, r.Length = int64(r.from)*blockSize, int64(r.n)*blockSize
	if r.Op == device.Read || r.Op == device.Write {
		data, ok := w.arena.Alloc(r.n * blockSize)
		if !ok {
			return nil // later
		}
		r.Data = data
		p := data.Bytes()
		for b := range r.n {
			fill(p[b*blockSize:(b+1)*blockSize], r.value, r.from+b)
		}
		if r.Op == device.Read {
			for i := range p {
				p[i] = poison
			}
		}
	}
	w.history.begin(r.from, r.n, r.change())
	w.requests = append(w.requests, r)
	w.asked++
	w.logf("host: %s blocks %d+%d value %d", opName(r.Op), r.from, r.n, r.value)
	return r
}

func opName(op device.Op) string {
	return [...]string{"read", "write", "flush", "discard", "write zeroes"}[op]
}

// Complete implements device.Queue.
func (w *world) Complete(done []*device.Request) {
	for _, d := range done {
		i := w.find(d)
		if i < 0 {
			w.broken("a request was completed that is not under way (twice?)")
			continue
		}
		r := w.requests[i]
		w.requests = append(w.requests[:i], w.requests[i+1:]...)
		w.ended(r)
	}
}

func (w *world) find(d *device.Request) int {
	for i, r := range w.requests {
		if &r.Request == d {
			return i
		}
	}
	return -1
}

// ended judges the outcome of a request.
func (w *world) ended(r *request) {
	w.logf("host: %s blocks %d+%d value %d: errno %d", opName(r.Op), r.from, r.n, r.value, r.Errno)
	w.count.requests++
	w.history.end(r.from, r.n, r.change())
	if r.Errno != 0 {
		w.count.errors++
		if !w.faults.errors && !w.failedHeld {
			w.violation("%s of blocks %d+%d failed with %v, though nothing has failed", opName(r.Op), r.from, r.n, r.Errno)
		}
	}
	if r.Op == device.Write && r.Errno == 0 {
		w.history.acked = append(w.history.acked, r.value)
	}
	for k := range r.n {
		b := r.from + k
		switch {
		case r.Op == device.Read && r.Errno == 0:
			if bytes.Contains(r.Data.Bytes()[k*blockSize:(k+1)*blockSize], unfilled) {
				w.broken("read: block %d has bytes that nobody has filled", b)
			}
			if err := w.history.check(r.Data.Bytes()[k*blockSize:(k+1)*blockSize], b); err != nil {
				w.violation("read: %v", err)
			}
		case r.Op == device.Discard && r.Errno == 0, r.change() && r.Errno != 0:
			w.history.mayHaveWritten(b, r.value)
		case r.change():
			w.history.wrote(b, r.value)
		}
	}
	if r.Data.Len() > 0 {
		if w.link != nil && w.link.refers(r.Data) {
			w.broken("a request was completed while its memory is in use")
		}
		r.Data.Free()
	}
}

// verify compares what the target holds, at the end.
func (w *world) verify() {
	for b := range blockCount {
		if err := w.history.check(w.target.blocks[b*blockSize:(b+1)*blockSize], b); err != nil {
			w.violation("at the end: %v", err)
		}
	}
}

// violation notes a broken rule. Where PDUs of the target were changed, it may have
// been right to break it.
func (w *world) violation(format string, args ...any) {
	if !w.bent {
		w.broken(format, args...)
	}
}

// broken notes what must not be, whatever the target says.
func (w *world) broken(format string, args ...any) {
	if w.failed == nil {
		w.failed = fmt.Errorf(format, args...)
		w.logf("VIOLATION: %v", w.failed)
	}
}
