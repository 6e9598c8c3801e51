package iwarp

import (
	"sync"

	"iscsictl/transport/rdma"
)

// item is a posted request.
type item struct {
	id       uint64
	op       rdma.Op
	signal   bool
	complete bool
	head     []byte // of a send slot
	data     []byte
	remote   rdma.Region
	sink     uint64 // tagged offset that a Read names for its data
}

// response is what answers an RDMA Read of the peer.
type response struct {
	data   []byte
	region uint32 // that the data are of; noRegion where there are none
	stag   uint32 // the peer's sink
	to     uint64
}

const noRegion = ^uint32(0)

// read is one of our RDMA Reads that is under way.
type read struct {
	item uint64 // its number; not looked at where rtr is set
	rtr  bool
	stag uint32
	to   uint64
	mem  []byte
	got  int
}

// sendQueue takes requests in (under the handler's lock) and gives them out to
// whoever writes, cut to FPDUs, a batch at a time. Answers to the peer's Reads
// have a queue of their own, so that the reader never waits for the writer. Its
// own lock is held for moments only.
type sendQueue struct {
	mu      sync.Mutex
	idle    sync.Cond // signalled when writing becomes false
	writing bool
	closed  bool
	held    bool // nothing may be sent yet
	more    bool // something has come that the present fill may have missed

	// Requests are numbered as they are posted; their numbers modulo the
	// depth are their places. head <= sent <= built <= tail.
	items []item
	tail  uint64 // next to be posted
	built uint64 // next to be cut to FPDUs
	sent  uint64 // next whose batch is to be written
	head  uint64 // next to be done

	// The peer's Reads, likewise: answered <= cut <= asked. Only when one is
	// in FPDUs to its end may the peer know, and ask for another.
	responses  []response
	asked      uint64
	cut        uint64 // next to be cut to FPDUs
	answered   uint64 // next to be cut to its end
	answerNext bool   // of two queues that have something, this one's turn

	// Our Reads, likewise.
	reads             []read
	readTail, readHed uint64

	pending  []uint32 // by region: responses queued and not yet written
	waiting  []bool   // by region: its end waits for pending to be 0
	released []uint32 // regions whose wait is over, not yet told to the handler

	rtr       RTR    // to be sent before all else
	terminate []byte // to be sent instead of all else
	ended     bool   // the Terminate message is in a batch

	cutter
	batch  batch
	faults Faults
}

func (q *sendQueue) init(depth, inbound, outbound, regions, mulpdu int, crc bool, faults Faults) {
	q.idle.L = &q.mu
	q.items = make([]item, depth)
	q.responses = make([]response, inbound)
	q.reads = make([]read, outbound)
	q.pending, q.waiting = make([]uint32, regions), make([]bool, regions)
	q.released = make([]uint32, 0, regions)
	q.cutter.init(mulpdu, crc, faults)
	q.batch.init()
	q.faults = faults
}

// post queues a request.
func (q *sendQueue) post(it item) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	if q.tail-q.head == uint64(len(q.items)) {
		return rdma.ErrFull
	}
	q.items[q.tail%uint64(len(q.items))] = it
	q.tail++
	q.more = true
	return nil
}

// answer queues the response to a Read of the peer. It reports false where as
// many are queued as were negotiated.
func (q *sendQueue) answer(r response) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.asked-q.answered == uint64(len(q.responses)) {
		return false
	}
	q.responses[q.asked%uint64(len(q.responses))] = r
	q.asked++
	q.more = true
	if r.region != noRegion {
		q.pending[r.region]++
	}
	return true
}

// hold reports whether responses of the region are still queued; if so, the
// region will be among those released.
func (q *sendQueue) hold(region uint32) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting[region] = q.pending[region] > 0
	return q.waiting[region]
}

// outstanding returns the Read that the peer must answer next, or nil. It is
// the reader's until arrived.
func (q *sendQueue) outstanding() *read {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.readHed == q.readTail {
		return nil
	}
	return &q.reads[q.readHed%uint64(len(q.reads))]
}

// arrived ends the Read that outstanding returned.
func (q *sendQueue) arrived(r *read) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !r.rtr {
		q.items[r.item%uint64(len(q.items))].complete = true
	}
	r.mem = nil
	q.readHed++
	q.more = true
}

// release lets a passive side send, after the peer has spoken.
func (q *sendQueue) release() {
	q.mu.Lock()
	q.held, q.more = false, true
	q.mu.Unlock()
}

// abort makes a Terminate message the last that is sent. It reports false
// where a batch is being written, which nothing can follow in time.
func (q *sendQueue) abort(message []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.terminate, q.held, q.more = message, false, true
	return !q.writing
}

// next gives out the message that is to be cut to FPDUs next, if there is one.
// The caller has the right to write.
func (q *sendQueue) next(regions *regionTable) (m message, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.terminate != nil:
		if q.ended {
			return m, false
		}
		q.ended = true
		return message{op: opTerminate, head: q.terminate, last: true}, true
	case q.rtr == RTRWrite:
		q.rtr = 0
		return message{op: opWrite, region: noRegion}, true
	case q.rtr == RTRRead:
		q.rtr = 0
		return q.read(regions, 0, &item{}, true), true
	}
	post := q.built < q.tail && (q.items[q.built%uint64(len(q.items))].op != rdma.OpRead ||
		q.readTail-q.readHed < uint64(len(q.reads)))
	switch {
	case q.cut < q.asked && (q.answerNext || !post):
		q.answerNext = false
		r := &q.responses[q.cut%uint64(len(q.responses))]
		q.cut++
		m = message{op: opReadResponse, data: r.data, stag: r.stag, to: r.to, region: r.region}
		r.data = nil
		return m, true
	case post:
		q.answerNext = true
		it := &q.items[q.built%uint64(len(q.items))]
		m = q.request(regions, q.built, it)
		q.built++
		return m, true
	}
	return m, false
}

