package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"iscsictl/arena"
	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/disk"
	"iscsictl/session"
)

// entry is one session of the registry, with all that hangs on it. It handles
// the session's events (session.Handler) and passes them on to the set of
// logical units, whose events (disk.Events) make devices come and go.
type entry struct {
	d     *Daemon
	id    uint32
	isid  [6]byte
	who   *who // in the log
	log   *slog.Logger
	arena *arena.Arena     // nil for discovery
	conn  *session.Session // nil for discovery
	find  *discoverer      // nil for a normal session
	devs  devices

	encoded  encoded // the keeper's
	reserved bool    // see takeReserve; under the daemon's lock

	mu       sync.Mutex
	disks    *disk.Set
	past     disk.Stats // of sets that were closed
	up       bool
	closed   bool
	lost     time.Time   // since when it is not up
	gaveUp   bool        // requests have failed since
	recovery *time.Timer // until held requests fail
}

func (d *Daemon) newEntry(id uint32, isid [6]byte, c conf.Session) (*entry, error) {
	e := &entry{d: d, id: id, isid: isid, who: newWho(c), lost: time.Now()}
	e.log = d.cfg.Log.With(slog.Any("session", e.who))
	cfg := session.Config{
		ID: id, ISID: isid, Target: c, Tunables: d.cfg.Tunables, Dialer: d.dialer,
		Handler: e, Log: e.log, Rand: randomness,
		Attempts: d.attempts, AttemptTimeout: d.cfg.AttemptTimeout,
	}
	if c.Discovery {
		e.find = newDiscoverer(e, cfg)
		return e, nil
	}
	a, err := arena.NewResident(int(d.cfg.Tunables.ArenaSize()))
	if err != nil {
		return nil, err
	}
	e.arena, cfg.Arena = a, a
	e.devs.init(e)
	e.conn = session.New(cfg)
	if e.disks, err = e.newDisks(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return e, nil
}

// newDisks makes a set of logical units on the session.
func (e *entry) newDisks() (*disk.Set, error) {
	set := disk.New(disk.Config{
		Events: &e.devs, Log: e.log,
		Select: func(lun uint64) bool { return e.conn.Target().LUNs.Contains(lun) },
	})
	return set, set.Bind(e.conn)
}

func (e *entry) start() {
	if e.find != nil {
		e.find.start()
		return
	}
	e.conn.Start()
}

// target returns the entry's configuration.
func (e *entry) target() conf.Session {
	if e.find != nil {
		return e.find.target()
	}
	return e.conn.Target()
}

func (e *entry) name() string {
	t := e.target()
	if t.Discovery {
		return t.TargetAddress
	}
	return t.TargetName
}

// moved returns the address of a permanent redirection, or "".
func (e *entry) moved() string {
	if e.conn == nil {
		return ""
	}
	return e.conn.Info().Moved
}

// spare keeps new users away from the devices that the session loses by another
// configuration, and from no others, such as those that it would have lost by the
// one before. Where one of them is in use, the error says what cannot be changed.
func (e *entry) spare(c conf.Session) error {
	if e.find != nil {
		return nil
	}
	was := e.target()
	what, loses := "LUNs", func(lun uint64) bool { return !c.LUNs.Contains(lun) }
	switch {
	case c.TargetName != was.TargetName:
		what, loses = "TargetName", anyLUN
	case c.Device != was.Device:
		what, loses = "Device", anyLUN
	}
	if err := e.devs.reserve(loses); err != nil {
		return control.Errorf(syscall.EBUSY, "%s of session %d cannot be changed: %v", what, e.id, err)
	}
	e.devs.release(func(lun uint64) bool { return !loses(lun) })
	return nil
}

// reconfigure replaces the session's configuration, once spare has let it. Other
// LUNs are looked for, and those that are not meant any more go, at the login that
// follows.
func (e *entry) reconfigure(c conf.Session) {
	e.who.now.Store(&c)
	if e.find != nil {
		e.find.reconfigure(c)
		return
	}
	same := e.conn.Target().TargetName == c.TargetName
	e.conn.Reconfigure(c)
	if !same {
		e.renew(errors.New("the session's target has changed"))
		return
	}
	e.devs.rename()
}

// renew fails all requests, takes the devices away and begins with a new set.
func (e *entry) renew(err error) {
	fresh, failed := e.newDisks()
	if failed != nil {
		e.log.Error(fmt.Sprintf("the disks stay: %v", failed))
		return
	}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		fresh.Close()
		return
	}
	old := e.disks
	e.disks = fresh
	e.past.Add(old.Stats())
	e.mu.Unlock()
	e.log.Warn(fmt.Sprintf("removing the disks: %v", err))
	old.Close()
	e.devs.clear(true)
}

func (e *entry) set() *disk.Set {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.disks
}

