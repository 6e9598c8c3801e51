package disk

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/scsi"
)

func TestFlush(t *testing.T) {
	for _, tt := range []struct {
		name    string
		cache   cacheState
		fua     bool
		unknown bool // SYNCHRONIZE CACHE
		flush   []string
		write   []string // with FUA
	}{
		{name: "cache, FUA", cache: cacheOn, fua: true, flush: []string{"SYNCHRONIZE CACHE(10) 0+0"}, write: []string{"WRITE(10) 0+1 FUA"}},
		{name: "cache, no FUA", cache: cacheOn, flush: []string{"SYNCHRONIZE CACHE(10) 0+0"}, write: []string{"WRITE(10) 0+1", "SYNCHRONIZE CACHE(10) 0+0"}},
		{name: "no cache", cache: cacheOff, write: []string{"WRITE(10) 0+1"}},
		{name: "silent", flush: []string{"SYNCHRONIZE CACHE(10) 0+0"}, write: []string{"WRITE(10) 0+1", "SYNCHRONIZE CACHE(10) 0+0"}},
		{name: "silent, unknown command", unknown: true, flush: []string{"SYNCHRONIZE CACHE(10) 0+0"}, write: []string{"WRITE(10) 0+1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lu := newLU("a")
				lu.cache, lu.fua = tt.cache, tt.fua
				g, d := one(t, lu)
				defer g.close()
				if tt.unknown {
					lu.script = []outcome{invalidOpcode}
				}
				f := g.request(device.Flush, 0, 0)
				g.do(d, f)
				equal(t, lu.seen, tt.flush)
				lu.seen = nil
				w := g.request(device.Write, 0, 512)
				w.FUA = true
				g.do(d, w)
				equal(t, lu.seen, tt.write)
				if f.Errno != 0 || w.Errno != 0 {
					t.Errorf("%v, %v", f.Errno, w.Errno)
				}
			})
		})
	}
}

// FUA that is refused is done by flushing from then on.
func TestRefusedFUA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		g, d := one(t, lu)
		defer g.close()
		lu.script = []outcome{check(scsi.IllegalRequest, scsi.CodeInvalidFieldInCDB)}
		for range 2 {
			w := g.request(device.Write, 0, 512)
			w.FUA = true
			if g.do(d, w); w.Errno != 0 {
				t.Error(w.Errno)
			}
			if err := g.set.Rescan(t.Context()); err != nil { // it goes on saying that it knows FUA
				t.Error(err)
			}
		}
		equal(t, lu.seen, []string{"WRITE(10) 0+1 FUA", "WRITE(10) 0+1", "SYNCHRONIZE CACHE(10) 0+0", "WRITE(10) 0+1", "SYNCHRONIZE CACHE(10) 0+0"})
	})
}

// FUA that a disk learns later is not relied upon: a request may be half done.
func TestLateFUA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		lu.fua = false
		g, d := one(t, lu)
		defer g.close()
		lu.fua = true
		if err := g.set.Rescan(t.Context()); err != nil {
			t.Error(err)
		}
		w := g.request(device.Write, 0, 512)
		w.FUA = true
		g.do(d, w)
		equal(t, lu.seen, []string{"WRITE(10) 0+1", "SYNCHRONIZE CACHE(10) 0+0"})
	})
}

func TestDiscard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		lu.lbpme = true
		lu.thin = scsi.Provisioning{LBPU: true, LBPWS: true, LBPRZ: true}
		lu.limits = scsi.BlockLimits{MaxUnmapBlocks: 20, MaxUnmapExtents: 1, UnmapGranule: 8, MaxWriteSame: 100}
		g, d := one(t, lu)
		defer g.close()
		used := g.n.mem.InUse()
		do := func(op device.Op, off, n int64, flags ...bool) *device.Request {
			r := g.request(op, off*512, n*512)
			r.NoUnmap, r.FUA = len(flags) > 0 && flags[0], len(flags) > 1 && flags[1]
			lu.seen = nil
			g.do(d, r)
			return r
		}
		// Parts end at the granule of 8 blocks.
		r := do(device.Discard, 3, 50)
		equal(t, lu.seen, []string{"UNMAP 0+0", "unmapped 3+13", "UNMAP 0+0", "unmapped 16+16", "UNMAP 0+0", "unmapped 32+16", "UNMAP 0+0", "unmapped 48+5"})
		if r.Errno != 0 || g.n.mem.InUse() != used {
			t.Errorf("%v; %d bytes in use, then %d", r.Errno, used, g.n.mem.InUse())
		}
		do(device.WriteZeroes, 0, 150)
		equal(t, lu.seen, []string{"WRITE SAME(16) 0+100 unmap", "WRITE SAME(16) 100+50 unmap"})
		do(device.WriteZeroes, 0, 1, true, true)
		equal(t, lu.seen, []string{"WRITE SAME(16) 0+1", "SYNCHRONIZE CACHE(10) 0+0"})

		// What is refused is not offered any more.
		lu.script = []outcome{invalidOpcode}
		if r := do(device.Discard, 0, 8); r.Errno != syscall.EOPNOTSUPP {
			t.Errorf("a discard that was refused: %v", r.Errno)
		}
		lu.script = []outcome{check(scsi.IllegalRequest, scsi.CodeInvalidFieldInCDB)}
		if r := do(device.WriteZeroes, 0, 8); r.Errno != 0 {
			t.Errorf("zeroes that may not unmap: %v", r.Errno)
		}
		equal(t, lu.seen, []string{"WRITE SAME(16) 0+8", "WRITE SAME(16) 0+8"})
		lu.noSame = true
		if r := do(device.WriteZeroes, 0, 8); r.Errno != syscall.EOPNOTSUPP {
			t.Errorf("zeroes that were refused: %v", r.Errno)
		}
		synctest.Wait()
		if geo := d.Geometry(); geo.DiscardMax != 0 || geo.ZeroesMax != 0 {
			t.Errorf("still offered: %+v", geo)
		}
	})
}

// An UNMAP that finds no memory for its list waits for it.
func TestDiscardMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		lu.lbpme, lu.thin.LBPU = true, true
		lu.limits = scsi.BlockLimits{MaxUnmapBlocks: 8, MaxUnmapExtents: 1}
		g, d := one(t, lu)
		defer g.close()
		var all []arena.Extent
		for {
			e, ok := g.n.mem.Alloc(arena.PageSize)
			if !ok {
				break
			}
			all = append(all, e)
		}
		r := g.request(device.Discard, 0, 64*8*512)
		d.Submit([]*device.Request{r})
		g.n.run()
		if g.isDone(r) {
			t.Fatal("done without memory")
		}
		for _, e := range all {
			e.Free()
		}
		time.Sleep(10 * time.Second)
		g.n.run()
		if !g.isDone(r) || r.Errno != 0 || len(lu.seen) != 128 {
			t.Errorf("%v, %v, %d", g.isDone(r), r.Errno, len(lu.seen))
		}
	})
}
