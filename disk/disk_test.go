package disk

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"

	"iscsictl/device"
	"iscsictl/scsi"
	"iscsictl/session"
)

func TestReadWrite(t *testing.T) {
	for _, block := range []int{512, 4096} {
		synctest.Test(t, func(t *testing.T) {
			lu := newLU("a")
			lu.block, lu.blocks = block, len(lu.data)/block
			g, d := one(t, lu)
			defer g.close()
			w := g.request(device.Write, 8192, 1<<20)
			g.do(d, w)
			r := g.request(device.Read, 8192, 1<<20)
			clear(r.Data.Bytes())
			g.do(d, r)
			if w.Errno != 0 || r.Errno != 0 || !bytes.Equal(r.Data.Bytes(), w.Data.Bytes()) {
				t.Errorf("%v, %v, or what was read is not what was written", w.Errno, r.Errno)
			}
			equal(t, lu.seen, []string{
				fmt.Sprintf("WRITE(10) %d+%d", 8192/block, 1<<20/block),
				fmt.Sprintf("READ(10) %d+%d", 8192/block, 1<<20/block),
			})
			equal(t, d.Stats(), Stats{Requests: 2, BytesRead: 1 << 20, BytesWritten: 1 << 20})
			equal(t, g.set.Stats(), d.Stats())
		})
	}
}

func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		ro := newLU("b")
		ro.readOnly = true
		g := newRig(t, lu, ro)
		defer g.close()
		g.up()
		for _, tt := range []struct {
			lun    uint64
			op     device.Op
			off, n int64
			errno  syscall.Errno
		}{
			{0, device.Read, 0, 1 << 20, 0},
			{0, device.Read, 0, 1<<20 + 512, syscall.EINVAL},
			{0, device.Read, 1, 512, syscall.EINVAL},
			{0, device.Read, -512, 512, syscall.EINVAL},
			{0, device.Write, 0, 513, syscall.EINVAL},
			{0, device.Write, 4<<20 - 512, 512, 0},
			{0, device.Write, 4<<20 - 512, 1024, syscall.ENOSPC},
			{0, device.Write, 1 << 62, 512, syscall.ENOSPC},
			{0, device.Write, 1<<63 - 512, 512, syscall.ENOSPC},
			{0, device.Discard, 0, 512, syscall.EOPNOTSUPP},
			{0, device.WriteZeroes, 0, 512, syscall.EOPNOTSUPP},
			{0, device.Discard, 0, -512, syscall.EINVAL},
			{0, device.Op(77), 0, 512, syscall.EOPNOTSUPP},
			{1, device.Read, 0, 512, 0},
			{1, device.Write, 0, 512, syscall.EROFS},
			{1, device.Discard, 0, 512, syscall.EROFS},
			{1, device.Flush, 0, 0, 0},
		} {
			r := g.request(tt.op, tt.off, tt.n)
			g.do(g.disks[tt.lun], r)
			if r.Errno != tt.errno {
				t.Errorf("LUN %d, op %d, %d+%d: %v, want %v", tt.lun, tt.op, tt.off, tt.n, r.Errno, tt.errno)
			}
		}
		r := g.request(device.Read, 0, 512)
		r.Length = 1024
		if g.do(g.disks[0], r); r.Errno != syscall.EINVAL {
			t.Errorf("a request with less memory than it asks for: %v", r.Errno)
		}
	})
}

// count is a queue that takes note of what it is told.
type count []*device.Request

func (c *count) Complete(done []*device.Request) { *c = append(*c, done...) }

// Each queue is told of its own requests, whatever else a batch has.
func TestQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, d := one(t, newLU("a"))
		defer g.close()
		var queues [3]count
		var batch []*device.Request
		for i := range 12 {
			r := g.request(device.Flush, 0, 0)
			r.Queue, r.Tag = &queues[i*i%3], uint64(i*i%3)
			batch = append(batch, r)
		}
		d.Submit(batch)
		g.n.run()
		for i, q := range queues {
			for _, r := range q {
				if int(r.Tag) != i {
					t.Errorf("queue %d was told of a request of queue %d", i, r.Tag)
				}
			}
		}
		if len(queues[0]) != 4 || len(queues[1]) != 8 || len(queues[2]) != 0 {
			t.Errorf("%d, %d and %d requests", len(queues[0]), len(queues[1]), len(queues[2]))
		}
	})
}

func TestSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		lu.limits.MaxTransfer = 3
		g, d := one(t, lu)
		defer g.close()
		w := g.request(device.Write, 512, 4096)
		g.do(d, w)
		r := g.request(device.Read, 512, 4096)
		clear(r.Data.Bytes())
		g.do(d, r)
		if r.Errno != 0 || !bytes.Equal(r.Data.Bytes(), w.Data.Bytes()) {
			t.Errorf("%v, or what was read is not what was written", r.Errno)
		}
		equal(t, lu.seen, []string{"WRITE(10) 1+3", "WRITE(10) 4+3", "WRITE(10) 7+2", "READ(10) 1+3", "READ(10) 4+3", "READ(10) 7+2"})

		// The second part fails for good: the request fails once, when all
		// have ended. The first comes again later.
		lu.script = []outcome{check(scsi.UnitAttention, scsi.CodeReset), check(scsi.MediumError, scsi.CodeReadError)}
		r = g.request(device.Read, 512, 4096)
		g.do(d, r)
		if r.Errno != syscall.EIO {
			t.Errorf("a medium error gave %v", r.Errno)
		}
	})
}

