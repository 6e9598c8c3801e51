package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/session"
	"iscsictl/session/discovery"
)

const (
	// probeTimeout bounds the trial of one portal that a target lists.
	probeTimeout = 5 * time.Second
	// retryFirst and retryMost bound the wait after a failed discovery.
	retryFirst, retryMost = time.Second, time.Minute
)

// discoverer is a discovery session: it asks a portal for its targets until it
// is answered, adds a session for each, and removes itself.
type discoverer struct {
	e      *entry
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	kick   chan struct{}

	mu   sync.Mutex
	cfg  session.Config
	last string // reason of the last failure
}

func newDiscoverer(e *entry, cfg session.Config) *discoverer {
	f := &discoverer{e: e, cfg: cfg, done: make(chan struct{}), kick: make(chan struct{}, 1), last: session.Waiting}
	f.ctx, f.cancel = context.WithCancel(e.d.ctx)
	return f
}

func (f *discoverer) start() { go f.run() }

func (f *discoverer) close() {
	f.cancel()
	<-f.done
}

func (f *discoverer) target() conf.Session { return f.config().Target }

func (f *discoverer) config() session.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cfg
}

func (f *discoverer) reconfigure(c conf.Session) {
	f.mu.Lock()
	f.cfg.Target = c
	f.mu.Unlock()
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

func (f *discoverer) reason() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *discoverer) setReason(text string) {
	f.mu.Lock()
	f.last = text
	f.mu.Unlock()
}

func (f *discoverer) run() {
	defer close(f.done)
	wait := retryFirst
	logged := "" // the last failure, which is not logged again
	// A session that is not enabled is discovered, too: what it hands down is
	// that the sessions which it adds are not (iscsictl(8), -e).
	for f.ctx.Err() == nil {
		f.setReason("")
		err := f.once()
		if err == nil {
			if f.e.d.forget(f.e) {
				f.e.d.save()
				f.e.d.leaving.Done()
			}
			return
		}
		if f.ctx.Err() != nil {
			return
		}
		if text := session.Text(err); text != logged {
			f.e.log.Warn(fmt.Sprintf("discovery: %s; trying again", text))
			logged = text
		}
		f.setReason(session.Text(err))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			wait = min(2*wait, retryMost)
		case <-f.kick:
			wait, logged = retryFirst, ""
		case <-f.ctx.Done():
		}
		timer.Stop()
	}
}

// once asks, and adds what is found.
func (f *discoverer) once() error {
	found, err := discover(f.ctx, f.config())
	if err != nil {
		return err
	}
	f.e.log.Info(fmt.Sprintf("discovery: %d targets", len(found)))
	for _, c := range found {
		_, err := f.e.d.Add(c)
		var refused *control.Error
		if errors.As(err, &refused) && refused.Code == syscall.EBUSY {
			continue // it is there already
		}
		if err != nil {
			f.e.log.Error(fmt.Sprintf("discovery: %s: %v", c.TargetName, err))
		}
	}
	return nil
}

// Discover implements control.Handler.
func (d *Daemon) Discover(ctx context.Context, c conf.Session) ([]conf.Session, error) {
	c.Discovery, c.TargetName = true, ""
	if err := d.check(c); err != nil {
		return nil, err
	}
	cfg := session.Config{ISID: newISID(), Target: c, Tunables: d.cfg.Tunables, Dialer: d.dialer, Log: d.cfg.Log, Rand: randomness, AttemptTimeout: d.cfg.AttemptTimeout}
	found, err := discover(ctx, cfg)
	if err != nil {
		return nil, control.Errorf(syscall.EIO, "discovery at %s: %s", c.TargetAddress, session.Text(err))
	}
	return found, nil
}

// discover asks a portal for its targets and returns a configuration for each,
// which inherits all but what belongs to the target.
func discover(ctx context.Context, cfg session.Config) ([]conf.Session, error) {
	found, portal, err := session.Discover(ctx, cfg)
	if err != nil {
		return nil, err
	}
	list := make([]conf.Session, 0, len(found))
	tried := map[string]bool{}
	for _, t := range found {
		c := cfg.Target
		c.Discovery, c.TargetName, c.Nickname = false, t.Name, ""
		c.TargetAddress = choosePortal(ctx, t, cfg.Target.TargetAddress, portal, tried)
		list = append(list, c)
	}
	return list, nil
}

// choosePortal picks the portal that was asked, where the target lists it, else
// the first that takes a connection, else the first.
func choosePortal(ctx context.Context, t discovery.Target, asked string, portal netip.AddrPort, tried map[string]bool) string {
	listed := t.PortalFor(asked, portal)
	if len(listed) == 0 {
		return asked
	}
	if len(listed) == 1 || listed[0] == asked {
		return listed[0]
	}
	for _, address := range listed {
		works, known := tried[address]
		if !known {
			works = answers(ctx, address)
			tried[address] = works
		}
		if works {
			return address
		}
	}
	return listed[0]
}

// answers tells whether a portal takes a connection.
func answers(ctx context.Context, address string) bool {
	host, port, err := conf.SplitAddress(address)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return false
	}
	c.Close()
	return true
}
