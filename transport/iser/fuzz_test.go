package iser

import (
	"encoding/binary"
	"testing"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/transport"
	"iscsictl/transport/rdma"
)

// FuzzReceived lets a target send whatever it likes while commands are with it.
// The input is a sequence of messages: two bytes of length, one that says which
// region is invalidated, and the message. However it goes, no task ends twice,
// none has more data than its memory, and what has ended has nothing lent.
func FuzzReceived(f *testing.F) {
	add := func(p interface{ Encode(*iscsi.BHS) }, data []byte, key byte) []byte {
		var h iscsi.BHS
		p.Encode(&h)
		h.SetDataSegmentLength(len(data))
		var b []byte
		b = binary.BigEndian.AppendUint16(b, uint16(headersLength+len(data)))
		m := make([]byte, headersLength)
		put(m, &iscsi.ISERHeader{}, &h)
		return append(append(append(b, key), m...), data...)
	}
	good := func(itt uint32, key byte) []byte { return add(&iscsi.SCSIResponse{InitiatorTaskTag: itt}, nil, key) }
	all := append(append(good(1, 0), good(2, 1)...), append(good(3, 0), good(4, 0)...)...)
	f.Add(all)
	f.Add(append(all, good(1, 0)...))
	f.Add(add(&iscsi.SCSIResponse{InitiatorTaskTag: 2, Status: 2, Underflow: true, Residual: 1 << 30}, []byte{0, 4, 0x70, 0, 5, 0}, 0))
	f.Add(add(&iscsi.NOPIn{InitiatorTaskTag: 0xffffffff, TargetTransferTag: 7}, []byte("ping"), 0))
	f.Add(add(&iscsi.DataIn{InitiatorTaskTag: 2, DataSegmentLength: 4}, []byte("data"), 0))
	f.Add(add(&iscsi.R2T{InitiatorTaskTag: 1, DesiredLength: 512}, nil, 0))
	f.Add(add(&iscsi.SCSIResponse{InitiatorTaskTag: 2}, nil, 3))
	a, err := arena.New(1 << 20)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newStandOn(t, a, 8)
		for _, task := range []*transport.Task{s.command(1, 100_000, 0), s.command(2, 0, 64<<10), s.command(3, 512, 0), s.command(4, 0, 0)} {
			defer task.In.Free()
			defer task.Out.Free()
		}
		lengths := map[uint32]int{1: 0, 2: 64 << 10} // of memory to read into
		for len(in) >= 3 {
			n := min(int(binary.BigEndian.Uint16(in)), len(in)-3, slotSize)
			m := make([]byte, n)
			copy(m, in[3:])
			key := rdma.Key(in[2] & 3)
			in = in[3+n:]
			if err := s.mover.Received(0, m, key); err != nil {
				break
			}
			s.complete(min(1, len(s.card.posted)-s.card.done))
		}
		s.complete(len(s.card.posted) - s.card.done)
		for itt, r := range s.table.results {
			if r.Received < 0 || r.Received > lengths[itt] {
				t.Errorf("task %d has %d bytes of %d", itt, r.Received, lengths[itt])
			}
		}
		for itt := range uint32(3) { // those with memory that is lent
			if s.table.tasks[itt] == nil {
				delete(lengths, itt)
			}
		}
		if len(s.card.granted) != len(lengths) {
			t.Errorf("%d regions are lent to %d tasks", len(s.card.granted), len(lengths))
		}
	})
}
