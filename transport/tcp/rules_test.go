package tcp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"iscsictl/arena"
	"iscsictl/iscsi"
)

// TestUnsolicitedData checks RFC 7143 §4.2.5.2, §13.10, §13.11 and §13.14: how
// much goes with the command, how much behind it, and the F bits.
func TestUnsolicitedData(t *testing.T) {
	for _, c := range []struct {
		immediate, initialR2T     bool
		firstBurst, maxSend, size int
		want                      []int // data segment of the command and of each Data-Out
	}{
		{false, true, 65536, 8192, 4096, []int{0}},
		{true, true, 65536, 8192, 4096, []int{4096}},
		{true, true, 65536, 8192, 20000, []int{8192}},
		{true, true, 4096, 8192, 20000, []int{4096}},
		{false, false, 20000, 8192, 100000, []int{0, 8192, 8192, 3616}},
		{true, false, 20000, 8192, 100000, []int{8192, 8192, 3616}},
		{true, false, 65536, 8192, 8193, []int{8192, 1}},
		{true, false, 65536, 65536, 512, []int{512}},
		{true, false, 65536, 8192, 0, []int{0}},
	} {
		t.Run(fmt.Sprintf("immediate=%v,initialR2T=%v,first=%d,size=%d", c.immediate, c.initialR2T, c.firstBurst, c.size), func(t *testing.T) {
			p := defaults()
			p.ImmediateData, p.InitialR2T, p.FirstBurstLength, p.MaxSendDataSegmentLength = c.immediate, c.initialR2T, c.firstBurst, c.maxSend
			s := newStand(t, p)
			task := s.command(3, c.size, 0)
			list, data := readPDUs(t, s.sent())
			if len(list) != len(c.want) {
				t.Fatalf("%d PDUs, want %d", len(list), len(c.want))
			}
			at := 0
			for i, h := range list {
				if len(data[i]) != c.want[i] || !bytes.Equal(data[i], task.Out.Bytes()[at:at+len(data[i])]) {
					t.Errorf("PDU %d has %d bytes, want %d, of the data from %d", i, len(data[i]), c.want[i], at)
				}
				// The last PDU of the unsolicited sequence has F; without
				// unsolicited Data-Out that is the command.
				if h.Final() != (i == len(list)-1) {
					t.Errorf("PDU %d: F is %v", i, h.Final())
				}
				if i == 0 {
					at += len(data[i])
					continue
				}
				var d iscsi.DataOut
				if err := d.Decode(&h); err != nil {
					t.Fatal(err)
				}
				if d.TargetTransferTag != 0xffffffff || d.DataSN != uint32(i-1) || d.BufferOffset != uint32(at) || d.InitiatorTaskTag != 3 || d.ExpStatSN != 77 {
					t.Errorf("Data-Out %d is %+v", i, d)
				}
				at += len(data[i])
			}
		})
	}
}

