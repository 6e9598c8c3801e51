package rdmatest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"iscsictl/transport/rdma"
)

func testHandover(t *testing.T, rig Rig) {
	p := Establish(t, rig, nil)
	second := &End{t: t, Conn: p.Passive.Conn, Arena: p.Passive.Arena}
	second.changed.L = &second.mu
	p.Passive.next = second
	p.Passive.Start()
	p.Active.Start()
	for i := range 3 {
		p.Active.text(uint64(i), i, fmt.Sprint(i))
	}
	if m := second.AwaitReceived(2); string(m[0].Data) != "1" || string(m[1].Data) != "2" {
		t.Errorf("after the handover came %q and %q", m[0].Data, m[1].Data)
	}
	if n := len(p.Passive.received); n != 1 {
		t.Errorf("before the handover came %d messages", n)
	}
	p.Active.Conn.Close(nil)
	second.AwaitClosed()
	if p.Passive.closed != 0 {
		t.Error("both handlers were told of the end")
	}
	p.Passive.started = false // it will not be told
}

func testHandlerRefuses(t *testing.T, rig Rig) {
	p := Establish(t, rig, nil)
	refusal := errors.New("not that")
	p.Passive.refuse = refusal
	p.Passive.Start()
	p.Active.Start()
	p.Active.text(1, 0, "this?")
	if err := p.Passive.AwaitClosed(); !errors.Is(err, refusal) {
		t.Errorf("ended with %v", err)
	}
	p.Active.AwaitClosed()
}

func testCloseIsSeen(t *testing.T, rig Rig) {
	why := errors.New("enough")
	for _, passive := range []bool{false, true} {
		p := Connect(t, rig, nil)
		p.Active.text(1, 0, "hello")
		p.Passive.AwaitReceived(1)
		closer, other := p.Active, p.Passive
		if passive {
			closer, other = other, closer
		}
		closer.Conn.Close(why)
		closer.Conn.Close(errors.New("a second time"))
		if err := closer.AwaitClosed(); !errors.Is(err, why) {
			t.Errorf("the side that closed ended with %v", err)
		}
		if err := other.AwaitClosed(); !errors.Is(err, rdma.ErrDisconnected) {
			t.Errorf("the other side ended with %v", err)
		}
	}
}

func testCloseBeforeStart(t *testing.T, rig Rig) {
	p := Establish(t, rig, nil)
	p.Passive.Start()
	p.Active.Conn.Close(errors.New("never mind"))
	p.Passive.AwaitClosed()
	if p.Active.closed != 0 {
		t.Error("Closed came without Start")
	}
	p.Active.Start()
	if err := p.Active.AwaitClosed(); err == nil || err.Error() != "never mind" {
		t.Errorf("Start after Close ended with %v", err)
	}
}

func testCloseUnderLoad(t *testing.T, rig Rig) {
	for range 5 {
		p := Connect(t, rig, nil)
		const n = 1 << 20
		sink, source := p.Active.Alloc(n, 0), p.Active.Alloc(n, 's')
		w := p.Active.Grant(1, sink, rdma.RemoteWrite)
		r := p.Active.Grant(2, source, rdma.RemoteRead)
		p.Active.text(0, 0, "go")
		p.Passive.AwaitReceived(1)
		from, to := p.Passive.Alloc(n, 'w'), p.Passive.Alloc(n, 0)
		for i := range uint64(8) {
			p.Passive.Post(rdma.WorkRequest{ID: 2 * i, Op: rdma.OpWrite, Data: from, Remote: w},
				rdma.WorkRequest{ID: 2*i + 1, Op: rdma.OpRead, Data: to, Remote: r})
		}
		p.Active.Conn.Close(nil)
		p.Active.AwaitClosed()
		// Nothing touches the memory any more: under the race detector, and
		// here where it stays as it is left.
		for i := range sink.Bytes() {
			sink.Bytes()[i] = 'q'
		}
		p.Passive.AwaitClosed()
		for i := range to.Bytes() {
			to.Bytes()[i] = 'q'
		}
		if !bytes.Equal(sink.Bytes(), bytes.Repeat([]byte{'q'}, n)) || !bytes.Equal(to.Bytes(), bytes.Repeat([]byte{'q'}, n)) {
			t.Error("memory changed after the end")
		}
	}
}

func testPostAfterClose(t *testing.T, rig Rig) {
	p := Connect(t, rig, nil)
	p.Active.Conn.Close(nil)
	p.Active.AwaitClosed()
	p.Active.mu.Lock()
	defer p.Active.mu.Unlock()
	for i := range 2 * Options().SendDepth {
		if err := p.Active.Conn.Post(rdma.WorkRequest{ID: uint64(i), Op: rdma.OpWrite}); err != nil {
			t.Fatalf("post %d after the end: %v", i, err)
		}
	}
}

// testLoad has each side write to the other, read from the other and send, all
// at the same time, and checks every byte.
func testLoad(t *testing.T, rig Rig) {
	p := Connect(t, rig, func(a, b *rdma.Options) {
		for _, o := range []*rdma.Options{a, b} {
			o.InboundReads, o.OutboundReads, o.Receives = 4, 4, 64
		}
	})
	p.Active.text(0, 0, "go")
	p.Passive.AwaitReceived(1)
	p.Active.AwaitDone(1)
	const rounds, n = 60, 96 << 10
	var both sync.WaitGroup
	for _, ends := range [][2]*End{{p.Active, p.Passive}, {p.Passive, p.Active}} {
		me, peer := ends[0], ends[1]
		mine, theirs := me.Alloc(2*n, 0), peer.Alloc(2*n, 0)
		for i := 0; i < n; i += 8 {
			binary.BigEndian.PutUint64(mine.Bytes()[i:], uint64(i))
			binary.BigEndian.PutUint64(theirs.Bytes()[n+i:], uint64(i)*3)
		}
		r := peer.Grant(100, theirs, rdma.RemoteRead|rdma.RemoteWrite)
		before := len(me.done)
		both.Go(func() {
			for i := range rounds {
				me.Post(
					rdma.WorkRequest{ID: uint64(3 * i), Op: rdma.OpWrite, Data: mine.Slice(0, n), Remote: r},
					rdma.WorkRequest{ID: uint64(3*i + 1), Op: rdma.OpRead, Data: mine.Slice(n, 2*n), Remote: rdma.Region{Key: r.Key, Addr: r.Addr + n}},
					rdma.WorkRequest{ID: uint64(3*i + 2), Op: rdma.OpSend, Signal: true, Data: mine.Slice(0, 100)},
				)
				me.await("a round", func() bool { return len(me.done) >= before+3*(i+1) || me.closed > 0 })
			}
		})
		defer func() {
			if !bytes.Equal(mine.Bytes()[:n], theirs.Bytes()[:n]) || !bytes.Equal(mine.Bytes()[n:], theirs.Bytes()[n:]) {
				t.Error("the data differ")
			}
		}()
	}
	both.Wait()
	p.Active.AwaitReceived(rounds)
	p.Passive.AwaitReceived(rounds + 1)
}
