package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"iscsictl/conf"
)

// keeper keeps the state's file up to date.
type keeper struct {
	store  store
	mu     sync.Mutex // held while the state is gathered and written
	failed bool       // the last attempt has; it was logged
}

// save writes down what there is now. Where that fails the daemon goes on; what
// is lost is that a restart knows of it.
func (d *Daemon) save() {
	k := &d.keeper
	if k.store.dir == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.store.save(d.state())
	switch {
	case err != nil && !k.failed:
		d.cfg.Log.Error(fmt.Sprintf("%v; after a restart of iscsid, sessions would have to be added anew", err))
	case err == nil && k.failed:
		d.cfg.Log.Info("the state can be saved again")
	}
	k.failed = err != nil
}

// state gathers what must outlive the daemon.
func (d *Daemon) state() state {
	st := state{BootID: bootID(), Tunables: map[string]string{}}
	for _, t := range conf.AllTunables() {
		if v, err := d.cfg.Tunables.Get(t.Name); err == nil && v != fmt.Sprint(t.Default) {
			st.Tunables[t.Name] = v
		}
	}
	for _, e := range d.all() {
		one := savedSession{ID: e.id, ISID: e.isid[:], Config: e.target()}
		if e.find == nil {
			one.Devices = e.devs.saved()
		}
		st.Sessions = append(st.Sessions, one)
	}
	d.mu.Lock()
	st.LastID = d.lastID
	d.mu.Unlock()
	return st
}

// Restore goes on with what an earlier daemon has left in the state: with its
// sessions, where it died in this boot, and always with its session ids.
func (d *Daemon) Restore() {
	k := &d.keeper
	if k.store.dir == "" {
		return
	}
	defer d.orphans()
	leftovers, _ := filepath.Glob(filepath.Join(k.store.dir, stateFile+".new-*"))
	for _, path := range leftovers {
		os.Remove(path)
	}
	st, err := k.store.load()
	if err != nil {
		d.cfg.Log.Error(err.Error())
	}
	d.lastID = st.LastID
	if st.BootID != bootID() || st.BootID == "" {
		return
	}
	for name, value := range st.Tunables {
		if d.cfg.Pinned[name] {
			continue
		}
		if err := d.cfg.Tunables.Set(name, value); err != nil {
			d.cfg.Log.Warn(fmt.Sprintf("state: %v", err))
		}
	}
	for _, saved := range st.Sessions {
		e, err := d.newEntry(saved.ID, [6]byte(saved.ISID), saved.Config)
		if err != nil {
			d.cfg.Log.Error(fmt.Sprintf("session %d cannot be taken up: %v", saved.ID, err))
			continue
		}
		if e.find == nil {
			e.devs.expect(saved.Devices)
		}
		d.entries[e.id] = e
		e.log.Info(fmt.Sprintf("taking up session %d again", e.id))
		e.start()
	}
}
