package iwarp

import (
	"context"
	"net/netip"
	"sync"
	"testing"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
)

// worker is a handler for measurements: it allocates nothing.
type worker struct {
	sync.Mutex
	conn     rdma.Conn
	received func(slot int)
	done     func(id uint64)
	ended    chan error
}

func (w *worker) Enter() { w.Lock() }
func (w *worker) Leave() { w.Unlock(); w.conn.Flush() }
func (w *worker) Received(slot int, _ []byte, _ rdma.Key) error {
	w.received(slot)
	w.conn.Repost(slot)
	return nil
}

func (w *worker) Done(id uint64) error {
	w.done(id)
	return nil
}
func (w *worker) Revoked(uint64) error { return nil }
func (w *worker) Closed(err error)     { w.ended <- err }

func (w *worker) post(r rdma.WorkRequest) {
	if err := w.conn.Post(r); err != nil {
		panic(err)
	}
}

// workers connects an initiator and a target that have an extent of n bytes
// each; the target's may be written to the region.
func workers(tb testing.TB, p *Provider, n int) (initiator, target *worker, source arena.Extent, region rdma.Region) {
	tb.Helper()
	o := rdma.Options{
		SendDepth: 256, SendSlots: 1, SendSlotSize: 256, Receives: 128, ReceiveSize: 8268,
		Regions: 4, InboundReads: 16, OutboundReads: 16, DSCP: -1, PCP: -1,
	}
	l, err := p.Listen(context.Background(), loopback)
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan rdma.Conn, 1)
	go func() {
		r, err := l.Accept()
		if err != nil {
			panic(err)
		}
		c, err := r.Accept(o)
		if err != nil {
			panic(err)
		}
		accepted <- c
	}()
	c, err := p.Dial(context.Background(), l.Addr(), netip.AddrPort{}, o)
	if err != nil {
		tb.Fatal(err)
	}
	a, err := arena.New(4 << 20)
	if err != nil {
		tb.Fatal(err)
	}
	sink, _ := a.Alloc(n)
	source, _ = a.Alloc(n)
	if region, err = c.Grant(1, sink, rdma.RemoteRead|rdma.RemoteWrite); err != nil {
		tb.Fatal(err)
	}
	none := func(uint64) {}
	initiator = &worker{conn: c, done: none, received: func(int) {}, ended: make(chan error, 1)}
	target = &worker{conn: <-accepted, done: none, received: func(int) {}, ended: make(chan error, 1)}
	tb.Cleanup(func() {
		for _, w := range []*worker{initiator, target} {
			w.conn.Close(nil)
			<-w.ended
		}
		sink.Free()
		source.Free()
		if err := a.Close(); err != nil {
			tb.Error(err)
		}
	})
	return initiator, target, source, region
}

// exchange runs n commands, depth at a time: a Send with a command of 76 bytes,
// answered by the target with what answer posts.
func exchange(initiator, target *worker, n, depth int, answer func()) {
	over := make(chan struct{})
	sent, got := 0, 0
	command := func() {
		initiator.post(rdma.WorkRequest{Op: rdma.OpSend, Slot: 0, Head: 76})
		sent++
	}
	initiator.Enter()
	initiator.received = func(int) {
		if got++; sent < n {
			command()
		}
		if got == n {
			close(over)
		}
	}
	initiator.Leave()
	target.Enter()
	target.received = func(int) { answer() }
	target.Leave()
	initiator.Enter()
	for range min(depth, n) {
		command()
	}
	initiator.Leave()
	<-over
}

func readAnswer(target *worker, source arena.Extent, r rdma.Region) func() {
	return func() {
		target.post(rdma.WorkRequest{Op: rdma.OpWrite, Data: source, Remote: r})
		target.post(rdma.WorkRequest{Op: rdma.OpSend, Slot: 0, Head: 76})
	}
}

func start(initiator, target *worker) {
	target.conn.Start(target)
	initiator.conn.Start(initiator)
}

var sizes = []struct {
	name     string
	n, depth int
}{{"4KiB", 4 << 10, 32}, {"128KiB", 128 << 10, 8}, {"1MiB", 1 << 20, 4}}

// BenchmarkRead is a SCSI read's pattern: a Send there, an RDMA Write and a Send back.
func BenchmarkRead(b *testing.B) {
	for _, s := range sizes {
		for _, p := range []struct {
			name string
			*Provider
		}{{"crc", &Provider{}}, {"nocrc", &Provider{NoCRC: true}}} {
			b.Run(s.name+"/"+p.name, func(b *testing.B) {
				initiator, target, source, r := workers(b, p.Provider, s.n)
				start(initiator, target)
				b.SetBytes(int64(s.n))
				b.ReportAllocs()
				b.ResetTimer()
				exchange(initiator, target, b.N, s.depth, readAnswer(target, source, r))
				b.StopTimer()
			})
		}
	}
}

// BenchmarkWrite is a SCSI write's: a Send there, an RDMA Read and a Send back.
func BenchmarkWrite(b *testing.B) {
	for _, s := range sizes {
		b.Run(s.name, func(b *testing.B) {
			initiator, target, sink, r := workers(b, &Provider{}, s.n)
			target.done = func(id uint64) {
				if id == 1 {
					target.post(rdma.WorkRequest{Op: rdma.OpSend, Slot: 0, Head: 76})
				}
			}
			start(initiator, target)
			b.SetBytes(int64(s.n))
			b.ReportAllocs()
			b.ResetTimer()
			exchange(initiator, target, b.N, s.depth, func() {
				target.post(rdma.WorkRequest{ID: 1, Op: rdma.OpRead, Signal: true, Data: sink, Remote: r})
			})
			b.StopTimer()
		})
	}
}

// No operation allocates, on either side.
func TestNothingIsAllocated(t *testing.T) {
	initiator, target, source, r := workers(t, &Provider{}, 128<<10)
	start(initiator, target)
	answer := readAnswer(target, source, r)
	const n = 500
	exchange(initiator, target, n, 8, answer) // whatever is made once
	each := testing.AllocsPerRun(5, func() { exchange(initiator, target, n, 8, answer) })
	if limit := 40.0; each > limit { // the exchange itself makes a few
		t.Errorf("%v allocations for %d commands", each, n)
	}
}

// Neither do regions.
func TestGrantAllocatesNothing(t *testing.T) {
	initiator, target, source, _ := workers(t, &Provider{}, 4096)
	start(initiator, target)
	n := testing.AllocsPerRun(1000, func() {
		initiator.Enter()
		r, err := initiator.conn.Grant(9, source, rdma.RemoteWrite)
		if err != nil || !initiator.conn.Revoke(r) {
			t.Error("no region", err)
		}
		initiator.Leave()
	})
	if n > 0 {
		t.Errorf("%v allocations for a region", n)
	}
}