// TestR2T checks §11.7 and §11.8: the answer to an R2T, and the R2Ts that end a connection.
func TestR2T(t *testing.T) {
	s := newStand(t, defaults())
	task := s.command(1, 30000, 0) // 8192 bytes go with the command
	s.sent()
	r := iscsi.R2T{InitiatorTaskTag: 1, TargetTransferTag: 0x1234, LUN: 9, BufferOffset: 8192, DesiredLength: 10000}
	if err := s.feed(pdu(&r, nil, false, false), whole); err != nil {
		t.Fatal(err)
	}
	r.R2TSN, r.TargetTransferTag, r.BufferOffset, r.DesiredLength = 1, 0x1235, 18192, 11808
	if err := s.feed(pdu(&r, nil, false, false), whole); err != nil {
		t.Fatal(err)
	}
	list, data := readPDUs(t, s.sent())
	want := []struct {
		tag, sn, offset uint32
		size            int
		final           bool
	}{{0x1234, 0, 8192, 8192, false}, {0x1234, 1, 16384, 1808, true}, {0x1235, 0, 18192, 8192, false}, {0x1235, 1, 26384, 3616, true}}
	if len(list) != len(want) {
		t.Fatalf("%d Data-Out, want %d", len(list), len(want))
	}
	for i, w := range want {
		var d iscsi.DataOut
		if err := d.Decode(&list[i]); err != nil {
			t.Fatal(err)
		}
		if d.TargetTransferTag != w.tag || d.DataSN != w.sn || d.BufferOffset != w.offset || len(data[i]) != w.size || d.Final != w.final ||
			d.LUN != task.Command.LUN || !bytes.Equal(data[i], task.Out.Bytes()[w.offset:int(w.offset)+w.size]) {
			t.Errorf("Data-Out %d is %+v with %d bytes, want %+v", i, d, len(data[i]), w)
		}
	}
	for name, bad := range map[string]iscsi.R2T{
		"gap in R2TSN":      {R2TSN: 1, BufferOffset: 8192, DesiredLength: 100},
		"beyond the buffer": {BufferOffset: 29000, DesiredLength: 1001},
		"offset wraps":      {BufferOffset: 0xffffff00, DesiredLength: 0x200},
		"asks again":        {BufferOffset: 0, DesiredLength: 8192},
		"for nothing":       {BufferOffset: 8192},
		"over MaxBurst":     {BufferOffset: 8192, DesiredLength: 262145},
		"unknown task":      {InitiatorTaskTag: 5, BufferOffset: 8192, DesiredLength: 100},
		"reserved tag":      {TargetTransferTag: 0xffffffff, BufferOffset: 8192, DesiredLength: 100},
		"for a read":        {InitiatorTaskTag: 2, DesiredLength: 100},
	} {
		s := newStand(t, defaults())
		s.command(1, 30000, 0)
		s.command(2, 0, 4096)
		if bad.InitiatorTaskTag == 0 {
			bad.InitiatorTaskTag = 1
		}
		s.sent()
		if err := s.feed(pdu(&bad, nil, false, false), whole); err == nil {
			t.Errorf("an R2T %s was accepted", name)
		}
		if b := s.sent(); b != nil {
			t.Errorf("an R2T %s was answered with %d bytes", name, len(b))
		}
	}
}

// TestDataIn checks §11.7: placement, status, and what ends a connection.
func TestDataIn(t *testing.T) {
	payload := make([]byte, 10000)
	for i := range payload {
		payload[i] = byte(i * 3)
	}
	for _, digests := range []bool{false, true} {
		p := defaults()
		p.HeaderDigest, p.DataDigest = digests, digests
		s := newStand(t, p)
		task := s.command(1, 0, 10000)
		first := iscsi.DataIn{InitiatorTaskTag: 1, TargetTransferTag: 0xffffffff}
		second := iscsi.DataIn{InitiatorTaskTag: 1, TargetTransferTag: 0xffffffff, DataSN: 1, BufferOffset: 6001, Final: true, HasStatus: true, Status: 2, StatSN: 9}
		stream := append(pdu(&first, payload[:6001], digests, digests), pdu(&second, payload[6001:9999], digests, digests)...)
		// In pieces of every size up to 70, and whole.
		for n := 1; n <= 71; n++ {
			clear(task.In.Bytes())
			s.table.tasks[1] = task
			s.rules.Command(task)
			s.sent()
			delete(s.table.results, 1)
			step := func() int { return n }
			if n == 71 {
				step = whole
			}
			if err := s.feed(stream, step); err != nil {
				t.Fatalf("digests %v, in pieces of %d: %v", digests, n, err)
			}
			r, ok := s.table.results[1]
			if !ok || r.Received != 9999 || r.Status != 2 || !bytes.Equal(task.In.Bytes()[:9999], payload[:9999]) || task.In.Bytes()[9999] != 0 {
				t.Fatalf("digests %v, in pieces of %d: result %+v, ended %v", digests, n, r, ok)
			}
		}
	}
	for name, bad := range map[string]iscsi.DataIn{
		"gap in DataSN":     {InitiatorTaskTag: 1, DataSN: 1},
		"out of order":      {InitiatorTaskTag: 1, BufferOffset: 4},
		"unknown task":      {InitiatorTaskTag: 8},
		"for a write":       {InitiatorTaskTag: 2},
		"beyond the buffer": {InitiatorTaskTag: 3},
	} {
		s := newStand(t, defaults())
		s.command(1, 0, 4096)
		s.command(2, 4096, 0)
		small := s.command(3, 0, 63)
		guard := small.In.Bytes()[:63:63]
		if err := s.feed(pdu(&bad, payload[:64], false, false), whole); err == nil {
			t.Errorf("Data-In %s was accepted", name)
		}
		for _, b := range guard {
			if b != 0 {
				t.Errorf("Data-In %s was stored", name)
				break
			}
		}
	}
}

