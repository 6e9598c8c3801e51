package disk

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/scsi"
	"iscsictl/session"
)

func TestScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newLU("")
		old.old, old.noVPD, old.cache, old.fua = true, true, cacheUnknown, false
		cd, odd, starting, reserved := newLU("cd"), newLU("odd"), newLU("starting"), newLU("reserved")
		cd.kind = scsi.TypeCDROM
		odd.block = 520
		starting.answer(scsi.OpTestUnitReady, 1, check(scsi.NotReady, scsi.CodeBecomingReady))
		reserved.answer(scsi.OpTestUnitReady, 1, outcome{status: scsi.ReservationConflict})
		awake := newLU("awake").answer(scsi.OpTestUnitReady, 5, check(scsi.UnitAttention, scsi.CodePowerOn))
		awake.answer(scsi.OpTestUnitReady, 1, outcome{status: scsi.Busy})
		g := newRig(t, newLU("a"), old, cd, odd, starting, reserved, awake)
		defer g.close()
		g.up()
		// One that is busy is asked again after a pause.
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		equal(t, g.takeEvents(), []string{"added 0", "added 1", "added 6"})
		equal(t, g.set.Notes(), []string{
			"LUN 2 is a CD-ROM: no disk",
			"LUN 3: its blocks have 520 bytes; 512 and 4096 are supported",
			"LUN 4: not ready: LOGICAL UNIT IS IN PROCESS OF BECOMING READY (04/01)",
			"LUN 5: reserved by another initiator",
		})
		if !g.set.Scanned() {
			t.Error("not scanned")
		}
		equal(t, g.disks[0].Geometry(), device.Geometry{
			Size: 4 << 20, LogicalBlock: 512, PhysicalBlock: 512, MaxTransfer: 1 << 20, WriteCache: true, FUA: true,
		})
		if d := g.disks[0]; d.Identity() != "t10.a" || d.Serial() != "Sa" || d.Model() != "FAKE disk" {
			t.Errorf("%q, %q, %q", d.Identity(), d.Serial(), d.Model())
		}
		if geo := g.disks[1].Geometry(); geo.Size != 4<<20 || !geo.WriteCache {
			t.Errorf("the old disk has %+v", geo)
		}
		// What was not ready is looked at again.
		time.Sleep(2 * time.Second)
		synctest.Wait()
		equal(t, g.takeEvents(), []string{"added 4", "added 5"})
	})
}

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestGeometry(t *testing.T) {
	const size = 16 << 20 // of the arena
	for _, tt := range []struct {
		name  string
		facts facts
		want  device.Geometry
	}{
		{
			"4096, thin, limits of its own",
			facts{
				capacity: scsi.Capacity{LastLBA: 1<<30 - 1, BlockLength: 4096, PhysicalExponent: 2, LBPME: true, LBPRZ: true},
				limits:   scsi.BlockLimits{MaxTransfer: 100, OptimalTransfer: 16, OptimalGranule: 8, MaxUnmapBlocks: 64, MaxUnmapExtents: 1, UnmapGranule: 4, UnmapAlignment: 7, UnmapAligned: true, MaxWriteSame: 100},
				thin:     scsi.Provisioning{LBPU: true, LBPWS: true},
				cached:   true, same: true,
			},
			device.Geometry{
				Size: 1 << 42, LogicalBlock: 4096, PhysicalBlock: 16384, MinimumIO: 32768, OptimalIO: 65536, MaxTransfer: 409600, FUA: true,
				DiscardMax: 64 * 64 * 4096, DiscardUnit: 16384, DiscardAlign: 3 * 4096, ZeroesMax: 64 * 100 * 4096,
			},
		},
		{
			"read-only, rotates, tiny transfers",
			facts{
				capacity: scsi.Capacity{LastLBA: 7, BlockLength: 512, LBPME: true},
				limits:   scsi.BlockLimits{MaxTransfer: 2, OptimalTransfer: 1 << 30},
				thin:     scsi.Provisioning{LBPWS: true}, same: true,
				mode: scsi.Mode{WriteProtected: true}, shape: scsi.Characteristics{Rotation: 7200},
				cached: true, caching: scsi.Caching{WriteCache: true},
			},
			device.Geometry{Size: 4096, LogicalBlock: 512, PhysicalBlock: 512, MaxTransfer: 4096, ReadOnly: true, WriteCache: true, FUA: true, Rotational: true},
		},
		{
			"discards by WRITE SAME, no limits told",
			facts{capacity: scsi.Capacity{LastLBA: 7, BlockLength: 512, LBPME: true}, thin: scsi.Provisioning{LBPWS: true}, same: true},
			device.Geometry{
				Size: 4096, LogicalBlock: 512, PhysicalBlock: 512, MaxTransfer: 1 << 20, WriteCache: true, FUA: true,
				DiscardMax: maxRange - 0, DiscardUnit: 512, ZeroesMax: maxRange,
			},
		},
	} {
		l := tt.facts.requestLimits(0)
		got := tt.facts.geometry(&l, size)
		if tt.want.DiscardMax == maxRange { // 64 parts of 65535 blocks are a little less
			tt.want.DiscardMax, tt.want.ZeroesMax = 64*65535*512, 64*65535*512
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: -want +got:\n%s", tt.name, d)
		}
	}
}

