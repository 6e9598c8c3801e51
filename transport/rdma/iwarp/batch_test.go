package iwarp

import (
	"testing"

	"iscsictl/transport/rdma"
)

// TestFullBatches: wherever a batch ends, within a message or with one, what is
// left is given out without anything new being posted.
func TestFullBatches(t *testing.T) {
	for _, size := range []int{1000, 63_984, 64_000, 100_000, 128 << 10, batchBytes, 1 << 20} {
		const depth = 64
		var q sendQueue
		q.init(depth, 1, 1, 1, 64_000, true, Faults{})
		data := make([]byte, size)
		for i := range depth {
			if err := q.post(item{id: uint64(i), op: rdma.OpWrite, data: data, remote: rdma.Region{Key: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		for b := q.take(nil); b != nil; b = q.take(nil) {
			q.written()
			q.done()
		}
		if q.sent != depth {
			t.Errorf("%d of %d messages of %d bytes left; the rest waits for ever", q.sent, depth, size)
		}
	}
}
