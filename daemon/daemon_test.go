package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/device"
	"iscsictl/device/names"
	"iscsictl/target"
)

const (
	nameA = "iqn.2026-01.example:a"
	nameB = "iqn.2026-01.example:b"
)

func TestAddAndRemove(t *testing.T) {
	w := newWorld(t, nil)
	id := w.add(w.conf(nameA))
	w.until("two disks", w.shows(id, "d1-0", "d1-3"))
	if _, err := w.d.Add(w.conf(nameA)); code(err) != syscall.EBUSY || !strings.Contains(err.Error(), "(session 1)") {
		t.Errorf("a duplicate: %v", err)
	}
	data := bytes.Repeat([]byte{0xa5}, 8192)
	if errno := w.host.get("d1-3").io(t, device.Write, 4096, data); errno != 0 {
		t.Fatal(errno)
	}
	back := make([]byte, 8192)
	if errno := w.host.get("d1-3").io(t, device.Read, 4096, back); errno != 0 || !bytes.Equal(back, data) {
		t.Fatalf("%v, or other data came back", errno)
	}
	s := w.session(id)
	if c := s.Counters; c.Requests != 2 || c.BytesRead != 8192 || c.BytesWritten != 8192 || c.Errors != 0 {
		t.Errorf("counters %+v", c)
	}
	link := filepath.Join(w.d.cfg.RunDir, "by-target", nameA, "lun3")
	if to, err := os.Readlink(link); err != nil || to != "/dev/d1-3" {
		t.Errorf("link to %q: %v", to, err)
	}

	dev := w.host.get("d1-0")
	dev.use(device.User{What: "mounted on /mnt"}, device.User{PID: 7, What: "process fio"})
	removed, err := w.d.Remove(control.Selection{All: true})
	if code(err) != syscall.EBUSY || len(removed) != 0 || !strings.Contains(err.Error(), "/dev/d1-0 (mounted on /mnt, process fio (pid 7))") {
		t.Errorf("removal of a disk in use: %v, %v", removed, err)
	}
	if _, err := w.d.Remove(control.Selection{Target: nameB}); code(err) != syscall.ESRCH {
		t.Errorf("removal of nothing: %v", err)
	}
	if removed, err := w.d.Remove(control.Selection{All: true, Force: true}); err != nil || !slices.Equal(removed, []uint32{1}) {
		t.Errorf("removal by force: %v, %v", removed, err)
	}
	w.until("the target has no session", func() bool { return len(w.target.Sessions()) == 0 && w.host.get("d1-0") == nil })
	if _, err := os.Readlink(link); err == nil {
		t.Error("the link is still there")
	}
	if id := w.add(w.conf(nameA)); id != 2 {
		t.Errorf("the next session has the id %d, want 2", id)
	}
}

func TestModify(t *testing.T) {
	w := newWorld(t, nil)
	a, b := w.add(w.conf(nameA)), w.add(w.conf(nameB))
	w.until("disks", func() bool { return w.shows(a, "d1-0", "d1-3")() && w.shows(b, "d2-0")() })
	target, portal, off := nameA, "192.0.2.1", false
	for _, c := range []struct {
		id   uint32
		m    control.Modification
		want syscall.Errno
	}{
		{9, control.Modification{}, syscall.ESRCH},
		{b, control.Modification{Target: &target}, syscall.EBUSY},
		{b, control.Modification{Portal: new(string)}, syscall.EINVAL},
	} {
		if err := w.d.Modify(c.id, c.m); code(err) != c.want {
			t.Errorf("%+v: %v, want %v", c.m, err, c.want)
		}
	}
	// Disabled: the connection goes, the device stays and waits.
	if err := w.d.Modify(b, control.Modification{Enable: &off}); err != nil {
		t.Fatal(err)
	}
	w.until("disconnection", func() bool { return !w.session(b).Connected })
	if s := w.session(b); s.Enable || len(s.Devices) != 1 {
		t.Errorf("%+v", s)
	}
	held := make(chan syscall.Errno, 1)
	go func() { held <- w.host.get("d2-0").io(t, device.Read, 0, make([]byte, 512)) }()
	on := true
	if err := w.d.Modify(b, control.Modification{Enable: &on}); err != nil {
		t.Fatal(err)
	}
	if errno := <-held; errno != 0 {
		t.Errorf("a request of the time in between: %v", errno)
	}
	// Another portal, where nobody is: the id stays.
	if err := w.d.Modify(b, control.Modification{Portal: &portal}); err != nil || w.session(b).TargetAddress != portal {
		t.Errorf("%v, portal %s", err, w.session(b).TargetAddress)
	}
}

