package rdmatest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
)

func testSend(t *testing.T, rig Rig) {
	p := Connect(t, rig, nil)
	want := []string{"a", "bc", "", "def", string(bytes.Repeat([]byte("x"), 4096))}
	for i, s := range want {
		if s == "" {
			p.Active.Post(rdma.WorkRequest{ID: uint64(i), Op: rdma.OpSend, Signal: true})
			continue
		}
		p.Active.text(uint64(i), i, s)
	}
	for i, m := range p.Passive.AwaitReceived(len(want)) {
		if string(m.Data) != want[i] || m.Invalidated != 0 {
			t.Errorf("message %d is %.20q (%d bytes, invalidates %#x), want %.20q", i, m.Data, len(m.Data), m.Invalidated, want[i])
		}
	}
	if done := p.Active.AwaitDone(len(want)); !slices.Equal(done, []uint64{0, 1, 2, 3, 4}) {
		t.Errorf("done are %v", done)
	}
	p.Passive.text(7, 0, "back")
	if m := p.Active.AwaitReceived(1); string(m[0].Data) != "back" {
		t.Errorf("the answer is %q", m[0].Data)
	}
}

func testSendGathers(t *testing.T, rig Rig) {
	p := Connect(t, rig, nil)
	data := p.Active.Alloc(4096, 'd').Slice(3, 4003)
	for i, head := range []int{1, 76, 300, 4096} {
		copy(p.Active.Conn.SendSlot(i), bytes.Repeat([]byte("h"), head))
		p.Active.Post(rdma.WorkRequest{ID: uint64(i), Op: rdma.OpSend, Signal: true, Slot: i, Head: head, Data: data})
		m := p.Passive.AwaitReceived(i + 1)[i].Data
		if want := append(bytes.Repeat([]byte("h"), head), data.Bytes()...); !bytes.Equal(m, want) {
			t.Errorf("with a head of %d: %d bytes came, want %d", head, len(m), len(want))
		}
	}
	p.Active.Post(rdma.WorkRequest{ID: 9, Op: rdma.OpSend, Signal: true, Data: data})
	if m := p.Passive.AwaitReceived(5)[4].Data; !bytes.Equal(m, data.Bytes()) {
		t.Errorf("without a head: %d bytes came, want %d", len(m), data.Len())
	}
}

func testSendsFillTheQueue(t *testing.T, rig Rig) {
	p := Establish(t, rig, func(a, b *rdma.Options) { a.SendDepth = 4; b.Receives = 64 })
	a := p.Active
	post := func(id uint64) error {
		copy(a.Conn.SendSlot(0), "x")
		return a.Conn.Post(rdma.WorkRequest{ID: id, Op: rdma.OpSend, Slot: 0, Head: 1})
	}
	for i := range uint64(4) {
		if err := post(i); err != nil {
			t.Fatalf("post %d: %v", i, err)
		}
	}
	if err := post(4); !errors.Is(err, rdma.ErrFull) {
		t.Fatalf("the fifth post of four: %v", err)
	}
	p.Passive.Start()
	a.Start()
	// Without Signal, Done must come all the same before the queue stays full.
	for i := uint64(4); i < 40; i++ {
		a.await("room in the queue", func() bool { return int(i)-len(a.done) < 4 })
		a.Enter()
		err := post(i)
		a.Leave()
		if err != nil {
			t.Fatalf("post %d with %d done: %v", i, len(a.done), err)
		}
	}
	p.Passive.AwaitReceived(40)
}

func testReceivesAreReposted(t *testing.T, rig Rig) {
	const receives = 4
	p := Connect(t, rig, func(a, b *rdma.Options) { b.Receives = receives })
	p.Passive.Enter()
	p.Passive.keep = true
	p.Passive.Leave()
	for round := range 5 {
		for i := range receives {
			p.Active.text(uint64(round*receives+i), i, fmt.Sprint(round, i))
		}
		got := p.Passive.AwaitReceived((round + 1) * receives)
		p.Passive.Enter()
		slots := slices.Sorted(slices.Values(p.Passive.kept))
		if !slices.Equal(slots, []int{0, 1, 2, 3}) {
			t.Errorf("round %d used the slots %v", round, slots)
		}
		for _, s := range p.Passive.kept {
			p.Passive.Conn.Repost(s)
		}
		p.Passive.kept = p.Passive.kept[:0]
		p.Passive.Leave()
		for i := range receives {
			if m := got[round*receives+i]; string(m.Data) != fmt.Sprint(round, i) {
				t.Errorf("round %d: message %d is %q", round, i, m.Data)
			}
		}
		p.Active.AwaitDone((round + 1) * receives)
	}
}

func testWrite(t *testing.T, rig Rig) {
	p := Connect(t, rig, nil)
	const n = 1 << 20
	source, sink := p.Passive.Alloc(n, 0), p.Active.Alloc(n, 0xee)
	fill(t, source)
	r := p.Active.Grant(1, sink, rdma.RemoteWrite)
	copy(p.Passive.Conn.SendSlot(0), "done")
	// The peer speaks first, or it must not be spoken to.
	p.Active.text(1, 0, "go")
	p.Passive.AwaitReceived(1)
	p.Passive.Post(
		rdma.WorkRequest{ID: 1, Op: rdma.OpWrite, Data: source, Remote: r},
		rdma.WorkRequest{ID: 2, Op: rdma.OpSend, Signal: true, Slot: 0, Head: 4},
	)
	p.Active.AwaitReceived(1)
	if !bytes.Equal(sink.Bytes(), source.Bytes()) {
		t.Error("the data are not there when the message behind them is")
	}
	if done := p.Passive.AwaitDone(2); !slices.Equal(done, []uint64{1, 2}) {
		t.Errorf("done are %v", done)
	}
	p.Active.Revoke(1, r)
}