func TestUnbelievable(t *testing.T) {
	for _, c := range []scsi.Capacity{{BlockLength: 0}, {BlockLength: 8192}, {BlockLength: 512, LastLBA: 1<<64 - 1}, {BlockLength: 4096, LastLBA: 1 << 51}} {
		f := facts{capacity: c}
		if f.check() == nil {
			t.Errorf("%+v is believed", c)
		}
	}
}

func TestReportLUNs(t *testing.T) {
	many := make([]scsi.LUN, 3000)
	for i := range many {
		many[i] = scsi.LUNOf(uint64(i))
	}
	huge := make([]scsi.LUN, 20000)
	for i := range huge {
		huge[i] = scsi.LUN(i+1) << 32 // of the second level
	}
	lying := scsi.AppendLUNs(nil, many[:3])
	lying[0] = 0xff
	for _, tt := range []struct {
		name  string
		luns  []byte
		noRL  bool
		want  int // disks
		notes []string
	}{
		{name: "many", luns: scsi.AppendLUNs(nil, many), want: 3000},
		{name: "twice the same", luns: scsi.AppendLUNs(nil, []scsi.LUN{1 << 48, 0, 1 << 48, 0x4001 << 48}), want: 2},
		{name: "none", luns: scsi.AppendLUNs(nil, nil), notes: []string{"the target has no LUNs for this initiator"}},
		{name: "lies", luns: lying, want: 3, notes: []string{"the target says that it has 534773763 LUNs; 3 of them are looked at"}},
		{name: "well-known", luns: scsi.AppendLUNs(nil, []scsi.LUN{0xc101 << 48, 0}), want: 1},
		{name: "unknown command", noRL: true, want: 1},
		{name: "too short", luns: []byte{0, 0, 0}, notes: []string{"cannot ask the target for its LUNs: scsi: REPORT LUNS data of 3 bytes is shorter than 8"}},
		{name: "too many", luns: scsi.AppendLUNs(nil, huge), want: maxLUNs, notes: []string{"the target says that it has 20000 LUNs; 16384 of them are looked at"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				defer g.close()
				lu := newLU("x")
				for _, l := range append(many, append(huge, 0x4001<<48)...) {
					g.n.lus[l] = lu
				}
				g.n.luns, g.n.noLUNs = tt.luns, tt.noRL
				g.up()
				if n := len(g.set.Disks()); n != tt.want {
					t.Errorf("%d disks, want %d", n, tt.want)
				}
				equal(t, g.set.Notes(), tt.notes)
				if !slices.IsSortedFunc(g.set.Disks(), func(a, b *Disk) int { return int(int64(a.LUN() - b.LUN())) }) {
					t.Error("disks are not in order")
				}
			})
		})
	}
}