// request makes the message of a posted request.
func (q *sendQueue) request(regions *regionTable, number uint64, it *item) message {
	switch it.op {
	case rdma.OpWrite:
		return message{op: opWrite, data: it.data, stag: uint32(it.remote.Key), to: it.remote.Addr, region: noRegion}
	case rdma.OpRead:
		return q.read(regions, number, it, false)
	case rdma.OpSendInvalidate:
		return message{op: opSendInvalidate, head: it.head, data: it.data, stag: uint32(it.remote.Key), region: noRegion}
	}
	return message{op: opSend, head: it.head, data: it.data, region: noRegion}
}

// read makes the request of an RDMA Read and notes that it is under way.
func (q *sendQueue) read(regions *regionTable, number uint64, it *item, rtr bool) message {
	place := q.readTail % uint64(len(q.reads))
	r := &q.reads[place]
	q.readTail++
	if r.stag == 0 {
		r.stag = regions.stag(uint32(len(regions.entries))+uint32(place), 0)
	}
	*r = read{item: number, rtr: rtr, stag: regions.nextSTag(r.stag), to: it.sink, mem: it.data}
	request := readRequest{
		sinkSTag: r.stag, sinkTO: r.to, length: uint32(len(r.mem)),
		srcSTag: uint32(it.remote.Key), srcTO: it.remote.Addr,
	}
	return message{op: opReadRequest, head: request.append(q.request28[:0]), region: noRegion}
}

// take begins to write: it returns the next batch, or nil where there is
// nothing, or where someone else is writing (who will come back for it).
func (q *sendQueue) take(regions *regionTable) *batch {
	for q.claim() {
		q.fill(&q.batch, regions)
		if len(q.batch.vector) > 0 {
			return &q.batch
		}
		q.done() // the first request waits for a Read to be answered
	}
	return nil
}

// claim takes the right to write, where there may be something.
func (q *sendQueue) claim() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.writing || q.closed || q.held || !q.more && !q.cutter.active {
		return false
	}
	q.writing, q.more = true, false
	return true
}

// fill cuts messages to FPDUs until the batch is full. What is left then is for
// the next one, also where the last message has ended with this one.
func (q *sendQueue) fill(b *batch, regions *regionTable) {
	b.reset()
	for {
		if !b.room() {
			q.mu.Lock()
			q.more = true
			q.mu.Unlock()
			return
		}
		if q.cutter.active && q.aborted() {
			q.cutter.active = false
		}
		if !q.cutter.active {
			m, ok := q.next(regions)
			if !ok {
				break
			}
			q.cutter.begin(m)
		}
		if q.cutter.segment(b) {
			q.finish(b)
		}
	}
}

// finish notes that a message is in the batch to its end.
func (q *sendQueue) finish(b *batch) {
	m := q.cutter.message
	q.cutter.message = message{}
	if m.op != opReadResponse {
		b.requests = q.built
		return
	}
	if m.region != noRegion {
		b.regions = append(b.regions, m.region)
	}
	q.mu.Lock()
	q.answered++
	q.mu.Unlock()
}

func (q *sendQueue) aborted() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.terminate != nil
}

// written notes that the batch has left. It reports whether the handler is to
// be told at once of what is done now.
func (q *sendQueue) written() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	prompt := false
	for ; q.sent < q.batch.requests; q.sent++ {
		it := &q.items[q.sent%uint64(len(q.items))]
		if it.op != rdma.OpRead {
			it.complete = true
		}
		it.head, it.data = nil, nil
		prompt = prompt || it.complete && (it.signal || it.op == rdma.OpRead)
	}
	for _, r := range q.batch.regions {
		q.pending[r]--
		if q.pending[r] == 0 && q.waiting[r] {
			q.waiting[r] = false
			q.released = append(q.released, r)
		}
	}
	return prompt || len(q.released) > 0 || q.sent-q.head >= uint64(max(1, len(q.items)/2))
}

// finished gives out the next request that is done, or the next region that is
// released: one of the two.
func (q *sendQueue) finished() (id uint64, request bool, region uint32, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.released); n > 0 {
		region = q.released[n-1]
		q.released = q.released[:n-1]
		return 0, false, region, true
	}
	if q.head < q.sent {
		if it := &q.items[q.head%uint64(len(q.items))]; it.complete {
			q.head++
			return it.id, true, 0, true
		}
	}
	return 0, false, 0, false
}

// done ends what take began.
func (q *sendQueue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writing = false
	if q.closed {
		q.idle.Broadcast()
	}
}

// close ends all writing: take gives nothing any more. It waits until who is
// writing now has ended.
func (q *sendQueue) close() {
	q.mu.Lock()
	q.closed = true
	for q.writing {
		q.idle.Wait()
	}
	q.mu.Unlock()
}