func fill(t *testing.T, e arena.Extent) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range e.Bytes() {
		e.Bytes()[i] = byte(r.Uint32())
	}
}

func testWriteUnaligned(t *testing.T, rig Rig) {
	p := Connect(t, rig, nil)
	const n = 1 << 18
	source, sink := p.Passive.Alloc(n, 0), p.Active.Alloc(n, 0)
	fill(t, source)
	r := p.Active.Grant(1, sink, rdma.RemoteWrite)
	p.Active.text(0, 0, "go")
	p.Passive.AwaitReceived(1)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	want := make([]byte, n)
	for i := range 40 {
		from, size := rnd.IntN(n), rnd.IntN(n/4)
		if i%2 == 0 {
			size = rnd.IntN(64)
		}
		size = min(size, n-from)
		at := rnd.IntN(n - size + 1)
		copy(want[at:], source.Bytes()[from:from+size])
		p.Passive.Post(rdma.WorkRequest{
			ID: uint64(i), Op: rdma.OpWrite, Signal: true, Data: source.Slice(from, from+size),
			Remote: rdma.Region{Key: r.Key, Addr: r.Addr + uint64(at)},
		})
		p.Passive.AwaitDone(i + 1)
	}
	p.Passive.text(99, 0, "done")
	p.Active.AwaitReceived(1)
	if !bytes.Equal(sink.Bytes(), want) {
		t.Error("the data differ")
	}
}

func testWriteOfNothing(t *testing.T, rig Rig) {
	p := Connect(t, rig, nil)
	p.Active.Post(rdma.WorkRequest{ID: 1, Op: rdma.OpWrite, Signal: true})
	p.Active.AwaitDone(1)
	p.Active.text(2, 0, "on")
	p.Passive.AwaitReceived(1)
}

func testRead(t *testing.T, rig Rig) {
	p := Connect(t, rig, nil)
	p.Active.text(0, 0, "go")
	p.Passive.AwaitReceived(1)
	for i, n := range []int{1, 511, 4096, 100_001, 1 << 20} {
		source, sink := p.Active.Alloc(n, 0), p.Passive.Alloc(n, 0)
		fill(t, source)
		r := p.Active.Grant(uint64(i), source, rdma.RemoteRead)
		p.Passive.Post(rdma.WorkRequest{ID: uint64(i), Op: rdma.OpRead, Signal: true, Data: sink, Remote: r})
		p.Passive.AwaitDone(i + 1)
		if !bytes.Equal(sink.Bytes(), source.Bytes()) {
			t.Errorf("the data of a Read of %d bytes differ", n)
		}
		p.Active.Revoke(uint64(i), r)
	}
	if len(p.Active.done) > 1 {
		t.Errorf("the side that was read from had %v done", p.Active.done)
	}
}

func testReadsBeyondTheDepth(t *testing.T, rig Rig) {
	p := Connect(t, rig, func(a, b *rdma.Options) { a.InboundReads, b.OutboundReads = 2, 2 })
	const n, reads = 64 << 10, 16
	source, sink := p.Active.Alloc(n*reads, 0), p.Passive.Alloc(n*reads, 0)
	fill(t, source)
	r := p.Active.Grant(1, source, rdma.RemoteRead)
	p.Active.text(0, 0, "go")
	p.Passive.AwaitReceived(1)
	var w []rdma.WorkRequest
	for i := range reads {
		w = append(w, rdma.WorkRequest{
			ID: uint64(i), Op: rdma.OpRead, Signal: true, Data: sink.Slice(i*n, (i+1)*n),
			Remote: rdma.Region{Key: r.Key, Addr: r.Addr + uint64(i*n)},
		})
	}
	copy(p.Passive.Conn.SendSlot(0), "done")
	w = append(w, rdma.WorkRequest{ID: reads, Op: rdma.OpSend, Signal: true, Slot: 0, Head: 4})
	p.Passive.Post(w...)
	for i, id := range p.Passive.AwaitDone(reads + 1) {
		if id != uint64(i) {
			t.Fatalf("done are %v", p.Passive.done)
		}
	}
	if !bytes.Equal(sink.Bytes(), source.Bytes()) {
		t.Error("the data differ")
	}
	p.Active.AwaitReceived(1)
}

func testSendInvalidate(t *testing.T, rig Rig) {
	if !rig.Provider.RemoteInvalidate() {
		t.Skip("the provider cannot take it")
	}
	p := Connect(t, rig, nil)
	sink := p.Active.Alloc(4096, 0)
	r := p.Active.Grant(1, sink, rdma.RemoteWrite)
	p.Active.text(0, 0, "go")
	p.Passive.AwaitReceived(1)
	copy(p.Passive.Conn.SendSlot(0), "gone")
	p.Passive.Post(rdma.WorkRequest{ID: 1, Op: rdma.OpSendInvalidate, Slot: 0, Head: 4, Remote: r})
	if m := p.Active.AwaitReceived(1)[0]; m.Invalidated != r.Key || string(m.Data) != "gone" {
		t.Errorf("%q invalidates %#x, want %#x", m.Data, m.Invalidated, r.Key)
	}
	p.Passive.Post(rdma.WorkRequest{ID: 2, Op: rdma.OpWrite, Data: p.Passive.Alloc(512, 'w'), Remote: r})
	if err := p.Active.AwaitClosed(); err == nil {
		t.Error("closed without a cause")
	}
	if !bytes.Equal(sink.Bytes(), make([]byte, 4096)) {
		t.Error("data were written to a region that is invalid")
	}
}
