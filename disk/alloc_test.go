package disk

import (
	"testing"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/scsi"
	"iscsictl/session"
)

// loop is a nexus that executes each command before Submit returns, and a queue
// that counts.
type loop struct {
	mem  *arena.Arena
	done int
}

func (l *loop) Arena() *arena.Arena { return l.mem }
func (l *loop) MaxTransfer() int    { return 0 }

func (l *loop) Submit(batch []*session.Command) {
	for _, c := range batch {
		c.Err, c.Status, c.Residual = nil, 0, 0
		c.Received = c.In.Len()
	}
	batch[0].Issuer.Complete(batch)
}

func (l *loop) Complete(done []*device.Request) { l.done += len(done) }

// fast is a disk on a loop, and a batch of requests for it.
func fast(t testing.TB, op device.Op, n int) (*Disk, *loop, []*device.Request) {
	mem, err := arena.New(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	l := &loop{mem: mem}
	s := New(Config{})
	if err := s.Bind(l); err != nil {
		t.Fatal(err)
	}
	f := facts{capacity: scsi.Capacity{LastLBA: 1 << 30, BlockLength: 512}, mode: scsi.Mode{DPOFUA: true}}
	d := newDisk(s, 0, &f, 1)
	batch := make([]*device.Request, n)
	for i := range batch {
		e, ok := mem.Alloc(4096)
		if !ok {
			t.Fatal("no memory")
		}
		batch[i] = &device.Request{Op: op, FUA: true, Offset: int64(i) * 4096, Length: 4096, Data: e, Queue: l}
	}
	t.Cleanup(func() {
		s.Close()
		for _, r := range batch {
			r.Data.Free()
		}
		if err := mem.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, l, batch
}

func TestNoAllocation(t *testing.T) {
	for _, op := range []device.Op{device.Read, device.Write} {
		d, l, batch := fast(t, op, 32)
		if n := testing.AllocsPerRun(100, func() { d.Submit(batch) }); n != 0 {
			t.Errorf("%v allocations for 32 requests (op %d)", n, op)
		}
		if l.done != 101*32 || batch[0].Errno != 0 {
			t.Errorf("%d requests done, %v", l.done, batch[0].Errno)
		}
	}
}

func benchmarkRequests(b *testing.B, op device.Op, n int) {
	d, _, batch := fast(b, op, n)
	b.ReportAllocs()
	for b.Loop() {
		d.Submit(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/request")
}

func BenchmarkRead1(b *testing.B)   { benchmarkRequests(b, device.Read, 1) }
func BenchmarkRead32(b *testing.B)  { benchmarkRequests(b, device.Read, 32) }
func BenchmarkWrite32(b *testing.B) { benchmarkRequests(b, device.Write, 32) }
