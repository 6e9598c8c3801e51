package tcp

import (
	"sync"

	"golang.org/x/sys/unix"

	"iscsictl/iscsi"
)

// controlMax bounds what is queued of PDUs that are not part of a task, in
// bytes: a target that asks for answers and reads none must not fill our memory.
const controlMax = 1 << 20

var zeroes [4]byte

// batch is a run of PDUs on its way to the socket: headers, digests and padding
// are in text, payload is where it was lent. The vector refers to both.
type batch struct {
	text   []byte
	vector []unix.Iovec
	tasks  []uint32 // the task of each payload in the vector
}

func (b *batch) reset() {
	b.text, b.vector, b.tasks = b.text[:0], b.vector[:0], b.tasks[:0]
}

// sendQueue takes PDUs in (under the session's lock) and gives them out to
// whoever writes, a batch at a time. Its own lock is held for moments only.
type sendQueue struct {
	mu      sync.Mutex
	idle    sync.Cond // signalled when writing becomes false
	next    *batch    // being filled
	out     *batch    // being written, by who has set writing
	writing bool
	closed  bool
	control int // bytes of next that are not part of a task

	pending []uint32 // by task: payloads queued and not yet written
	waiting []bool   // by task: its end waits for pending to be 0
	ended   []uint32 // tasks that the batch just written has released; the writer's

	headerDigest, dataDigest bool
}

func (q *sendQueue) init(tasks int, headerDigest, dataDigest bool) {
	q.idle.L = &q.mu
	q.next, q.out = newBatch(), newBatch()
	q.pending, q.waiting = make([]uint32, tasks), make([]bool, tasks)
	q.ended = make([]uint32, 0, tasks)
	q.headerDigest, q.dataDigest = headerDigest, dataDigest
}

func newBatch() *batch {
	return &batch{text: make([]byte, 0, 16<<10), vector: make([]unix.Iovec, 0, 256), tasks: make([]uint32, 0, 256)}
}

// put queues a PDU of a task; its payload stays where it is until it has been written.
func (q *sendQueue) put(h *iscsi.BHS, payload []byte, task uint32) {
	q.mu.Lock()
	b := q.next
	q.header(b, h)
	if len(payload) > 0 {
		b.vector = append(b.vector, iovec(payload))
		b.tasks = append(b.tasks, task)
		q.pending[task]++
		start := len(b.text)
		pad := zeroes[:iscsi.Pad(len(payload))]
		b.text = append(b.text, pad...)
		if q.dataDigest {
			crc := iscsi.DigestUpdate(iscsi.DigestUpdate(0, payload), pad)
			b.text = appendDigest(b.text, crc)
		}
		b.addText(start)
	}
	q.mu.Unlock()
}

// putControl queues a PDU whose data is copied. It reports false where so much
// is queued already that the connection should be given up.
func (q *sendQueue) putControl(h *iscsi.BHS, data []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.next
	q.control += iscsi.BHSLen + len(data)
	if q.control > controlMax {
		return false
	}
	q.header(b, h)
	if len(data) > 0 {
		start := len(b.text)
		b.text = append(b.text, data...)
		b.text = append(b.text, zeroes[:iscsi.Pad(len(data))]...)
		if q.dataDigest {
			b.text = appendDigest(b.text, iscsi.DigestUpdate(0, b.text[start:]))
		}
		b.addText(start)
	}
	return true
}

func (q *sendQueue) header(b *batch, h *iscsi.BHS) {
	start := len(b.text)
	b.text = append(b.text, h[:]...)
	if q.headerDigest {
		b.text = appendDigest(b.text, iscsi.DigestUpdate(0, h[:]))
	}
	b.addText(start)
}

func appendDigest(b []byte, crc uint32) []byte {
	b = append(b, 0, 0, 0, 0)
	iscsi.PutDigest(b[len(b)-4:], crc)
	return b
}

// addText adds what was appended to text since start to the vector: to its last
// piece, where that ends just there. (When append has moved text, earlier
// pieces go on referring to the old memory, whose content is the same.)
func (b *batch) addText(start int) {
	piece := b.text[start:]
	if len(piece) == 0 {
		return
	}
	if n := len(b.vector); n > 0 && follows(b.vector[n-1], piece) {
		b.vector[n-1].Len += uint64(len(piece))
		return
	}
	b.vector = append(b.vector, iovec(piece))
}

// hold reports whether payloads of the task are still queued; if so, the task
// will be among those that written returns.
func (q *sendQueue) hold(task uint32) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending[task] == 0 {
		return false
	}
	q.waiting[task] = true
	return true
}

// take begins to write: it returns what is to be written, or nil where there is
// nothing, or where someone else is writing (who will come back for it).
func (q *sendQueue) take() *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.writing || q.closed || len(q.next.vector) == 0 {
		return nil
	}
	q.writing = true
	q.next, q.out = q.out, q.next
	q.control = 0
	return q.out
}

// written notes that the batch has left, and returns the tasks that were waiting
// for that. The right to write stays with the caller until done.
func (q *sendQueue) written() []uint32 {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = q.ended[:0]
	for _, t := range q.out.tasks {
		q.pending[t]--
		if q.pending[t] == 0 && q.waiting[t] {
			q.waiting[t] = false
			q.ended = append(q.ended, t)
		}
	}
	q.out.reset()
	return q.ended
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