// TestModifyKeepsWhatIsUsed: neither another target nor other LUNs take a disk
// away that is in use, and other LUNs leave those disks alone that stay.
func TestModifyKeepsWhatIsUsed(t *testing.T) {
	w := newWorld(t, nil)
	id := w.add(w.conf(nameA))
	w.until("disks", w.shows(id, "d1-0", "d1-3"))
	kept := w.host.get("d1-3")
	kept.use(device.User{What: "mounted on /mnt"})
	other, only0, only3 := w.conf(nameB), w.conf(nameA), w.conf(nameA)
	only0.LUNs, only3.LUNs = "0", "3"
	for _, c := range []struct {
		to   conf.Session
		want string
	}{
		{other, "TargetName of session 1 cannot be changed: the device is in use: /dev/d1-3 (mounted on /mnt)"},
		{only0, "LUNs of session 1 cannot be changed: the device is in use: /dev/d1-3 (mounted on /mnt)"},
	} {
		if err := w.d.Modify(id, control.Modification{Replace: &c.to}); code(err) != syscall.EBUSY || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if s := w.session(id); s.TargetName != nameA || len(s.Devices) != 2 {
		t.Errorf("what was refused was done: %+v", s)
	}
	if err := w.d.Modify(id, control.Modification{Replace: &only3}); err != nil {
		t.Fatal(err)
	}
	w.until("LUN 3 alone", w.shows(id, "d1-3"))
	if w.host.get("d1-3") != kept || kept.io(t, device.Read, 0, make([]byte, 4096)) != 0 {
		t.Error("the disk that stays was made anew, or does not work")
	}
	all := w.conf(nameA)
	if err := w.d.Modify(id, control.Modification{Replace: &all}); err != nil {
		t.Fatal(err)
	}
	w.until("both again", w.shows(id, "d1-0", "d1-3"))
	kept.use()
	if err := w.d.Modify(id, control.Modification{Replace: &other}); err != nil {
		t.Fatal(err)
	}
	w.until("the other target's", func() bool { return w.shows(id, "d1-0")() && w.session(id).TargetName == nameB })
}

// TestModifyAndBack: what a session was to lose and does not lose after all can be
// used again, also before the target has been asked.
func TestModifyAndBack(t *testing.T) {
	w := newWorld(t, nil)
	id := w.add(w.conf(nameA))
	w.until("disks", w.shows(id, "d1-0", "d1-3"))
	e, dev := w.d.entries[id], w.host.get("d1-0")
	all, only3 := w.conf(nameA), w.conf(nameA)
	only3.LUNs = "3"
	if err := e.spare(only3); err != nil || !dev.isKept() || w.host.get("d1-3").isKept() {
		t.Errorf("%v, or the disk that goes is not kept from new users, or the one that stays is", err)
	}
	if err := e.spare(all); err != nil || dev.isKept() {
		t.Errorf("%v, or the disk that stays after all is kept from its users", err)
	}
}

func TestIOWaitsForTheTarget(t *testing.T) {
	w := newWorld(t, nil)
	id := w.add(w.conf(nameB))
	w.until("a disk", w.shows(id, "d1-0"))
	dev := w.host.get("d1-0")
	for i := range 4 {
		want := bytes.Repeat([]byte{byte(i + 1)}, 4096)
		go w.target.DropAll()
		if errno := dev.io(t, device.Write, int64(i)*4096, want); errno != 0 {
			t.Fatal(errno)
		}
		got := make([]byte, 4096)
		if errno := dev.io(t, device.Read, int64(i)*4096, got); errno != 0 || !bytes.Equal(got, want) {
			t.Fatalf("write %d: %v, or other data", i, errno)
		}
	}
	if s := w.session(id); s.Counters.Errors != 0 || s.Counters.LastFailure == "" {
		t.Errorf("%+v", s.Counters)
	}
}

func TestRecoveryTimeout(t *testing.T) {
	w := newWorld(t, nil)
	c := w.conf(nameB)
	c.RecoveryTimeout = 1
	id := w.add(c)
	w.until("a disk", w.shows(id, "d1-0"))
	dev := w.host.get("d1-0")
	w.target.Close()
	before := time.Now()
	errno := dev.io(t, device.Read, 0, make([]byte, 512))
	if d := time.Since(before); errno != syscall.EIO || d > 5*time.Second {
		t.Errorf("%v after %v, want EIO after about 1 s", errno, d)
	}
	if s := w.session(id); len(s.Devices) != 1 || s.Counters.Errors != 1 {
		t.Errorf("%+v", s)
	}
	w.until("a reason, which is empty during an attempt", func() bool { return w.session(id).Reason != "" })
}

func TestFailOnDisconnection(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.d.SetTunable("kern.iscsi.fail_on_disconnection", "1"); err != nil {
		t.Fatal(err)
	}
	id := w.add(w.conf(nameB))
	w.until("a disk", w.shows(id, "d1-0"))
	first := w.host.get("d1-0")
	w.target.DropAll()
	w.until("another device of the disk", func() bool { d := w.host.get("d1-0"); return d != nil && d != first })
	if !first.gone {
		t.Error("the first device stays")
	}
}

func TestChangesOfTheTarget(t *testing.T) {
	w := newWorld(t, nil)
	id := w.add(w.conf(nameB))
	w.until("a disk", w.shows(id, "d1-0"))
	dev := w.host.get("d1-0")
	if err := w.target.Resize(nameB, 0, 2<<20); err != nil {
		t.Fatal(err)
	}
	dev.io(t, device.Read, 0, make([]byte, 512)) // hears the unit attention
	w.until("the new size", func() bool {
		w.host.mu.Lock()
		defer w.host.mu.Unlock()
		return len(dev.updates) == 1 && dev.updates[0].Size == 2<<20
	})
	if err := w.target.AddLUN(nameB, target.LUN{Number: 5, Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := w.d.Rescan(t.Context(), control.Selection{All: true}); err != nil {
		t.Fatal(err)
	}
	w.until("LUN 5", w.shows(id, "d1-0", "d1-5"))
	if err := w.target.RemoveLUN(nameB, 5); err != nil {
		t.Fatal(err)
	}
	if err := w.d.Rescan(t.Context(), control.Selection{ID: id}); err != nil {
		t.Fatal(err)
	}
	w.until("LUN 5 is gone", w.shows(id, "d1-0"))
	dead := w.conf(nameB)
	dead.TargetAddress = "127.0.0.1:1"
	away := w.add(dead)
	if err := w.d.Rescan(t.Context(), control.Selection{All: true}); err != nil {
		t.Errorf("rescan of all, of which one is not connected: %v", err)
	}
	if err := w.d.Rescan(t.Context(), control.Selection{ID: away}); err == nil {
		t.Error("rescan of a session that is not connected succeeds")
	}
	if err := w.d.Rescan(t.Context(), control.Selection{ID: 99}); code(err) != syscall.ESRCH {
		t.Errorf("rescan of nothing: %v", err)
	}
}

func TestDiscovery(t *testing.T) {
	w := newWorld(t, nil)
	c := w.conf("")
	c.Discovery, c.Nickname, c.HeaderDigest = true, "all", true
	id := w.add(c)
	w.until("sessions for both targets", func() bool {
		l := w.d.List()
		return len(l) == 2 && l[0].ID != id && l[0].Connected && l[1].Connected
	})
	for i, s := range w.d.List() {
		if s.TargetName != []string{nameA, nameB}[i] || s.TargetAddress != w.portal || !s.HeaderDigest || s.Discovery {
			t.Errorf("%+v", s)
		}
	}
	// Again: those that are there stay, and the discovery session goes.
	again := w.add(c)
	w.until("the end of the discovery session", func() bool { return w.session(again) == nil })
	if l := w.d.List(); len(l) != 2 {
		t.Errorf("%d sessions", len(l))
	}
	// One that is not enabled hands that down.
	if _, err := w.d.Remove(control.Selection{All: true}); err != nil {
		t.Error(err)
	}
	off := c
	off.Enable = false
	last := w.add(off)
	w.until("the end of the discovery session that is not enabled", func() bool { return w.session(last) == nil })
	if l := w.d.List(); len(l) != 2 || l[0].Enable || l[1].Enable {
		t.Errorf("%+v", l)
	}
	found, err := w.d.Discover(t.Context(), w.conf(""))
	if err != nil || len(found) != 2 || found[0].TargetName != nameA || found[0].Discovery {
		t.Errorf("%+v, %v", found, err)
	}
	c.TargetAddress = "127.0.0.1:1"
	dead := w.add(c)
	w.until("the reason", func() bool { return w.session(dead).Reason == "Connection refused" })
	if _, err := w.d.Remove(control.Selection{ID: dead}); err != nil {
		t.Error(err)
	}
	if _, err := w.d.Discover(t.Context(), c); code(err) != syscall.EIO || !strings.Contains(err.Error(), "127.0.0.1:1: Connection refused") {
		t.Errorf("%v", err)
	}
}

func TestWithoutABackend(t *testing.T) {
	w := newWorld(t, nil)
	w.host.refuse = errors.New("direct: not here")
	id := w.add(w.conf(nameB))
	w.until("the note", func() bool {
		return slices.Contains(w.session(id).Notes, "LUN 0 has no device: direct: not here")
	})
}

func TestTunables(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.d.SetTunable("kern.iscsi.nonsense", "1"); code(err) != syscall.ENOENT {
		t.Error(err)
	}
	if err := w.d.SetTunable("kern.iscsi.ping_timeout", "x"); code(err) != syscall.EINVAL {
		t.Error(err)
	}
	if err := w.d.SetTunable("kern.iscsi.ping_timeout", "9"); err != nil {
		t.Error(err)
	}
	i := slices.IndexFunc(w.d.Tunables(), func(t control.Tunable) bool { return t.Name == "kern.iscsi.ping_timeout" })
	if i < 0 || w.d.Tunables()[i].Value != "9" || w.d.Tunables()[i].Default != "5" {
		t.Errorf("%+v", w.d.Tunables())
	}
}

func TestEscape(t *testing.T) {
	for name, want := range map[string]string{
		"iqn.2026-01.example:a_b=c": "iqn.2026-01.example:a_b=c",
		"../../etc/passwd":          `\x2e.\x2f..\x2fetc\x2fpasswd`,
		"..":                        `\x2e.`,
		"a b\n\x00é":                `a\x20b\x0a\x00\xc3\xa9`,
		`\`:                         `\x5c`,
	} {
		if got := names.Escape(name); got != want {
			t.Errorf("escape(%q) is %q, want %q", name, got, want)
		}
	}
}

func TestLogLines(t *testing.T) {
	var lines []string
	debug := false
	log := slog.New(&LogHandler{Debug: func() bool { return debug }, Write: func(l slog.Level, line string) { lines = append(lines, line) }})
	c := conf.Session{TargetName: nameA, TargetAddress: "10.0.0.1"}
	name := newWho(c)
	s := log.With(slog.Any("session", name))
	s.Warn("something", "lun", 4)
	log.Info("a\nb\x1b[2J")
	s.Debug("unseen")
	debug = true
	s.Debug("seen")
	c.TargetAddress = "10.0.0.2"
	name.now.Store(&c)
	s.Info("modified")
	want := []string{
		"10.0.0.1 (" + nameA + "): something lun=4", "a?b?[2J", "10.0.0.1 (" + nameA + "): seen",
		"10.0.0.2 (" + nameA + "): modified",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("%q, want %q", lines, want)
	}
}

// TestISER: a session by iSER on software iWARP, with the data right.
func TestISER(t *testing.T) {
	w := newWorld(t, nil)
	l, err := target.ListenISER(t.Context(), target.Portal{Address: "127.0.0.1:0", ISER: true})
	if err != nil {
		t.Fatal(err)
	}
	go w.target.ServeISER(l, 1)
	if err := w.d.SetTunable("kern.iser.debug", "3"); err != nil {
		t.Fatal(err)
	}
	c := w.conf(nameA)
	c.ISER, c.TargetAddress = true, l.Addr().String()
	id := w.add(c)
	w.until("two disks", w.shows(id, "d1-0", "d1-3"))
	s := w.session(id)
	if !s.ISER || s.OffloadDriver != "iser" || len(s.Facts) == 0 || s.Facts[0].Value != "iwarp" {
		t.Errorf("%+v", s)
	}
	for _, size := range []int{512, 8192, 8704, 100 << 10, 1 << 20} {
		want := bytes.Repeat([]byte{byte(size >> 9)}, size)
		got := make([]byte, size)
		if errno := w.host.get("d1-0").io(t, device.Write, 1<<20, want); errno != 0 {
			t.Fatal(errno)
		}
		go w.target.DropAll() // in the middle, or not
		if errno := w.host.get("d1-0").io(t, device.Read, 1<<20, got); errno != 0 || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %v, or other data", size, errno)
		}
	}
	for _, wanted := range []string{"iWARP in software", "Queue depth"} {
		if !strings.Contains(w.log.String(), wanted) {
			t.Errorf("kern.iser.debug=3 does not log %q", wanted)
		}
	}
	for _, bad := range []struct {
		offload string
		iser    bool
	}{{"nonsense", true}, {"iwarp", false}} {
		c := w.conf(nameB)
		c.Offload, c.ISER = bad.offload, bad.iser
		if _, err := w.d.Add(c); code(err) != syscall.EINVAL {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestRemovalDuringScan: a session that is removed at any moment of its start
// leaves no device behind.
func TestRemovalDuringScan(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 30 {
		id := w.add(w.conf(nameA))
		time.Sleep(time.Duration(i) * 300 * time.Microsecond)
		if _, err := w.d.Remove(control.Selection{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	w.d.leaving.Wait()
	w.host.mu.Lock()
	defer w.host.mu.Unlock()
	if n := len(w.host.devices); n != 0 {
		t.Errorf("%d devices are left", n)
	}
}
