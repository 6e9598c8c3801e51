package e2e

import (
	"fmt"
	"os"
	"testing"

	"iscsictl/target"
)

// TestLUNsChange adds and removes logical units at a target in use.
func TestLUNsChange(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:changes"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	g.lun(tid, 1, 4)
	d.add(g.portal(), name)
	d.disk(name, 1)

	g.lun(tid, 2, 8)
	d.ok("--rescan")
	if s := d.session(name); s.disk(2) == "" {
		d.disk(name, 2)
	}
	w, r := pattern(9, 4<<20, 65536)
	qemuIO(t, d.disk(name, 2), w, r)

	g.once("--op", "delete", "--mode", "logicalunit", "--tid", tid, "--lun", "1")
	d.ok("--rescan", "-i", fmt.Sprint(d.session(name).ID))
	d.until(name, "LUN 1 has gone", func(s session) bool { return s.disk(1) == "" && s.disk(2) != "" })
	qemuIO(t, d.disk(name, 2), r)
	if s := d.session(name); s.Reconnections != 0 {
		t.Errorf("%d reconnections", s.Reconnections)
	}
	d.refused("session-id 4711 not found", "--rescan", "-i", "4711")
}

// TestLUNReplaced gives the number of a logical unit to another one, of another size.
func TestLUNReplaced(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:replaced"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	path := g.lun(tid, 1, 4)
	d.add(g.portal(), name)
	d.disk(name, 1)
	g.once("--op", "delete", "--mode", "logicalunit", "--tid", tid, "--lun", "1")
	if err := os.Truncate(path, 12<<20); err != nil {
		t.Fatal(err)
	}
	g.once("--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "-b", path)
	d.ok("--rescan")
	w, r := pattern(9, 8<<20, 65536)
	eventually(t, "the new size", func() bool {
		disk := d.session(name).disk(1)
		if disk == "" {
			return false
		}
		_, err := tryQemuIO(t, disk, w, r)
		return err == nil
	})
}

// TestUnitAttentions changes a target in use without a rescan: the next command hears
// of it, and the disks follow.
func TestUnitAttentions(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:attention"
	server, portal := newServer(t, target.Config{Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 4)}}}})
	d := newDaemon(t)
	d.add(portal, name)
	disk := d.disk(name, 0)
	touch := func() { qemuIO(t, disk, "read 0 4096") }

	if err := server.Resize(name, 0, 16<<20); err != nil {
		t.Fatal(err)
	}
	touch()
	w, r := pattern(3, 12<<20, 65536)
	eventually(t, "the new capacity", func() bool {
		_, err := tryQemuIO(t, disk, w, r)
		return err == nil
	})
	if err := server.AddLUN(name, memory(5, 8)); err != nil {
		t.Fatal(err)
	}
	touch()
	d.disk(name, 5)
	if err := server.RemoveLUN(name, 5); err != nil {
		t.Fatal(err)
	}
	touch()
	d.until(name, "LUN 5 has gone", func(s session) bool { return s.disk(5) == "" })
	// An idle disk hears of it where the target says so by itself.
	if err := server.AddLUN(name, memory(300, 8)); err != nil {
		t.Fatal(err)
	}
	event := target.AsyncEvent{Event: 0, Sense: target.Sense{Key: 6, Code: 0x3f0e}}
	if err := server.Async(name, event); err != nil {
		t.Fatal(err)
	}
	d.disk(name, 300)
	if s := d.session(name); s.Reconnections != 0 {
		t.Errorf("%d reconnections", s.Reconnections)
	}
}

// TestKinds uses logical units of all kinds: 4096-byte blocks, thin, read-only, over
// 2 TiB, with and without a write cache.
func TestKinds(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:../../../escape/./x"
	e := newTarget(t, target.Config{Targets: []target.Target{{Name: name, LUNs: []target.LUN{
		{Number: 0, Size: 16 << 20, BlockSize: 4096},
		{Number: 1, Size: 3 << 40, Thin: true},
		{Number: 2, Size: 16 << 20, ReadOnly: true},
		{Number: 3, Size: 16 << 20, WriteCache: true, Thin: true},
		{Number: 4, Size: 1 << 30, Null: true, Pattern: 0xab},
		{Number: 300, Size: 4 << 20},
		{Number: 16383, Size: 4 << 20},
	}}}})
	d := newDaemon(t)
	d.ctl("-A", "-p", e.portal, "-t", name, "-w", "30") // warns of the name
	d.connected(name)
	w, r := pattern(0x11, 0, 1<<20)
	for _, lun := range []int{0, 1, 3, 300, 16383} {
		qemuIO(t, d.disk(name, lun), w, r, "flush")
	}
	far, near := pattern(0x22, 3<<40-1<<20, 1<<20)
	qemuIO(t, d.disk(name, 1), far, near, "discard 0 1M", "read -P 0 0 1M", near)
	qemuIO(t, d.disk(name, 3), "write -f -P 5 4096 4096", "discard 65536 131072", "read -P 0 65536 131072", "read -P 5 4096 4096")
	qemuIO(t, d.disk(name, 4), "read -P 0xab 4k 8M")
	fio(t, d.disk(name, 0), "--bs=4k", "--size=4M", "--iodepth=16")
	if out, err := tryQemuIO(t, d.disk(name, 2), "write 0 4096"); err == nil {
		t.Errorf("a read-only disk was written:\n%s", out)
	}
	wantContained(t, d, name)
}

// wantContained checks that a target's name, which looks like a path, has become none.
func wantContained(t *testing.T, d *daemon, name string) {
	t.Helper()
	link := d.run + `/by-target/iqn.2026-11.example:..\x2f..\x2f..\x2fescape\x2f.\x2fx/lun0`
	if to, err := os.Readlink(link); err != nil || to != d.disk(name, 0) {
		t.Errorf("the link %s is to %q (%v), want %s", link, to, err, d.disk(name, 0))
	}
	for _, dir := range []string{d.dir, d.run, base} {
		if _, err := os.Lstat(dir + "/escape"); err == nil {
			t.Errorf("%s/escape was made", dir)
		}
	}
}

// TestCommandTimeout has a target that never answers one command: it is aborted, and
// done again.
func TestCommandTimeout(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:holds"
	e := newTarget(t, target.Config{
		Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 8)}}},
		Faults:  []target.Fault{{Action: target.ActionHold, Command: "write", Nth: 3}},
	})
	d := newDaemon(t, "-o", "kern.iscsi.command_timeout=2")
	d.add(e.portal, name)
	fio(t, d.disk(name, 0), "--bs=64k", "--size=4M", "--iodepth=4")
	if !d.says("was not answered in time; aborting it") {
		t.Error("nothing was aborted")
	}
	s := d.session(name)
	if s.Errors != 0 || s.Reconnections != 0 {
		t.Errorf("%d errors, %d reconnections where one task was aborted", s.Errors, s.Reconnections)
	}
}