// Up implements session.Handler.
func (e *entry) Up(nexus uint64) {
	e.mu.Lock()
	e.up, e.gaveUp = true, false
	if e.recovery != nil {
		e.recovery.Stop()
		e.recovery = nil
	}
	set := e.disks
	e.mu.Unlock()
	set.Up(nexus)
}

// Down implements session.Handler.
func (e *entry) Down(err error) {
	e.mu.Lock()
	was := e.up
	e.up = false
	if was {
		e.lost = time.Now()
	}
	set := e.disks
	e.mu.Unlock()
	set.Down(err)
	if was && e.d.cfg.Tunables.FailOnDisconnection() && e.target().Enable {
		e.renew(err)
		return
	}
	e.armRecovery()
}

// Async implements session.Handler.
func (e *entry) Async(lun uint64, sense []byte) { e.set().Async(lun, sense) }

// armRecovery sees to it that requests fail when the session has been away for
// as long as its recovery time-out says, or a host that goes down may wait.
func (e *entry) armRecovery() {
	if e.find != nil {
		return
	}
	limit := e.patience()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.recovery != nil {
		e.recovery.Stop()
		e.recovery = nil
	}
	if e.up || e.closed || limit == 0 || e.gaveUp && !e.d.goingDown.Load() {
		return
	}
	e.recovery = time.AfterFunc(limit-time.Since(e.lost), func() { e.giveUp(limit) })
}

// patience is how long the session may be away; 0: for ever.
func (e *entry) patience() time.Duration {
	limit := e.d.cfg.Tunables.RecoveryTimeout()
	if own := e.target().RecoveryTimeout; own >= 0 {
		limit = time.Duration(own) * time.Second
	}
	if e.d.failsForShutdown() && (limit == 0 || limit > shutdownPatience) {
		limit = shutdownPatience
	}
	return limit
}

func (e *entry) giveUp(after time.Duration) {
	e.mu.Lock()
	over, set := e.up || e.closed, e.disks
	e.gaveUp = !over
	e.mu.Unlock()
	if over {
		return
	}
	e.log.Error(fmt.Sprintf("not connected for %v; requests fail until it is", after))
	set.Fail(errors.New("recovery time-out"))
	e.devs.do(e.devs.discard) // what no disk was found for yet cannot be failed otherwise
}

func (e *entry) connected() bool { return e.conn != nil && e.conn.Info().Connected }

func (e *entry) rescan(ctx context.Context) error {
	if e.find != nil {
		return nil
	}
	if !e.connected() {
		return errors.New("not connected")
	}
	err := e.set().Rescan(ctx)
	e.devs.retry()
	return err
}

// reserve keeps new users away from the entry's devices, unless one is in use.
func (e *entry) reserve() error {
	if e.find != nil {
		return nil
	}
	return e.devs.reserve(anyLUN)
}

// close takes everything down: devices first, while their last writes can still
// reach the target, then the session. Requests that wait for a session that is
// not connected are failed, unless that is not wanted when the daemon stops:
// then they have until detachTimeout.
func (e *entry) close(stopping bool) {
	if e.find != nil {
		e.find.close()
		return
	}
	e.mu.Lock()
	e.closed = true
	set := e.disks
	up := e.up
	if e.recovery != nil {
		e.recovery.Stop()
	}
	e.mu.Unlock()
	if !up && (!stopping || e.d.cfg.Tunables.FailOnShutdown()) {
		set.Fail(errors.New("session removed"))
	}
	stuck := time.AfterFunc(detachTimeout, func() {
		e.conn.Close()
		set.Fail(errors.New("session removed"))
	})
	e.devs.close()
	stuck.Stop()
	e.conn.Close()
	set.Close()
	if err := e.arena.Close(); err != nil {
		e.log.Error(err.Error())
	}
	e.d.giveReserve(e)
	e.log.Info("removed")
}

// listing returns what a client is shown.
func (e *entry) listing() control.Session {
	l := control.NewSession()
	c := e.target()
	l.ID = e.id
	configured(&l, c)
	if e.find != nil {
		l.Reason = e.find.reason()
		return l
	}
	i := e.conn.Info()
	connected(&l, i)
	set := e.set()
	l.Devices = e.devs.list()
	l.Scanning = i.Connected && (!set.Scanned() || e.devs.working())
	if i.Connected {
		l.Notes = append(set.Notes(), e.devs.notes()...)
	}
	if why := e.d.keeper.unsaved(); why != "" {
		l.Notes = append(l.Notes, "not saved for a restart of iscsid: "+why)
	}
	e.mu.Lock()
	stats := e.past
	stats.Add(set.Stats())
	e.mu.Unlock()
	l.Counters = control.Counters{
		Requests: stats.Requests, BytesRead: stats.BytesRead, BytesWritten: stats.BytesWritten, Errors: stats.Errors,
		Reconnects: uint64(max(i.Connections-1, 0)), LastFailure: i.LastFailure, LastFailureTime: i.LastFailureAt,
	}
	return l
}
