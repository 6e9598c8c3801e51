package daemon

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

func TestStateRoundTrip(t *testing.T) {
	s := store{filepath.Join(t.TempDir(), "new")}
	if st, err := s.load(); err != nil || len(st.Sessions) != 0 {
		t.Errorf("no file: %+v, %v", st, err)
	}
	for range 2 {
		if err := s.save(example()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.load()
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
	st, err := s.load()
	kept, _ := filepath.Glob(filepath.Join(s.dir, stateFile+".damaged-*"))
	if err == nil || len(kept) != 1 || !strings.Contains(err.Error(), kept[0]) || len(st.Sessions) != 0 {
		t.Errorf("%v; kept %v", err, kept)
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
	w.add(w.conf(nameB)) // goes on all the same
	if n := strings.Count(w.log.String(), "would have to be added anew"); n != 1 {
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
		if _, err := s.load(); err != nil {
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
	st, err := store{dir}.load()
	if err != nil {
		t.Fatal(err)
	}

	again := newWorld(t, nil)
	again.d.cfg.Pinned = map[string]bool{"kern.iscsi.login_timeout": true}
	again.d.keeper.store.dir = dir
	again.d.Restore()
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
	after.d.Restore()
	if l := after.d.List(); len(l) != 0 {
		t.Errorf("ghosts of another boot: %+v", l)
	}
	if id := after.add(after.conf(nameA)); id != 3 {
		t.Errorf("the next id is %d, want 3", id)
	}
}
