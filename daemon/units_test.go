package daemon

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/device"
	"iscsictl/target"
)

// another is the configuration of a second way to a target.
func (w *world) another(name string) conf.Session {
	c := w.conf(name)
	c.TargetAddress = strings.Replace(w.portal, "127.0.0.1", "localhost", 1)
	return c
}

// pathsOf returns which session a session's LUNs are paths to.
func (w *world) pathsOf(id uint32) map[uint64]uint32 {
	of := map[uint64]uint32{}
	for _, d := range w.session(id).Devices {
		of[d.LUN] = d.PathOf
	}
	return of
}

// TestSecondSession: to the same logical units it makes no second disks, lists
// those of the first, and has them when the first is removed.
func TestSecondSession(t *testing.T) {
	w := newWorld(t, nil)
	first := w.add(w.conf(nameA))
	w.until("two disks", w.shows(first, "d1-0", "d1-3"))
	second := w.add(w.another(nameA))
	w.until("two paths", w.shows(second, "d1-0", "d1-3"))
	if of := w.pathsOf(second); of[0] != first || of[3] != first || w.pathsOf(first)[0] != 0 {
		t.Errorf("paths of the second: %v, of the first: %v", of, w.pathsOf(first))
	}
	if len(w.host.devices) != 2 {
		t.Errorf("%d devices", len(w.host.devices))
	}
	// The first's disks are in use: it stays. The second has none to keep it.
	dev := w.host.get("d1-3")
	dev.use(device.User{What: "mounted on /mnt"})
	if _, err := w.d.Remove(control.Selection{ID: first}); code(err) != syscall.EBUSY {
		t.Errorf("removing the first: %v", err)
	}
	if _, err := w.d.Remove(control.Selection{ID: second}); err != nil {
		t.Errorf("removing the second: %v", err)
	}
	w.until("the second is gone", func() bool { return w.session(second) == nil })
	second = w.add(w.another(nameA))
	w.until("two paths again", w.shows(second, "d1-0", "d1-3"))
	dev.use()
	data := bytes.Repeat([]byte{0x5a}, 4096)
	if errno := dev.io(t, device.Write, 0, data); errno != 0 {
		t.Fatal(errno)
	}
	if _, err := w.d.Remove(control.Selection{ID: first}); err != nil {
		t.Fatal(err)
	}
	w.until("disks of the second", w.shows(second, "d3-0", "d3-3"))
	if of := w.pathsOf(second); of[0] != 0 || of[3] != 0 {
		t.Errorf("they are still paths: %v", of)
	}
	back := make([]byte, 4096)
	if errno := w.host.get("d3-3").io(t, device.Read, 0, back); errno != 0 || !bytes.Equal(back, data) {
		t.Errorf("%v, or other data came back", errno)
	}
}

// TestPathsStayIdle: removing all and stopping makes no disk of a path.
func TestPathsStayIdle(t *testing.T) {
	for _, end := range []func(*world){
		func(w *world) {
			if _, err := w.d.Remove(control.Selection{All: true}); err != nil {
				w.t.Error(err)
			}
		},
		func(w *world) { w.d.Stop(w.t.Context()) },
	} {
		w := newWorld(t, nil)
		first := w.add(w.conf(nameA))
		w.until("disks", w.shows(first, "d1-0", "d1-3"))
		second := w.add(w.another(nameA))
		w.until("paths", w.shows(second, "d1-0", "d1-3"))
		end(w)
		w.d.leaving.Wait()
		if log := w.log.String(); strings.Contains(log, "is a disk now") || len(w.host.devices) > 0 {
			t.Errorf("a path has become a disk, or is left:\n%s", log)
		}
	}
}

// TestSameWeakName: names that are not made to be unique do not make one disk of
// two targets, nor of two LUNs.
func TestSameWeakName(t *testing.T) {
	w := newWorld(t, func(c *target.Config) {
		for i := range c.Targets {
			for j := range c.Targets[i].LUNs {
				c.Targets[i].LUNs[j].Serial = "1" // the same T10 name everywhere
			}
		}
	})
	a, b := w.add(w.conf(nameA)), w.add(w.conf(nameB))
	w.until("three disks", func() bool { return w.shows(a, "d1-0", "d1-3")() && w.shows(b, "d2-0")() })
	if w.pathsOf(b)[0] != 0 {
		t.Error("another target's disk is taken for a path")
	}
}

// TestUnits goes through the ways of a unit.
func TestUnits(t *testing.T) {
	var u units
	d := New(Config{RunDir: t.TempDir(), DevDir: t.TempDir(), Tunables: conf.NewTunables()})
	var v [3]*devices
	for i := range v {
		v[i] = new(devices)
		v[i].init(&entry{d: d})
	}
	if other, held := u.claim("", path{v: v[0]}); other != nil || held {
		t.Error("what has no name is held")
	}
	if other, held := u.claim("x", path{v: v[0]}); other != nil || !held {
		t.Error("the first does not hold it")
	}
	if other, held := u.claim("x", path{v: v[0]}); other != nil || held {
		t.Error("a second LUN of the holder is a path, or holds it")
	}
	u.claim("x", path{v: v[1]})
	if other, _ := u.claim("x", path{v: v[2]}); other != v[0] {
		t.Error("the third has it, too")
	}
	u.release("x", v[1]) // does not hold it
	if u.holder("x") != v[0] {
		t.Error("who has not held it has released it")
	}
	if next, ok := u.next("x", v[0]); !ok || next.v != v[1] || u.holder("x") != v[1] {
		t.Error("the first path is not the next")
	}
	u.stop()
	if _, ok := u.next("x", v[1]); ok || u.holder("x") != nil {
		t.Error("after the stop a path becomes a disk")
	}
}
