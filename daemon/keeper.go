package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"iscsictl/conf"
)

// saveAgain is after how long another attempt is made where one has failed.
const saveAgain = 30 * time.Second

// keeper keeps the state's file up to date.
type keeper struct {
	store store
	lock  *os.File // of the directory, for as long as we live
	file  []byte   // as it was written last; of whoever writes

	mu      sync.Mutex
	end     sync.Cond
	asked   uint64      // savings
	done    uint64      // of these, what is in the file or has failed
	writing bool        // somebody gathers and writes
	trouble string      // why the last attempt has failed
	again   *time.Timer // nil: none set
}

// save returns when what there is now is written down. Who comes while another
// writes waits for the next writing, which is that of all who have come
// meanwhile. Where it fails the daemon goes on, and tries again; what is lost
// until then is that a restart knows of it.
func (d *Daemon) save() {
	k := &d.keeper
	if k.store.dir == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	for mine := k.asked; k.done < mine; {
		if k.writing {
			k.end.Wait()
			continue
		}
		k.writing = true
		upTo := k.asked
		k.mu.Unlock()
		err := d.write()
		k.mu.Lock()
		k.writing, k.done = false, upTo
		d.saved(err)
		k.end.Broadcast()
	}
}

// saved notes how an attempt went. k.mu is held.
func (d *Daemon) saved(err error) {
	k := &d.keeper
	if err == nil {
		if k.trouble != "" {
			d.cfg.Log.Info("the state is saved again")
		}
		k.trouble = ""
		return
	}
	if text := err.Error(); k.trouble != text {
		k.trouble = text
		d.cfg.Log.Error(fmt.Sprintf("%s; until that is mended, a restart of iscsid would not know of what has changed", text))
	}
	if k.again == nil && d.ctx.Err() == nil {
		k.again = time.AfterFunc(saveAgain, func() {
			k.mu.Lock()
			k.again = nil
			k.mu.Unlock()
			if d.ctx.Err() == nil {
				d.save()
			}
		})
	}
}

// unsaved returns why the state cannot be saved, or "".
func (k *keeper) unsaved() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trouble
}

// write gathers what must outlive the daemon, and writes it.
func (d *Daemon) write() error {
	var sessions [][]byte
	for _, e := range d.all() {
		one, err := e.encode()
		if err != nil {
			return err
		}
		sessions = append(sessions, one)
	}
	d.mu.Lock()
	st := state{BootID: bootID(), LastID: d.lastID, Tunables: maps.Clone(d.settings)}
	d.mu.Unlock()
	file, err := st.encode(d.keeper.file, sessions)
	if err != nil {
		return err
	}
	d.keeper.file = file
	return d.keeper.store.write(file)
}

// encoded is a session in the form of the state's file, and what it was made of.
type encoded struct {
	config  conf.Session
	devices []savedDevice
	text    []byte
}

// encode returns the entry in the form of the state's file, which is made anew
// where it has changed. One goroutine at a time may call it.
func (e *entry) encode() ([]byte, error) {
	now := encoded{config: e.target()}
	if e.find == nil {
		now.devices = e.devs.saved()
	}
	last := &e.encoded
	if last.text != nil && last.config == now.config && slices.Equal(last.devices, now.devices) {
		return last.text, nil
	}
	var err error
	now.text, err = json.Marshal(savedSession{ID: e.id, ISID: e.isid[:], Config: now.config, Devices: now.devices})
	if err != nil {
		return nil, fmt.Errorf("state: session %d: %w", e.id, err)
	}
	*last = now
	return now.text, nil
}

// Restore goes on with what an earlier daemon has left in the state: with its
// sessions, where it died in this boot, and always with its session ids. The
// error is that another daemon has the state.
func (d *Daemon) Restore() error {
	k := &d.keeper
	if k.store.dir == "" {
		return nil
	}
	lock, err := k.store.lock()
	switch {
	case errors.Is(err, errOthers):
		return err
	case err != nil:
		d.cfg.Log.Error(err.Error())
	}
	k.lock = lock
	defer d.orphans()
	leftovers, _ := filepath.Glob(filepath.Join(k.store.dir, stateFile+".new-*"))
	for _, path := range leftovers {
		os.Remove(path)
	}
	st, kept, err := k.store.load()
	if err != nil {
		d.cfg.Log.Error(err.Error())
	}
	if kept {
		d.cfg.Log.Error("nothing is saved until that file is moved away and iscsid started again")
		k.store.dir, k.trouble = "", err.Error()
	}
	d.lastID = st.LastID
	if st.BootID != bootID() || st.BootID == "" {
		if n := len(st.Sessions); n > 0 {
			d.cfg.Log.Info(fmt.Sprintf("the state is of an earlier boot: of its %d sessions only the numbers count; iscsictl -A adds them", n))
			d.save() // their secrets need not stay
		}
		return nil
	}
	d.restoreTunables(st.Tunables)
	for _, saved := range st.Sessions {
		d.restore(saved)
	}
	// Only now, as the first to find a disk would make it its own.
	for _, e := range d.all() {
		e.log.Info(fmt.Sprintf("taking up session %d again", e.id))
		e.start()
	}
	return nil
}

// restoreTunables sets what was set with iscsictl. What the command line says
// wins, for as long as it says so.
func (d *Daemon) restoreTunables(saved map[string]string) {
	for name, value := range saved {
		if !d.cfg.Pinned[name] {
			if err := d.cfg.Tunables.Set(name, value); err != nil {
				d.cfg.Log.Warn(fmt.Sprintf("state: %v", err))
				continue
			}
		}
		d.settings[name] = value
	}
}

// restore takes up a session, which is to be started.
func (d *Daemon) restore(saved savedSession) {
	e, err := (*entry)(nil), saved.Config.Validate()
	if err == nil {
		e, err = d.newEntry(saved.ID, [6]byte(saved.ISID), saved.Config)
	}
	if err != nil {
		d.cfg.Log.Error(fmt.Sprintf("session %d to %s cannot be taken up: %v", saved.ID, saved.Config.TargetName, err))
		return
	}
	if e.find == nil {
		e.devs.expect(saved.Devices)
	}
	d.entries[e.id] = e
}
