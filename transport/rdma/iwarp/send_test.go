package iwarp

import (
	"slices"
	"testing"

	"iscsictl/transport/rdma"
)

// TestAnswersCountToTheirEnd: a peer may ask for another Read only when the
// answer to an earlier one has been cut to FPDUs to its end.
func TestAnswersCountToTheirEnd(t *testing.T) {
	var q sendQueue
	q.init(1, 1, 1, 1, mulpduMax, true, Faults{})
	long := response{data: make([]byte, 3*batchBytes), region: noRegion, stag: 1}
	if !q.answer(long) {
		t.Fatal("the first Read was refused")
	}
	batches := 0
	for b := q.take(nil); b != nil; b = q.take(nil) {
		if ended := q.answered == 1; q.answer(long) != ended {
			t.Fatalf("batch %d: another Read is let in: %v, while the answer has ended: %v", batches, !ended, ended)
		} else if ended {
			q.asked-- // not to be answered here
		}
		batches++
		q.written()
		q.done()
	}
	if batches < 3 || q.answered != 1 {
		t.Errorf("%d batches, %d answers", batches, q.answered)
	}
}

// TestAnswersAndRequestsTakeTurns: neither side's Reads nor our own messages
// keep the other waiting.
func TestAnswersAndRequestsTakeTurns(t *testing.T) {
	var q sendQueue
	q.init(4, 4, 1, 1, mulpduMax, true, Faults{})
	for i := range 3 {
		if err := q.post(item{id: uint64(i), op: rdma.OpSend, head: []byte{1}}); err != nil {
			t.Fatal(err)
		}
		if !q.answer(response{data: []byte{1}, region: noRegion, stag: 1}) {
			t.Fatal("a Read was refused")
		}
	}
	var order []opcode
	for m, ok := q.next(nil); ok; m, ok = q.next(nil) {
		order = append(order, m.op)
	}
	for i := 1; i < len(order); i++ {
		if order[i] == order[i-1] {
			t.Errorf("order %v", order)
			break
		}
	}
	if n := len(order); n != 6 || !slices.Contains(order, opReadResponse) {
		t.Errorf("%d messages: %v", n, order)
	}
}
