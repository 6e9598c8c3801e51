package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"iscsictl/conf"

	"github.com/google/go-cmp/cmp"
)

func example() state {
	c := conf.NewSession()
	c.InitiatorName, c.TargetName, c.TargetAddress = "iqn.2026-01.example:i", nameA, "192.0.2.1"
	c.AuthMethod, c.User, c.Secret, c.PingTimeout, c.LUNs = conf.AuthCHAP, "user", "secret of the user", 0, "0,3-5"
	return state{
		BootID: "b", LastID: 9, Tunables: map[string]string{"kern.iscsi.ping_timeout": "9"},
		Sessions: []savedSession{{
			ID: 4, ISID: []byte{0x80, 1, 2, 3, 4, 5}, Config: c,
			Devices: []savedDevice{{LUN: 3, Backend: "ublk", Path: "ublkb0", Identity: "naa.5"}},
		}},
	}
}

// save writes a state as the keeper does.
func (s store) save(st state) error {
	var sessions [][]byte
	for _, one := range st.Sessions {
		text, err := json.Marshal(one)
		if err != nil {
			return err
		}
		sessions = append(sessions, text)
	}
	st.Sessions = nil
	file, err := st.encode(nil, sessions)
	if err != nil {
		return err
	}
	return s.write(file)
}

func TestStateRoundTrip(t *testing.T) {
	s := store{filepath.Join(t.TempDir(), "new")}
	if st, _, err := s.load(); err != nil || len(st.Sessions) != 0 {
		t.Errorf("no file: %+v, %v", st, err)
	}
	for range 2 {
		if err := s.save(example()); err != nil {
			t.Fatal(err)
		}
	}
	got, _, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(example(), got); d != "" {
		t.Error(d)
	}
	files, _ := os.ReadDir(s.dir)
	info, err := os.Stat(filepath.Join(s.dir, stateFile))
	if err != nil || len(files) != 1 || info.Mode() != 0o600 {
		t.Errorf("%d files, mode %v, %v", len(files), info.Mode(), err)
	}
}

// TestDamagedState: whatever byte is wrong, and wherever the file ends, it is
// noticed, said, and the file is kept.
func TestDamagedState(t *testing.T) {
	s := store{t.TempDir()}
	if err := s.save(example()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(s.dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 4
		if st, err := decodeState(bad); err == nil {
			t.Errorf("a wrong bit in byte %d gave %+v", at, st)
		}
		if st, err := decodeState(good[:at]); err == nil {
			t.Errorf("%d bytes of it gave %+v", at, st)
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir, stateFile), good[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	st, stays, err := s.load()
	kept, _ := filepath.Glob(filepath.Join(s.dir, stateFile+".damaged-*"))
	if err == nil || len(kept) != 1 || !strings.Contains(err.Error(), kept[0]) || len(st.Sessions) != 0 || st.LastID != 9 || stays {
		t.Errorf("%v; kept %v; last id %d", err, kept, st.LastID)
	}
	if b, _ := os.ReadFile(kept[0]); !bytes.Equal(b, good[:100]) {
		t.Error("what was kept is not what there was")
	}
	newer := strings.Replace(string(good), "iscsid-state 1", "iscsid-state 2", 1)
	if _, err := decodeState([]byte(newer)); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("another version: %v", err)
	}
}

func TestStateCannotBeSaved(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, nil)
	w.d.keeper.store.dir = filepath.Join(file, "below")
	w.add(w.conf(nameA))
	b := w.add(w.conf(nameB)) // goes on all the same
	if notes := w.session(b).Notes; !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "not saved") }) {
		t.Errorf("the listing has %q", notes)
	}
	if n := strings.Count(w.log.String(), "a restart of iscsid would not know"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"bootId":"b","lastId":9,"sessions":[{"id":4,"isid":"gAECAwQF"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		st, err := decodeState(fmt.Appendf(nil, "%s crc %08x\n%s", stateFormat, checksum(body), body))
		if err != nil {
			return
		}
		s := store{t.TempDir()}
		if err := s.save(st); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.load(); err != nil {
			t.Errorf("what was read and saved cannot be read again: %v", err)
		}
	})
}

// TestRestore: after a death in this boot the sessions come back, with their
// ids, ISIDs and tunables; after another boot, ids go on.
func TestRestore(t *testing.T) {
	w := newWorld(t, nil)
	dir := t.TempDir()
	w.d.keeper.store.dir = dir
	a, b := w.add(w.conf(nameA)), w.add(w.conf(nameB))
	if err := w.d.SetTunable("kern.iscsi.ping_timeout", "9"); err != nil {
		t.Fatal(err)
	}
	if err := w.d.SetTunable("kern.iscsi.login_timeout", "19"); err != nil {
		t.Fatal(err)
	}
	w.until("disks", func() bool { return w.shows(a, "d1-0", "d1-3")() && w.shows(b, "d2-0")() })
	isid := w.d.entries[b].isid
	st, _, err := store{dir}.load()
	if err != nil {
		t.Fatal(err)
	}

	again := newWorld(t, nil)
	again.d.cfg.Pinned = map[string]bool{"kern.iscsi.login_timeout": true}
	again.d.keeper.store.dir = dir
	again.restore()
	if l := again.d.List(); len(l) != 2 || l[0].ID != a || l[1].ID != b || l[1].TargetName != nameB {
		t.Errorf("%+v", l)
	}
	if again.d.entries[b].isid != isid {
		t.Error("the ISID is another one")
	}
	if again.tun.PingTimeout().Seconds() != 9 || again.tun.LoginTimeout().Seconds() != 60 {
		t.Errorf("ping timeout %v, login timeout %v", again.tun.PingTimeout(), again.tun.LoginTimeout())
	}

	st.BootID = "another"
	dir = t.TempDir() // the others go on saving in theirs
	if err := (store{dir}).save(st); err != nil {
		t.Fatal(err)
	}
	after := newWorld(t, nil)
	after.d.keeper.store.dir = dir
	after.restore()
	if l := after.d.List(); len(l) != 0 {
		t.Errorf("ghosts of another boot: %+v", l)
	}
	if id := after.add(after.conf(nameA)); id != 3 {
		t.Errorf("the next id is %d, want 3", id)
	}
}