func TestSelect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, newLU("a"), newLU("b"), newLU("c"))
		defer g.close()
		g.set.choose = func(lun uint64) bool { return lun == 1 }
		g.up()
		equal(t, g.takeEvents(), []string{"added 1"})
		g.set.choose = func(uint64) bool { return false }
		g.n.lus = map[scsi.LUN]*fakeLU{0: newLU("a")}
		g.down()
		g.up()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		equal(t, g.takeEvents(), []string{"removed 1"})
		equal(t, g.set.Notes()[len(g.set.Notes())-1:], []string{"none of the target's 1 LUNs is selected"})
	})
}

// TestDeselected: a disk that is not chosen any more goes at the next scan, and
// what its target holds of it is written first.
func TestDeselected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newLU("a"), newLU("b")
		g := newRig(t, a, b)
		defer g.close()
		g.up()
		equal(t, g.takeEvents(), []string{"added 0", "added 1"})
		before := b.syncs
		g.set.choose = func(lun uint64) bool { return lun == 0 }
		g.down()
		g.up()
		equal(t, g.takeEvents(), []string{"removed 1"})
		if a.syncs != 0 || b.syncs != before+1 {
			t.Errorf("%d and %d flushes, want 0 and 1", a.syncs, b.syncs-before)
		}
	})
}

func TestRescan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLU("a")
		g := newRig(t, a)
		defer g.close()
		if err := g.set.Rescan(t.Context()); !errors.Is(err, errNoSession) {
			t.Errorf("without a session: %v", err)
		}
		g.up()
		g.takeEvents()
		g.n.lus[scsi.LUNOf(300)] = newLU("b")
		a.blocks /= 2
		if err := g.set.Rescan(t.Context()); err != nil {
			t.Fatal(err)
		}
		equal(t, g.takeEvents(), []string{"changed to 2097152 0", "added 300"})

		// A scan that is not answered ends with the nexus.
		g.change(func() { g.n.stuck = true })
		errs := make(chan error, 2)
		go func() { errs <- g.set.Rescan(t.Context()) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { errs <- g.set.Rescan(ctx) }()
		if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the caller's time-out: %v", err)
		}
		g.change(func() { g.n.stuck = false })
		g.down()
		if err := <-errs; err == nil {
			t.Error("a scan without a nexus has succeeded")
		}
		if g.set.Scanned() {
			t.Error("scanned without a nexus")
		}
	})
}

func TestAsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLU("a")
		g, _ := one(t, a)
		defer g.close()
		g.n.lus[scsi.LUNOf(1)] = newLU("b")
		g.set.Async(0, scsi.Sense{Key: scsi.UnitAttention, Code: scsi.CodeLUNsChanged}.AppendFixed(nil))
		synctest.Wait()
		equal(t, g.takeEvents(), []string{"added 1"})
		a.readOnly, a.blocks = true, 8
		g.set.Async(0, scsi.Sense{Key: scsi.UnitAttention, Code: scsi.CodeCapacityChanged}.AppendFixed(nil))
		synctest.Wait()
		equal(t, g.takeEvents(), []string{"changed to 4096 0"})
		g.set.Async(0, []byte{1, 2, 3})
		synctest.Wait()
		equal(t, g.takeEvents(), nil)
	})
}