// TestSplitForTheNexus: no command has more data than the nexus takes, also where
// that is less than what the host was told and has asked for before.
func TestSplitForTheNexus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		g, d := one(t, lu)
		defer g.close()
		w := g.request(device.Write, 0, 12<<10)
		g.do(d, w)
		g.down()
		g.n.most = 8 << 10
		r := g.request(device.Read, 0, 12<<10)
		d.Submit([]*device.Request{r})
		g.up()
		g.n.run()
		if r.Errno != 0 || !bytes.Equal(r.Data.Bytes(), w.Data.Bytes()) || d.Geometry().MaxTransfer != 8<<10 {
			t.Errorf("%v, or what was read is not what was written; %+v", r.Errno, d.Geometry())
		}
		equal(t, lu.seen, []string{"WRITE(10) 0+24", "READ(10) 0+16", "READ(10) 16+8"})
	})
}

// Requests go on in their order after a lost nexus, and only with what was not
// done.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		lu.limits.MaxTransfer = 4
		g, d := one(t, lu)
		defer g.close()
		a, b, c := g.request(device.Write, 0, 4096), g.request(device.Read, 8192, 512), g.request(device.Write, 16384, 512)
		d.Submit([]*device.Request{a, b})
		g.n.step(1) // the first half of a
		g.down()
		d.Submit([]*device.Request{c})
		g.n.run()
		if len(g.done) != 0 {
			t.Fatalf("%d requests completed without a nexus", len(g.done))
		}
		g.set.Down(session.ErrNexusLost) // an attempt that failed
		lu.seen = nil
		g.up()
		g.n.run()
		equal(t, lu.seen, []string{"WRITE(10) 4+4", "READ(10) 16+1", "WRITE(10) 32+1"})
		for _, r := range []*device.Request{a, b, c} {
			if !g.isDone(r) || r.Errno != 0 {
				t.Errorf("%+v", r)
			}
		}
		equal(t, g.takeEvents(), nil)
		if s := d.Stats(); s.Retries != 2 || s.Errors != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Nothing is sent on a new nexus before the disk was looked at.
func TestLookFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, d := one(t, newLU("a"))
		defer g.close()
		g.down()
		d.Submit([]*device.Request{g.request(device.Write, 0, 512)})
		g.change(func() { g.n.stuck = true })
		g.up()
		if len(g.n.pending) != 0 {
			t.Error("a write was sent to nobody knows whom")
		}
		g.change(func() { g.n.stuck = false })
		g.down() // this nexus too
		g.up()
		g.n.run()
		if len(g.done) != 1 || g.done[0].Errno != 0 {
			t.Errorf("%d requests done", len(g.done))
		}
	})
}

// A command that is on its way to the session when the nexus is lost must not
// reach the next one: Down waits for it.
func TestDownWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, d := one(t, newLU("a"))
		defer g.close()
		g.n.gate = make(chan struct{})
		r := g.request(device.Write, 0, 512)
		go d.Submit([]*device.Request{r})
		synctest.Wait()
		g.n.lose()
		told := make(chan struct{})
		go func() {
			g.set.Down(session.ErrNexusLost)
			close(told)
		}()
		synctest.Wait()
		select {
		case <-told:
			t.Error("Down returned with a write on its way")
		default:
		}
		close(g.n.gate)
		<-told
		g.up()
		g.n.run()
		if !g.isDone(r) || r.Errno != 0 {
			t.Errorf("%v, %v", g.isDone(r), r.Errno)
		}
	})
}

// What a look at the disk found does not count when the target has said that it
// changed since the look began, nor on another nexus.
func TestStaleLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		g, d := one(t, lu)
		defer g.close()
		g.change(func() { g.n.stuck = true })
		before := d.doubt()
		lu.script = []outcome{check(scsi.UnitAttention, scsi.CodeLUNsChanged)}
		r := g.request(device.Write, 0, 512)
		d.Submit([]*device.Request{r})
		g.n.run()
		d.resume(1, before)
		d.resume(7, d.doubt())
		if !d.held() {
			t.Error("resumed")
		}
		d.resume(1, d.doubt())
		g.n.run()
		if !g.isDone(r) {
			t.Error("not resumed")
		}
	})
}