// TestOverriddenTunable: what was set at run time is there again when the
// command line does not speak of it any more, and what that said is not kept.
func TestOverriddenTunable(t *testing.T) {
	dir := t.TempDir()
	start := func(option string) *world {
		w := newWorld(t, nil)
		w.d.keeper.store.dir = dir
		if option != "" {
			w.d.cfg.Pinned = map[string]bool{"kern.iscsi.ping_timeout": true}
			if err := w.tun.Set("kern.iscsi.ping_timeout", option); err != nil {
				t.Fatal(err)
			}
		}
		w.restore()
		return w
	}
	for i, step := range []struct {
		option, set string
		want        int
	}{{"7", "", 7}, {"", "", 5}, {"", "9", 9}, {"7", "", 7}, {"", "", 9}, {"7", "8", 8}, {"", "", 8}} {
		w := start(step.option)
		if step.set != "" {
			if err := w.d.SetTunable("kern.iscsi.ping_timeout", step.set); err != nil {
				t.Fatal(err)
			}
		}
		if got := int(w.tun.PingTimeout().Seconds()); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
		w.d.save()
		w.d.keeper.lock.Close() // as death does
		w.d.keeper.store.dir = ""
	}
}

// TestStateOfOthers: one daemon at a time has a state.
func TestStateOfOthers(t *testing.T) {
	dir := t.TempDir()
	first, second := newWorld(t, nil), newWorld(t, nil)
	first.d.keeper.store.dir, second.d.keeper.store.dir = dir, dir
	first.restore()
	if err := second.d.Restore(); !errors.Is(err, errOthers) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second one: %v", err)
	}
	second.d.keeper.store.dir = ""
}

// TestStateNotTrusted: a file that others could have written is not read.
func TestStateNotTrusted(t *testing.T) {
	s := store{t.TempDir()}
	path := filepath.Join(s.dir, stateFile)
	for what, spoil := range map[string]func() error{
		"writable by a group": func() error { return os.Chmod(path, 0o620) },
		"a link": func() error {
			return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
		},
	} {
		if err := s.save(example()); err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if st, _, err := s.load(); err == nil || len(st.Sessions) > 0 {
			t.Errorf("%s: %+v, %v", what, st, err)
		}
	}
}

// TestManySaves: many sessions that are added at once are all in the file when
// each addition returns, and unchanged ones are not encoded again.
func TestManySaves(t *testing.T) {
	w := newWorld(t, nil)
	dir := t.TempDir()
	w.d.keeper.store.dir = dir
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			c := w.conf(fmt.Sprintf("%s%d", nameA, i))
			c.Enable = false
			id, err := w.d.Add(c)
			if err != nil {
				t.Error(err)
				return
			}
			st, _, err := store{dir}.load()
			if err != nil || st.LastID < id || !slices.ContainsFunc(st.Sessions, func(s savedSession) bool { return s.ID == id && s.Config == c }) {
				t.Errorf("session %d is not in the file: %v", id, err)
			}
		})
	}
	all.Wait()
	e := w.d.all()[7]
	a, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := e.encode(); &a[0] != &b[0] {
		t.Error("what has not changed was encoded again")
	}
	c := e.target()
	c.PingTimeout = 77
	e.reconfigure(c)
	if b, _ := e.encode(); !bytes.Contains(b, []byte(`"pingTimeout":77`)) {
		t.Errorf("a change is not in %s", b)
	}
}

// TestIDsRunOut: an id is never given twice.
func TestIDsRunOut(t *testing.T) {
	w := newWorld(t, nil)
	w.d.lastID = 1<<32 - 2
	c := w.conf(nameA)
	c.Enable = false
	if id := w.add(c); id != 1<<32-1 {
		t.Errorf("the last id is %d", id)
	}
	c.TargetName = nameB
	if id, err := w.d.Add(c); err == nil {
		t.Errorf("then comes %d", id)
	}
}

// BenchmarkAdd is for how the time of adding a session grows with those that are there.
func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				d := New(Config{StateDir: b.TempDir(), Tunables: conf.NewTunables(), Log: slog.New(slog.DiscardHandler)})
				begin := time.Now()
				for i := range n {
					c := conf.NewSession()
					c.TargetName, c.TargetAddress, c.Enable = fmt.Sprintf("%s%d", nameA, i), "192.0.2.1", false
					if _, err := d.Add(c); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(time.Since(begin).Microseconds())/float64(n), "us/session")
				d.Stop(b.Context())
			}
		})
	}
}
