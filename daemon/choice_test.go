package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"iscsictl/control"
	"iscsictl/device"
)

// kind is a back-end of another name.
type kind struct {
	*direct
	name string
}

func (k kind) Name() string { return k.name }

func (w *world) kinds(names ...string) (hosts []*direct) {
	w.d.choice.backends = nil
	for _, n := range names {
		h := &direct{devices: map[string]*directDevice{}}
		hosts = append(hosts, h)
		w.d.choice.backends = append(w.d.choice.backends, kind{h, n})
	}
	return hosts
}

// backend is which kind of device a LUN has.
func (w *world) backend(id uint32, lun uint64) string {
	for _, d := range w.session(id).Devices {
		if d.LUN == lun {
			return d.Backend
		}
	}
	return ""
}

// TestChoice: the first that can be had, and one log line for what is passed over.
func TestChoice(t *testing.T) {
	w := newWorld(t, nil)
	hosts := w.kinds("ublk", "loop", "socket")
	hosts[0].refuse = errors.New("ublk: no such thing")
	id := w.add(w.conf(nameA))
	w.until("disks", w.shows(id, "d1-0", "d1-3"))
	if k := w.backend(id, 3); k != "loop" {
		t.Errorf("the disk is a %s", k)
	}
	const passed = "devices of the kind ublk are passed over: ublk: no such thing\n"
	if log := w.log.String(); strings.Count(log, passed) != 1 || !strings.Contains(log, "kind loop can be had") || strings.Contains(log, "socket") {
		t.Errorf("the log:\n%s", log)
	}
}

// TestChoiceAsked: what a session asks for wins over the command line, which
// wins over the order; where it cannot be had nothing else is taken, the session
// stays, and rescanning tries again.
func TestChoiceAsked(t *testing.T) {
	w := newWorld(t, nil)
	hosts := w.kinds("ublk", "loop", "socket")
	w.d.choice.device = "socket"
	hosts[1].refuse = errors.New("loop: not now")
	a := w.conf(nameA)
	a.Device = "loop"
	asks, not := w.add(a), w.add(w.conf(nameB))
	w.until("a disk", w.shows(not, "d2-0"))
	if k := w.backend(not, 0); k != "socket" {
		t.Errorf("the disk of who asks for nothing is a %s", k)
	}
	note := "LUN %d has no device: Device = loop cannot be had: loop: not now; mend that and run iscsictl --rescan, or ask for another kind"
	w.until("notes", func() bool {
		return slices.Equal(w.session(asks).Notes, []string{fmt.Sprintf(note, 0), fmt.Sprintf(note, 3)})
	})
	hosts[1].mu.Lock()
	hosts[1].refuse = nil
	hosts[1].mu.Unlock()
	if err := w.d.Rescan(t.Context(), control.Selection{ID: asks}); err != nil {
		t.Error(err)
	}
	w.until("disks", w.shows(asks, "d1-0", "d1-3"))
	if n := w.session(asks).Notes; len(n) != 0 || w.backend(asks, 0) != "loop" {
		t.Errorf("notes %q, kind %s", n, w.backend(asks, 0))
	}
	if _, err := w.d.Remove(control.Selection{ID: not}); err != nil {
		t.Fatal(err)
	}
	c := w.conf(nameB)
	c.Device = "nbd"
	none := w.add(c)
	w.until("a note", func() bool {
		n := w.session(none).Notes
		return len(n) == 1 && strings.Contains(n[0], "Device = nbd cannot be had: this iscsid has no devices of that kind")
	})
}

// TestChoiceChanged: another Device has disks that nobody uses shown anew.
func TestChoiceChanged(t *testing.T) {
	w := newWorld(t, nil)
	hosts := w.kinds("loop", "socket")
	c := w.conf(nameA)
	id := w.add(c)
	w.until("disks", w.shows(id, "d1-0", "d1-3"))
	old := hosts[0].get("d1-3")
	old.use(device.User{What: "mounted on /mnt"})
	c.Device = "socket"
	err := w.d.Modify(id, control.Modification{Replace: &c})
	if code(err) != syscall.EBUSY || !strings.Contains(err.Error(), "mounted on /mnt") {
		t.Errorf("a disk in use: %v", err)
	}
	if w.backend(id, 3) != "loop" || w.d.entries[id].target().Device != "" {
		t.Error("what was refused was done")
	}
	old.use()
	if err := w.d.Modify(id, control.Modification{Replace: &c}); err != nil {
		t.Fatal(err)
	}
	w.until("sockets", func() bool { return w.backend(id, 0) == "socket" && w.backend(id, 3) == "socket" })
	if !old.gone {
		t.Error("the old device is there")
	}
}