func TestDigestErrors(t *testing.T) {
	p := defaults()
	p.HeaderDigest, p.DataDigest = true, true
	good := pdu(&iscsi.DataIn{InitiatorTaskTag: 1, HasStatus: true, Final: true}, make([]byte, 1001), true, true)
	for at := range good {
		s := newStand(t, p)
		s.command(1, 0, 1001)
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		err := s.feed(bad, whole)
		if at >= 4 && at < 8 && err == nil {
			// A length that grew: more bytes are awaited, none believed.
			if _, done := s.table.results[1]; !done {
				continue
			}
		}
		want := errDataDigest
		if at < iscsi.BHSLen+4 {
			want = errHeaderDigest
		}
		if err != want {
			t.Errorf("a wrong bit in byte %d gave %v, want %v", at, err, want)
		}
		if _, done := s.table.results[1]; done {
			t.Errorf("a wrong bit in byte %d ended the task", at)
		}
	}
}

// TestResponseWaitsForQueuedData: the target may end a write before all of its
// data has left; its extent is not given back before that.
func TestResponseWaitsForQueuedData(t *testing.T) {
	s := newStand(t, defaults())
	task := s.command(1, 4096, 0)
	sense := append([]byte{0, 4}, 0x70, 0, 5, 0)
	if err := s.feed(pdu(&iscsi.SCSIResponse{InitiatorTaskTag: 1, Status: 2, StatSN: 5}, sense, false, false), whole); err != nil {
		t.Fatal(err)
	}
	if len(s.table.results) != 0 {
		t.Fatal("the task has ended with its data in the queue")
	}
	if _, data := readPDUs(t, s.sent()); !bytes.Equal(data[0], task.Out.Bytes()) {
		t.Fatal("the data did not leave")
	}
	if r := s.table.results[1]; r.Status != 2 || !bytes.Equal(s.table.sense[1], []byte{0x70, 0, 5, 0}) {
		t.Fatalf("result %+v, sense %x", r, s.table.sense[1])
	}
}

func TestAbortWaitsForQueuedData(t *testing.T) {
	s := newStand(t, defaults())
	s.rules.Abort(s.command(1, 4096, 0))
	if len(s.table.results) != 0 {
		t.Fatal("the task has ended with its data in the queue")
	}
	s.sent()
	if r, ok := s.table.results[1]; !ok || !r.Aborted {
		t.Fatalf("result %+v", r)
	}
	s.rules.Abort(s.command(2, 0, 4096)) // nothing of it but the header is queued
	if r, ok := s.table.results[2]; !ok || !r.Aborted {
		t.Fatalf("result %+v", r)
	}
}

