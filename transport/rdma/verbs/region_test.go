package verbs

import (
	"errors"
	"math/rand/v2"
	"testing"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
)

// table is a registrar that a device's limits can be given to.
type table struct {
	t     *testing.T
	last  uint32
	live  map[uint32]piece // by rkey
	calls int
	max   int // of live; 0: no limit
}

type piece struct {
	addr   uintptr
	n      int
	access rdma.Access
}

var errTable = errors.New("no more memory can be locked")

func (d *table) register(addr uintptr, n int, access rdma.Access) (registration, error) {
	d.calls++
	if d.max > 0 && len(d.live) == d.max {
		return registration{}, errTable
	}
	d.last++
	d.live[d.last] = piece{addr, n, access}
	return registration{handle: uintptr(d.last), lkey: d.last | 1<<31, rkey: d.last}, nil
}

func (d *table) deregister(g registration) error {
	if _, ok := d.live[g.rkey]; !ok {
		d.t.Errorf("region %d is deregistered twice", g.rkey)
	}
	delete(d.live, g.rkey)
	return nil
}

func newTable(t *testing.T, size, limit int) (*table, *regions, *arena.Arena) {
	t.Helper()
	a, err := arena.New(size)
	if err != nil {
		t.Fatal(err)
	}
	d := &table{t: t, live: map[uint32]piece{}}
	r := newRegions(d, size, limit)
	t.Cleanup(func() {
		r.close()
		if len(d.live) > 0 {
			t.Errorf("%d regions are left", len(d.live))
		}
	})
	return d, r, a
}

func lend(t *testing.T, a *arena.Arena, n int) arena.Extent {
	t.Helper()
	e, ok := a.Alloc(n)
	if !ok {
		t.Fatalf("no %d bytes in the arena", n)
	}
	return e
}

func TestRegionsOfOneBlockAreRegisteredOnce(t *testing.T) {
	d, r, a := newTable(t, 1<<20, 8)
	e := lend(t, a, 12_000)
	for range 100 {
		x, err := r.grant(e.Slice(100, 9000), rdma.RemoteRead)
		if err != nil {
			t.Fatal(err)
		}
		if !r.revoke(x) {
			t.Fatal("what was granted is not known")
		}
		if r.revoke(x) {
			t.Fatal("it was revoked twice")
		}
	}
	if d.calls != 1 {
		t.Errorf("%d registrations", d.calls)
	}
	if _, err := r.grant(e, rdma.RemoteWrite); err != nil {
		t.Fatal(err)
	}
	if d.calls != 2 {
		t.Errorf("%d registrations for two kinds of access", d.calls)
	}
}

// Whatever is granted, its region covers it, and nothing beyond the block that
// the arena gave out.
func TestRegionsCoverTheirExtents(t *testing.T) {
	d, r, a := newTable(t, 1<<20, 1<<20)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	type loan struct {
		e, view arena.Extent
		x       rdma.Region
	}
	var loans []loan
	for range 5000 {
		if len(loans) > 0 && rnd.IntN(2) == 0 {
			i := rnd.IntN(len(loans))
			if !r.revoke(loans[i].x) {
				t.Fatal("a loan is not known")
			}
			loans[i].e.Free()
			loans[i] = loans[len(loans)-1]
			loans = loans[:len(loans)-1]
			continue
		}
		e, ok := a.Alloc(1 + rnd.IntN(100_000))
		if !ok {
			continue
		}
		from := rnd.IntN(e.Len())
		view := e.Slice(from, from+1+rnd.IntN(e.Len()-from))
		access := rdma.Access(1 + rnd.IntN(3))
		x, err := r.grant(view, access)
		if err != nil {
			t.Fatal(err)
		}
		p := d.live[uint32(x.Key)]
		block := 4096
		for block < e.Len() {
			block *= 2
		}
		from, to := int(p.addr-r.base), int(p.addr-r.base)+p.n
		if from > view.Offset() || to < view.Offset()+view.Len() || from < e.Offset() || to > e.Offset()+block || p.access != access {
			t.Fatalf("the view [%d:%d) of %d bytes at %d was registered as [%d:%d) for %d", view.Offset(), view.Offset()+view.Len(), e.Len(), e.Offset(), from, to, p.access)
		}
		if x.Addr != uint64(r.base)+uint64(view.Offset()) {
			t.Fatalf("advertised at %#x", x.Addr)
		}
		loans = append(loans, loan{e, view, x})
	}
	if r.bytes > r.bytesMax+1<<20 || len(d.live) > 10_000 {
		t.Errorf("%d regions with %d bytes", len(d.live), r.bytes)
	}
}