func TestSwap(t *testing.T) {
	for _, tt := range []struct {
		name string
		next func(*fakeLU)
		swap bool
	}{
		{"another name", func(lu *fakeLU) { lu.name = "b" }, true},
		{"no name", func(lu *fakeLU) { lu.name = "" }, true},
		{"another block size", func(lu *fakeLU) { lu.block, lu.blocks = 4096, 1024 }, true},
		{"another serial number only", func(lu *fakeLU) { lu.serial = "other" }, false},
		{"the same", func(*fakeLU) {}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, d := one(t, newLU("a"))
				defer g.close()
				w := g.request(device.Write, 0, 4096)
				d.Submit([]*device.Request{w})
				g.down()
				other := newLU("a")
				tt.next(other)
				g.n.lus[0] = other
				g.up()
				g.n.run()
				if !g.isDone(w) || (w.Errno == syscall.EIO) != tt.swap {
					t.Errorf("the write: %v, %v", g.isDone(w), w.Errno)
				}
				if !tt.swap {
					equal(t, g.takeEvents(), nil)
					return
				}
				equal(t, g.takeEvents(), []string{"removed 0", "added 0"})
				equal(t, other.seen, nil)
				g.set.ask(d, wantCheck) // a late answer to the old one
				synctest.Wait()
				equal(t, g.takeEvents(), nil)
				r := g.request(device.Read, 0, 512)
				if g.do(d, r); r.Errno != syscall.EIO {
					t.Errorf("the old disk reads: %v", r.Errno)
				}
				r = g.request(device.Read, 0, 4096)
				if g.do(g.disks[0], r); r.Errno != 0 {
					t.Errorf("the new disk does not read: %v", r.Errno)
				}
			})
		})
	}
}

// A disk that is replaced while the nexus stays gets no write either.
func TestSwapUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, d := one(t, newLU("a"))
		defer g.close()
		other := newLU("b")
		other.script = []outcome{check(scsi.UnitAttention, scsi.CodeLUNsChanged)}
		g.n.lus[0] = other
		w := g.request(device.Write, 0, 512)
		g.do(d, w)
		if w.Errno != syscall.EIO || other.data[0] != 0 {
			t.Errorf("%v, or the write reached the other disk", w.Errno)
		}
		equal(t, g.takeEvents(), []string{"removed 0", "added 0"})
	})
}

func TestFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		lu.limits.MaxTransfer = 4
		g, d := one(t, lu)
		defer g.close()
		g.set.Fail(session.ErrNexusLost) // nothing is held
		a, b := g.request(device.Write, 0, 4096), g.request(device.Flush, 0, 0)
		d.Submit([]*device.Request{a})
		g.n.step(1)
		g.down()
		d.Submit([]*device.Request{b})
		g.set.Fail(session.ErrNexusLost)
		c := g.request(device.Read, 0, 512)
		d.Submit([]*device.Request{c})
		for _, r := range []*device.Request{a, b, c} {
			if !g.isDone(r) || r.Errno != syscall.EIO {
				t.Errorf("%v, %v", g.isDone(r), r.Errno)
			}
		}
		g.set.Down(session.ErrNexusLost)
		c = g.request(device.Read, 0, 512)
		if d.Submit([]*device.Request{c}); !g.isDone(c) {
			t.Error("held again by another failed attempt")
		}
		g.up()
		c = g.request(device.Read, 0, 512)
		if g.do(d, c); c.Errno != 0 {
			t.Errorf("after the next nexus: %v", c.Errno)
		}
	})
}

// What is under way when a disk goes for good ends as it ends, but nothing more
// is sent for it.
func TestRemovedUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		lu.fua, lu.limits.MaxTransfer = false, 4
		g, d := one(t, lu)
		defer g.close()
		plain, fua, again := g.request(device.Write, 0, 512), g.request(device.Write, 512, 512), g.request(device.Write, 1024, 4096)
		fua.FUA = true
		d.Submit([]*device.Request{plain, fua, again})
		lu.script = []outcome{{}, {}, {}, {status: scsi.Busy}}
		d.fail(gone)
		if len(g.done) != 0 {
			t.Error("completed with commands under way")
		}
		lu.seen = nil
		g.n.run()
		if plain.Errno != 0 || fua.Errno != syscall.EIO || again.Errno != syscall.EIO || !g.isDone(plain) || !g.isDone(fua) || !g.isDone(again) {
			t.Errorf("%v, %v, %v", plain.Errno, fua.Errno, again.Errno)
		}
		if len(lu.seen) != 4 {
			t.Errorf("%q", lu.seen)
		}
	})
}

// A discard that is refused in its first part ends there.
func TestRefusedPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		lu.lbpme, lu.thin.LBPU = true, true
		lu.limits = scsi.BlockLimits{MaxUnmapBlocks: 8, MaxUnmapExtents: 1}
		g, d := one(t, lu)
		defer g.close()
		d.limit = 1
		lu.script = []outcome{check(scsi.IllegalRequest, scsi.CodeInvalidFieldInList)}
		r, next := g.request(device.Discard, 0, 64*512), g.request(device.Discard, 0, 512)
		d.Submit([]*device.Request{r, next})
		g.n.step(-1)
		synctest.Wait()
		g.n.run()
		if r.Errno != syscall.EOPNOTSUPP || len(lu.seen) > 3 {
			t.Errorf("%v after %q", r.Errno, lu.seen)
		}
		if !g.isDone(next) {
			t.Error("the next request hangs")
		}
	})
}
