package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"iscsictl/conf"
)

const (
	// tickEvery is how often a nexus looks at the clock.
	tickEvery = time.Second
	// logoutTimeout bounds the wait for the answer to a logout.
	logoutTimeout = 5 * time.Second
	// closingTime is how long a target has to close a discovery session's
	// connection after that answer.
	closingTime = time.Second
	// backoffFirst is the wait after a first failed attempt; it doubles with
	// each, up to the login timeout.
	backoffFirst = time.Second
	// flapMost is the longest wait after a connection that had come about.
	flapMost = 2 * time.Second
	// stableAfter is how long a connection must have lasted for the next
	// attempt to be made at once.
	stableAfter = 10 * time.Second
)

// errReconfigured ends a connection whose configuration was replaced.
var errReconfigured = errors.New("the configuration has changed")

// run keeps the session up until it is closed.
func (s *Session) run() {
	defer close(s.stopped)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-s.stop
		cancel()
	}()
	backoff := time.Duration(0)
	for ctx.Err() == nil {
		target := s.Target()
		if !target.Enable {
			s.idle(ctx)
			continue
		}
		wait, up, err := s.once(ctx, target)
		switch {
		case ctx.Err() != nil || errors.Is(err, errReconfigured):
			backoff = 0
			continue
		case up >= stableAfter || errors.Is(err, errLoggedOut):
			backoff = 0
		case up > 0:
			backoff = min(max(2*backoff, backoffFirst), flapMost)
		default:
			backoff = min(max(2*backoff, backoffFirst), s.loginTimeout(target))
		}
		s.pause(ctx, max(wait, jitter(backoff)))
	}
}

// idle waits while the session is disabled.
func (s *Session) idle(ctx context.Context) {
	select {
	case <-s.kick:
	case <-ctx.Done():
	}
}

// pause waits before the next attempt. A new configuration ends it.
func (s *Session) pause(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.kick:
		s.mu.Lock()
		s.info.Reason = ""
		s.mu.Unlock()
	case <-ctx.Done():
	}
}

// jitter spreads attempts, so that a target that comes back is not stampeded.
func jitter(d time.Duration) time.Duration {
	if d == 0 {
		return 0
	}
	return d/2 + rand.N(d)
}

// once makes one attempt to connect and, where it succeeds, stays until the
// connection ends. It returns how long the target wants us to wait, how long
// the connection was up (0: it never was), and why it ended.
func (s *Session) once(ctx context.Context, target conf.Session) (wait, up time.Duration, err error) {
	if s.cfg.Attempts != nil {
		select {
		case s.cfg.Attempts <- struct{}{}:
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
	err = s.attempt(ctx, target)
	if s.cfg.Attempts != nil {
		<-s.cfg.Attempts
	}
	if err != nil {
		if ctx.Err() == nil {
			s.failed(target, err)
		}
		return 0, 0, err
	}
	began := time.Now()
	err = s.serve(ctx)
	n := s.ended
	s.lostGroup(n)
	wait = n.bye.wait
	if !n.bye.answered {
		wait = max(wait, n.params.DefaultTime2Wait)
	}
	s.dropped(err)
	return wait, max(time.Since(began), 1), err
}

// serve looks after a connection until it ends.
func (s *Session) serve(ctx context.Context) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	done := ctx.Done()
	kick := s.kick
	var why error // of our own logout
	var late <-chan time.Time
	logout := func(reason error) {
		why, done, kick = reason, nil, nil
		late = time.After(logoutTimeout)
		s.Enter()
		if s.n != nil {
			s.n.logout()
		}
		s.Leave()
	}
	for {
		select {
		case err := <-s.down:
			s.tell(s.ended)
			if why != nil {
				return why
			}
			return err
		case <-tick.C:
			s.Enter()
			if s.n != nil {
				s.n.tick(s.now(), s.limits())
			}
			s.Leave()
		case <-s.wake:
			s.tell(nil)
		case <-kick:
			logout(errReconfigured)
		case <-done:
			logout(errLoggedOut)
		case <-late:
			s.drop(errLoggedOut)
		}
	}
}

// drop closes the connection, if there is one.
func (s *Session) drop(err error) {
	s.mu.Lock()
	n := s.n
	s.mu.Unlock()
	if n != nil {
		n.mover.Close(err)
	}
}

// Drop closes the connection without a logout, as a fault of the network
// would; it will be made again.
func (s *Session) Drop() { s.drop(errors.New("dropped on request")) }

// tell passes on what a nexus has left to be told: the present one, or the one
// that has ended.
func (s *Session) tell(n *nexus) {
	s.mu.Lock()
	if n == nil {
		n = s.n
	}
	if n == nil {
		s.mu.Unlock()
		return
	}
	async, logs := n.async, n.logs
	n.async, n.logs = nil, nil
	s.mu.Unlock()
	for _, line := range logs {
		if s.cfg.Tunables.Debug() > 0 {
			s.logger().Warn(line)
		}
	}
	for _, a := range async {
		s.cfg.Handler.Async(a.lun, a.sense)
	}
}

// limits reads the limits of the full-feature phase. The lock is held.
func (s *Session) limits() limits {
	l := limits{
		command: seconds(s.target.CommandTimeout, s.cfg.Tunables.CommandTimeout()),
		ping:    seconds(s.target.PingTimeout, s.cfg.Tunables.PingTimeout()),
	}
	if s.hurry > 0 && (l.ping == 0 || l.ping > s.hurry) {
		l.ping = s.hurry
	}
	return l
}

func (s *Session) loginTimeout(target conf.Session) time.Duration {
	return seconds(target.LoginTimeout, s.cfg.Tunables.LoginTimeout())
}

// seconds is a session's own value, where it is set, or the tunable's.
func seconds(own int, tunable time.Duration) time.Duration {
	if own >= 0 {
		return time.Duration(own) * time.Second
	}
	return tunable
}