func TestRegionsIdleLongestGoFirst(t *testing.T) {
	d, r, a := newTable(t, 1<<20, 8)
	d.max = 3
	var e [5]arena.Extent
	var x [5]rdma.Region
	for i := range e {
		e[i] = lend(t, a, 4096)
	}
	grant := func(i int) {
		t.Helper()
		var err error
		if x[i], err = r.grant(e[i], rdma.RemoteRead); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		grant(i)
	}
	if _, err := r.grant(e[3], rdma.RemoteRead); !errors.Is(err, errTable) {
		t.Errorf("with all in use: %v", err)
	}
	for _, i := range []int{1, 0, 2} {
		r.revoke(x[i])
	}
	calls := d.calls
	grant(0) // still there
	if d.calls != calls {
		t.Error("a region that was kept was registered again")
	}
	grant(3)
	if _, there := d.live[uint32(x[1].Key)]; there {
		t.Error("the region that was idle longest is still there")
	}
	if _, there := d.live[uint32(x[2].Key)]; !there {
		t.Error("the region that was idle last is gone")
	}
}

func TestRegionsAreLimited(t *testing.T) {
	_, r, a := newTable(t, 1<<20, 2)
	e := lend(t, a, 4096)
	x, _ := r.grant(e, rdma.RemoteRead)
	if _, err := r.grant(e, rdma.RemoteRead); err != nil {
		t.Fatal(err)
	}
	if _, err := r.grant(e, rdma.RemoteRead); !errors.Is(err, rdma.ErrFull) {
		t.Errorf("a third of two: %v", err)
	}
	r.revoke(x)
	if _, err := r.grant(e, rdma.RemoteRead); err != nil {
		t.Error(err)
	}
}

func TestForeignExtentsAreRefused(t *testing.T) {
	_, r, a := newTable(t, 1<<20, 2)
	if _, err := r.grant(lend(t, a, 4096), rdma.RemoteRead); err != nil {
		t.Fatal(err)
	}
	_, _, other := newTable(t, 1<<20, 2)
	if _, err := r.grant(lend(t, other, 4096), rdma.RemoteRead); err == nil {
		t.Error("an extent of another arena was granted")
	}
	if _, err := newRegions(&table{}, 0, 2).grant(lend(t, other, 4096), rdma.RemoteRead); err == nil {
		t.Error("an extent was granted without an arena")
	}
	if r.revoke(rdma.Region{Key: 1, Addr: 1}) || r.revoke(rdma.Region{Key: 1, Addr: ^uint64(0)}) {
		t.Error("what was never granted was revoked")
	}
}

func TestInvalidatedRegionIsNotUsedAgain(t *testing.T) {
	d, r, a := newTable(t, 1<<20, 4)
	e := lend(t, a, 4096)
	x, _ := r.grant(e, rdma.RemoteWrite)
	r.invalidated(x.Key)
	y, _ := r.grant(e, rdma.RemoteWrite)
	if y.Key == x.Key {
		t.Error("the region was used again")
	}
	if !r.revoke(x) || !r.revoke(y) {
		t.Error("a loan is not known")
	}
	r.invalidated(y.Key) // while it is idle
	if len(d.live) != 0 {
		t.Errorf("%d regions are kept that are good for nothing", len(d.live))
	}
}

func TestLocalRegionsAreLarge(t *testing.T) {
	d, r, a := newTable(t, 16<<20, 4)
	for range 64 {
		e := lend(t, a, 8192)
		_, lkey, i, err := r.local(e, false)
		if err != nil || lkey == 0 {
			t.Fatal(err)
		}
		r.put(i)
	}
	if d.calls != 1 {
		t.Errorf("%d registrations for half a MiB", d.calls)
	}
	for _, p := range d.live {
		if p.access != 0 {
			t.Error("the peer has access to a region of ours")
		}
	}
}

func TestGrantDoesNotAllocate(t *testing.T) {
	_, r, a := newTable(t, 1<<20, 4)
	e := lend(t, a, 65536)
	if n := testing.AllocsPerRun(1000, func() {
		x, _ := r.grant(e, rdma.RemoteWrite)
		r.revoke(x)
	}); n != 0 {
		t.Errorf("%v allocations for a grant", n)
	}
}