func TestScsiResponse(t *testing.T) {
	for name, c := range map[string]struct {
		p    iscsi.SCSIResponse
		data []byte
	}{
		"unknown task":    {iscsi.SCSIResponse{InitiatorTaskTag: 9}, nil},
		"data is missing": {iscsi.SCSIResponse{InitiatorTaskTag: 1, ExpDataSN: 1}, nil},
		"sense is cut":    {iscsi.SCSIResponse{InitiatorTaskTag: 1, Status: 2}, []byte{0, 9, 1, 2}},
	} {
		s := newStand(t, defaults())
		s.command(1, 0, 4096)
		if err := s.feed(pdu(&c.p, c.data, false, false), whole); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestControlPDUs(t *testing.T) {
	s := newStand(t, defaults())
	long := bytes.Repeat([]byte("abcd"), 16000)
	stream := append(pdu(&iscsi.NOPIn{InitiatorTaskTag: 0xffffffff, TargetTransferTag: 1}, long, false, false),
		pdu(&iscsi.AsyncMessage{}, []byte("xyz"), false, false)...)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	if err := s.feed(stream, func() int { return 1 + r.IntN(5000) }); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if len(s.table.text) != 2 || !bytes.Equal(s.table.text[0], long) || string(s.table.text[1]) != "xyz" {
		t.Errorf("seed %d: %d PDUs came through", seed, len(s.table.text))
	}
	if err := s.feed(pdu(&iscsi.NOPIn{}, make([]byte, 65537), false, false), whole); err == nil || !strings.Contains(err.Error(), "65536") {
		t.Errorf("a data segment over the declared length gave %v", err)
	}
}

// TestEndlessPings: a target that makes us answer and reads nothing must not
// fill our memory.
func TestEndlessPings(t *testing.T) {
	s := newStand(t, defaults())
	var h iscsi.BHS
	for range 100_000 {
		s.rules.Control(&h, make([]byte, 4096))
		if s.rules.failed != nil {
			break
		}
	}
	if s.rules.failed == nil {
		t.Error("the queue has no bound")
	}
	if n := len(s.rules.send.next.text); n > 2*controlMax {
		t.Errorf("%d bytes were queued", n)
	}
}

func TestTaskDoesNotAllocate(t *testing.T) {
	p := defaults()
	p.HeaderDigest, p.DataDigest = true, true
	s := newStand(t, p)
	in := s.command(1, 0, 8192)
	out := s.command(2, 20000, 0)
	s.sent()
	data := pdu(&iscsi.DataIn{InitiatorTaskTag: 1, HasStatus: true, Final: true}, make([]byte, 8192), true, true)
	ready := pdu(&iscsi.R2T{InitiatorTaskTag: 2, TargetTransferTag: 7, BufferOffset: 8192, DesiredLength: 11808}, nil, true, true)
	end := pdu(&iscsi.SCSIResponse{InitiatorTaskTag: 2}, nil, true, true)
	write := func() {
		if s.rules.send.take() != nil {
			s.rules.send.written()
			s.rules.send.done()
		}
	}
	if n := testing.AllocsPerRun(1000, func() {
		s.table.tasks[1], s.table.tasks[2] = in, out
		s.table.numbers = s.table.numbers[:0]
		s.rules.Command(in)
		s.rules.Command(out)
		write()
		for _, b := range [][]byte{data, ready} {
			if err := s.feed(b, whole); err != nil {
				t.Fatal(err)
			}
		}
		write()
		if err := s.feed(end, whole); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a read and a write", n)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(pdu(&iscsi.DataIn{InitiatorTaskTag: 1, HasStatus: true, Final: true}, make([]byte, 100), false, false), uint8(7), false)
	f.Add(pdu(&iscsi.R2T{InitiatorTaskTag: 2, DesiredLength: 100, BufferOffset: 8192}, nil, true, false), uint8(1), true)
	f.Add(pdu(&iscsi.SCSIResponse{InitiatorTaskTag: 1, Status: 2}, []byte{0, 2, 1, 2}, false, false), uint8(255), false)
	a, err := arena.New(4 << 20)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, stream []byte, size uint8, digests bool) {
		p := defaults()
		p.HeaderDigest, p.DataDigest = digests, digests
		s := newStandOn(t, p, a)
		read := s.command(1, 0, 4096)
		write := s.command(2, 20000, 0)
		before := bytes.Clone(write.Out.Bytes())
		guard := s.extent(4096)
		clear(guard.Bytes())
		_ = s.feed(stream, func() int { return 1 + int(size) })
		if !bytes.Equal(before, write.Out.Bytes()) {
			t.Error("the data of a write was changed")
		}
		for _, b := range guard.Bytes() {
			if b != 0 {
				t.Fatal("memory that was not lent was written to")
			}
		}
		s.sent()
		if len(s.table.tasks) > 2 {
			t.Error("tasks came from nowhere")
		}
		read.In.Free()
		write.Out.Free()
		guard.Free()
	})
}