// A logical unit that goes is held for a while, as targets start before their
// disks do, and then removed.
func TestMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLU("a")
		g, d := one(t, a)
		defer g.close()
		g.down()
		r := g.request(device.Write, 0, 512)
		d.Submit([]*device.Request{r})
		delete(g.n.lus, 0)
		g.up()
		time.Sleep(3 * time.Second)
		g.change(func() { g.n.lus[0] = a })
		if g.isDone(r) {
			t.Fatalf("failed at once: %v", r.Errno)
		}
		time.Sleep(5 * time.Second)
		g.n.run()
		if !g.isDone(r) || r.Errno != 0 {
			t.Errorf("not resumed: %v, %v", g.isDone(r), r.Errno)
		}
		equal(t, g.takeEvents(), nil)

		delete(g.n.lus, 0)
		r = g.request(device.Read, 0, 512)
		d.Submit([]*device.Request{r})
		g.n.run()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if !g.isDone(r) || r.Errno == 0 {
			t.Errorf("a disk that is gone: %v, %v", g.isDone(r), r.Errno)
		}
		equal(t, g.takeEvents(), []string{"removed 0"})
	})
}

// TestLUNsComeLater has a logical unit appear of which the target says nothing.
func TestLUNsComeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		defer g.close()
		g.up()
		if len(g.disks) != 0 {
			t.Fatalf("disks: %v", g.disks)
		}
		time.Sleep(time.Minute) // it goes on looking, every ten seconds at last
		g.change(func() { g.n.lus[scsi.LUNOf(3)] = newLU("late") })
		time.Sleep(lastDelay * 5 / 4)
		synctest.Wait()
		if g.disks[3] == nil {
			t.Errorf("no disk: %q", g.set.Notes())
		}
	})
}

// What targets do that the standard does not expect, and what comes of it.
func TestQuirks(t *testing.T) {
	lu := func() *fakeLU { return newLU("a") }
	illegal := check(scsi.IllegalRequest, scsi.CodeInvalidFieldInCDB)
	notReady := check(scsi.NotReady, scsi.CodeBecomingReady)
	for _, tt := range []struct {
		name string
		lu   *fakeLU
		note string // "": it becomes a disk
		ok   func(*Disk) bool
	}{
		{"MODE SENSE(10) only", lu().answer(scsi.OpModeSense6, 1, illegal), "", func(d *Disk) bool {
			return d.geometry.ReadOnly && !d.geometry.WriteCache
		}},
		{"all pages only", lu().answer(scsi.OpModeSense6, 1, illegal).answer(scsi.OpModeSense10, 1, illegal), "", func(d *Disk) bool {
			return d.limits.cache == cacheOn && d.limits.fua
		}},
		{"no MODE SENSE", lu().answer(scsi.OpModeSense6, 2, illegal).answer(scsi.OpModeSense10, 1, illegal), "", func(d *Disk) bool {
			return d.limits.cache == cacheUnknown && !d.limits.fua
		}},
		{"tells what it knows", &fakeLU{block: 512, blocks: 8, tells: true}, "", func(d *Disk) bool { return d.geometry.ZeroesMax > 0 }},
		{"long names", newLU(strings.Repeat("x", 250)), "", func(d *Disk) bool { return len(d.Identity()) == 254 }},
		{"no TEST UNIT READY", lu().answer(scsi.OpTestUnitReady, 1, illegal), "", nil},
		{"timed out once", lu().answer(scsi.OpInquiry, 1, outcome{err: session.ErrTimedOut}), "", nil},
		{"timed out", lu().answer(scsi.OpInquiry, 9, outcome{err: session.ErrTimedOut}), "INQUIRY: session: command timed out and was aborted", nil},
		{"aborted", lu().answer(scsi.OpInquiry, 9, check(scsi.AbortedCommand, 0)), "INQUIRY: ABORTED COMMAND, NO ADDITIONAL SENSE INFORMATION (00/00)", nil},
		{"rejected", lu().answer(scsi.OpReadCapacity10, 1, outcome{}).answer(scsi.OpServiceActionIn16, 1, outcome{err: session.ErrRejected}), "READ CAPACITY(16): session: command rejected by the target", nil},
		{"nothing readable", lu().answer(scsi.OpServiceActionIn16, 1, check(scsi.MediumError, scsi.CodeReadError)), "READ CAPACITY(16): MEDIUM ERROR, UNRECOVERED READ ERROR (11/00)", nil},
		{"not ready for its capacity", lu().answer(scsi.OpServiceActionIn16, 1, notReady), "not ready: LOGICAL UNIT IS IN PROCESS OF BECOMING READY (04/01)", nil},
		{"short INQUIRY data", &fakeLU{version: []byte{0, 0, 5}}, "scsi: INQUIRY data of 3 bytes is shorter than 5", nil},
		{"not connected", &fakeLU{version: []byte{0x20, 0, 5, 2, 0}}, "there is no logical unit", nil},
		{"INQUIRY data for pages", &fakeLU{version: scsi.InquiryData{Version: 2}.Append(nil), block: 512, blocks: 8}, "", nil},
		{"too large for READ CAPACITY(10)", &fakeLU{block: 512, blocks: 1 << 33, old: true}, "it has over 2³² blocks and does not know READ CAPACITY(16)", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, tt.lu)
				defer g.close()
				g.up()
				d, notes := g.disks[0], g.set.Notes()
				switch {
				case tt.note == "" && (d == nil || len(notes) > 0):
					t.Errorf("no disk, or notes: %q", notes)
				case tt.note == "" && tt.ok != nil && !tt.ok(d):
					t.Errorf("%+v, %+v", d.geometry, d.limits)
				case tt.note != "":
					equal(t, notes, []string{"LUN 0: " + tt.note})
				}
			})
		})
	}
}

