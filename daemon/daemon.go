package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/device"
	"iscsictl/device/names"
	"iscsictl/device/users"
)

// Config is what a daemon is made of.
type Config struct {
	Version        string
	DevDir         string           // /dev: links to block devices are made below it
	RunDir         string           // /run/iscsid: what is ours while we run is below it
	StateDir       string           // /var/lib/iscsid: what must outlive us
	Pinned         map[string]bool  // tunables of the command line, which win over saved ones
	Backends       []device.Backend // the preferred first
	Device         string           // the only one, for sessions that ask for none; "": all
	Tunables       *conf.Tunables
	Discard        []string      // devices of no session that are to be taken away
	MaxAttempts    int           // logins at once; 0: no limit
	AttemptTimeout time.Duration // of one login; 0: no limit
	Log            *slog.Logger
}

// Daemon keeps the sessions. It implements control.Handler.
type Daemon struct {
	cfg      Config
	attempts chan struct{} // nil: no limit
	choice   choice
	units    units
	links    links
	names    names.Keeper
	keeper   keeper
	usersOf  func(device string) []device.User
	ctx      context.Context // ended by Stop
	cancel   context.CancelFunc

	goingDown atomic.Bool // the host shuts down

	mu       sync.Mutex
	entries  map[uint32]*entry
	lastID   uint32
	settings map[string]string // tunables that were set at run time
	reserved int64             // memory set aside for sessions
	scarce   bool              // and there is no more of it, as was logged
	stopping bool
	leaving  sync.WaitGroup // entries that are being taken down
}

// New makes a daemon without sessions.
func New(cfg Config) *Daemon {
	d := &Daemon{cfg: cfg, entries: map[uint32]*entry{}, settings: map[string]string{}, links: links{dir: filepath.Join(cfg.RunDir, "by-target")}}
	d.keeper.store.dir = cfg.StateDir
	d.keeper.end.L = &d.keeper.mu
	d.usersOf = users.Find
	d.choice = choice{backends: cfg.Backends, device: cfg.Device, said: map[string]string{}, say: func(text string) { cfg.Log.Info(text) }}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if cfg.MaxAttempts > 0 {
		d.attempts = make(chan struct{}, cfg.MaxAttempts)
	}
	d.initNames()
	return d
}

// Clean takes away what a daemon that died has left behind.
func (d *Daemon) Clean() {
	for _, b := range d.cfg.Backends {
		for _, line := range b.Clean() {
			d.cfg.Log.Warn("left behind by an earlier iscsid: " + line)
		}
	}
	d.links.clean()
	d.cleanNames()
	go d.watchNames()
}

// Version implements control.Handler.
func (d *Daemon) Version() string { return d.cfg.Version }

// Add implements control.Handler.
func (d *Daemon) Add(c conf.Session) (uint32, error) {
	if err := d.check(c); err != nil {
		return 0, err
	}
	e, err := d.register(c)
	if err != nil {
		return 0, err
	}
	d.save() // its id is not to be used again, whatever comes
	e.start()
	return e.id, nil
}

// register makes an entry, which is to be started.
func (d *Daemon) register(c conf.Session) (*entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping {
		return nil, control.Errorf(syscall.ESHUTDOWN, "iscsid is stopping")
	}
	if twin := d.twin(c, nil); twin != nil {
		return nil, busy(c, twin)
	}
	if d.lastID == math.MaxUint32 {
		return nil, control.Errorf(syscall.EOVERFLOW, "there are no session ids left: stop iscsid and remove its state")
	}
	d.lastID++
	e, err := d.newEntry(d.lastID, newISID(), c)
	if err != nil {
		return nil, control.Errorf(syscall.ENOMEM, "%v", err)
	}
	d.entries[e.id] = e
	return e, nil
}

// check refuses what no session can be made of.
func (d *Daemon) check(c conf.Session) error {
	if err := c.Validate(); err != nil {
		return control.Errorf(syscall.EINVAL, "%v", err)
	}
	return checkOffload(c)
}

// twin finds a session of the same kind, portal and target.
func (d *Daemon) twin(c conf.Session, but *entry) *entry {
	for _, e := range d.entries {
		t := e.target()
		if e != but && t.Discovery == c.Discovery && t.TargetAddress == c.TargetAddress && t.TargetName == c.TargetName {
			return e
		}
	}
	return nil
}

func busy(c conf.Session, twin *entry) error {
	if c.Discovery {
		return control.Errorf(syscall.EBUSY, "a discovery session at %s exists (session %d)", c.TargetAddress, twin.id)
	}
	return control.Errorf(syscall.EBUSY, "a session to %s at %s exists (session %d)", c.TargetName, c.TargetAddress, twin.id)
}

// Modify implements control.Handler.
func (d *Daemon) Modify(id uint32, m control.Modification) error {
	defer d.save()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.entries[id]
	if e == nil {
		return control.Errorf(syscall.ESRCH, "session-id %d not found", id)
	}
	c := m.Apply(e.target())
	if err := d.check(c); err != nil {
		return err
	}
	if c.Discovery != e.target().Discovery {
		return control.Errorf(syscall.EINVAL, "session %d cannot change its type; remove it and add it anew", id)
	}
	if twin := d.twin(c, e); twin != nil {
		return busy(c, twin)
	}
	if err := e.spare(c); err != nil {
		return err
	}
	if e.find == nil && c.Device != e.target().Device {
		defer e.devs.remake()
	}
	e.reconfigure(c)
	return nil
}