// A disk that is known and cannot be looked at is held for a while only, and
// goes on when it can.
func TestAiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		g, d := one(t, lu)
		defer g.close()
		r := g.request(device.Write, 0, 512)
		d.Submit([]*device.Request{r})
		g.down()
		lu.answer(scsi.OpTestUnitReady, 1000, check(scsi.NotReady, scsi.CodeStartNeeded))
		g.up()
		time.Sleep(time.Minute)
		synctest.Wait()
		if g.isDone(r) {
			t.Errorf("failed after a minute: %v", r.Errno)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !g.isDone(r) || r.Errno != syscall.EIO {
			t.Errorf("after three minutes: %v, %v", g.isDone(r), r.Errno)
		}
		g.change(func() { lu.first = nil })
		time.Sleep(20 * time.Second)
		r = g.request(device.Write, 0, 512)
		if g.do(d, r); r.Errno != 0 {
			t.Errorf("when it is ready: %v", r.Errno)
		}
		equal(t, g.takeEvents(), nil)
	})
}

// A disk that another initiator has reserved meanwhile is not held: the host is
// told.
func TestReservedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		g, d := one(t, lu)
		defer g.close()
		r := g.request(device.Write, 0, 512)
		d.Submit([]*device.Request{r})
		g.down()
		conflict := outcome{status: scsi.ReservationConflict}
		lu.answer(scsi.OpTestUnitReady, 10, conflict)
		lu.script = []outcome{conflict}
		g.up()
		g.n.run()
		if !g.isDone(r) || r.Errno != syscall.EBADE {
			t.Errorf("%v, %v", g.isDone(r), r.Errno)
		}
	})
}

func TestBecomesOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		g, _ := one(t, lu)
		defer g.close()
		g.down()
		lu.kind = scsi.TypeEnclosure
		g.up()
		equal(t, g.takeEvents(), []string{"removed 0"})
		equal(t, g.set.Notes(), []string{"LUN 0 was removed: is an enclosure: no disk", "LUN 0 is an enclosure: no disk"})
	})
}

func TestBind(t *testing.T) {
	small, err := arena.New(64 << 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := New(Config{}).Bind(&fakeNexus{mem: small}); err == nil {
		t.Error("an arena of 64 KiB is enough")
	}
	full, err := arena.New(minArena)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := full.Alloc(minArena / 2)
	f, _ := full.Alloc(minArena / 2)
	if err := New(Config{}).Bind(&fakeNexus{mem: full}); err == nil {
		t.Error("an arena that is full is enough")
	}
	e.Free()
	f.Free()
	for _, a := range []*arena.Arena{small, full} {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}