// Remove implements control.Handler. Sessions whose disks are in use stay, and
// are told of; the others go.
func (d *Daemon) Remove(s control.Selection) ([]uint32, error) {
	if s.Device != "" {
		return nil, d.removeOrphan(strings.TrimPrefix(s.Device, "/dev/"), s.Force)
	}
	matching := d.matching(s)
	if len(matching) == 0 {
		return nil, control.Errorf(syscall.ESRCH, "no session matches")
	}
	var removed []uint32
	var going []*entry
	var refused []string
	for _, e := range matching {
		if err := e.reserve(); err != nil {
			if !s.Force {
				refused = append(refused, fmt.Sprintf("session %d to %s: %v; end its use, or use --force", e.id, e.name(), err))
				continue
			}
			e.log.Warn(fmt.Sprintf("removed by force: %v", err))
		}
		if d.forget(e) {
			removed = append(removed, e.id)
			going = append(going, e)
		}
	}
	for _, e := range going {
		go func() {
			defer d.leaving.Done()
			e.close(false)
		}()
	}
	d.save()
	if len(refused) > 0 {
		return removed, control.Errorf(syscall.EBUSY, "%s", strings.Join(refused, "; "))
	}
	return removed, nil
}

// forget takes an entry out of the registry; the caller closes it, and says
// so to leaving. It reports false where another has done so.
func (d *Daemon) forget(e *entry) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.entries[e.id] != e {
		return false
	}
	delete(d.entries, e.id)
	e.devs.shut()
	d.leaving.Add(1)
	return true
}

// matching returns the entries that are meant, by id.
func (d *Daemon) matching(s control.Selection) []*entry {
	var found []*entry
	for _, e := range d.all() {
		if t := e.target(); s.Match(e.id, t.TargetName, t.TargetAddress, e.moved()) {
			found = append(found, e)
		}
	}
	return found
}

// all returns all entries, by id.
func (d *Daemon) all() []*entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]*entry, 0, len(d.entries))
	for _, e := range d.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry) int { return int(a.id) - int(b.id) })
	return list
}

// List implements control.Handler.
func (d *Daemon) List() []control.Session {
	all := d.all()
	list := make([]control.Session, len(all))
	for i, e := range all {
		list[i] = e.listing()
	}
	return list
}

// Rescan implements control.Handler.
func (d *Daemon) Rescan(ctx context.Context, s control.Selection) error {
	matching := d.matching(s)
	if len(matching) == 0 {
		return control.Errorf(syscall.ESRCH, "no session matches")
	}
	errs := make([]error, len(matching))
	var wait sync.WaitGroup
	for i, e := range matching {
		if s.All && !e.connected() {
			continue // is looked at when it is connected
		}
		wait.Go(func() {
			if err := e.rescan(ctx); err != nil {
				errs[i] = fmt.Errorf("session %d to %s: %w", e.id, e.name(), err)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// Tunables implements control.Handler.
func (d *Daemon) Tunables() []control.Tunable {
	var list []control.Tunable
	for _, t := range conf.AllTunables() {
		value, err := d.cfg.Tunables.Get(t.Name)
		if err != nil {
			continue
		}
		list = append(list, control.Tunable{Name: t.Name, Value: value, Default: fmt.Sprint(t.Default), Description: t.Description})
	}
	return list
}

// SetTunable implements control.Handler.
func (d *Daemon) SetTunable(name, value string) error {
	if _, err := d.cfg.Tunables.Get(name); err != nil {
		return control.Errorf(syscall.ENOENT, "%v", err)
	}
	if err := d.cfg.Tunables.Set(name, value); err != nil {
		return control.Errorf(syscall.EINVAL, "%v", err)
	}
	d.mu.Lock()
	d.settings[name] = value
	d.mu.Unlock()
	d.save()
	for _, e := range d.all() {
		e.armRecovery()
	}
	return nil
}

// Stop logs out of all sessions and takes their devices away, within the time
// of ctx. What is in use then is left as a crash would leave it; where the host
// goes down, and nobody comes to take it up, it is written and taken away.
func (d *Daemon) Stop(ctx context.Context) {
	d.units.stop()
	d.mu.Lock()
	d.stopping = true
	d.mu.Unlock()
	d.cancel()
	var written sync.Once
	for _, e := range d.all() {
		if err := e.reserve(); err != nil {
			if d.goingDown.Load() {
				written.Do(writeOut)
			} else if e.devs.outlive() {
				e.log.Warn(fmt.Sprintf("stopping: %v; it waits for the next iscsid", err))
				continue
			}
			e.log.Warn(fmt.Sprintf("stopping: %v", err))
		}
		if d.forget(e) {
			go func() {
				defer d.leaving.Done()
				e.close(true)
			}()
		}
	}
	d.save()
	done := make(chan struct{})
	go func() {
		d.leaving.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		d.cfg.Log.Warn("time for stopping is up; what is left goes with the process")
	}
}

// randomness is where challenges and identifiers come from.
var randomness = rand.Reader

// newISID makes an initiator session id of the type "random" (RFC 7143 §11.12.5).
func newISID() [6]byte {
	isid := [6]byte{0x80}
	rand.Read(isid[1:]) // never fails (crypto/rand)
	return isid
}
