package session

import (
	"context"
	"time"
)

// Stepper is a session that does nothing by itself: it has no goroutine and no
// clock. Whoever holds it says when to connect, what time it is, and when the
// end of a connection is to be taken in, so that a simulation can play any
// order of events and play it again. Its methods, and the movers', are called by
// one goroutine; a Dialer's connections must answer a login without blocking.
type Stepper struct {
	s *Session
}

// NewStepper makes a session that is to be stepped; clock tells its time.
func NewStepper(cfg Config, clock func() time.Duration) *Stepper {
	s := New(cfg)
	s.now = clock
	return &Stepper{s}
}

// Session returns the session, whose Start and Close are not to be called.
func (p *Stepper) Session() *Session { return p.s }

// Connect makes one attempt to log in, as a Session does while it is down.
func (p *Stepper) Connect() error {
	target := p.s.Target()
	err := p.s.attempt(context.Background(), target)
	if err != nil {
		p.s.failed(target, err)
	}
	return err
}

// Tick looks at the clock, which a Session does once a second.
func (p *Stepper) Tick() {
	p.s.Enter()
	if p.s.n != nil {
		p.s.n.tick(p.s.now(), p.s.limits())
	}
	p.s.Leave()
	p.tell()
}

// Logout begins to log out.
func (p *Stepper) Logout() {
	p.s.Enter()
	if p.s.n != nil {
		p.s.n.logout()
	}
	p.s.Leave()
}

// Drop closes the connection because of err, if there is one.
func (p *Stepper) Drop(err error) { p.s.drop(err) }

// Settle passes on what the session has left to be told: asynchronous messages,
// and the end of a connection, once its mover has called Down. It reports
// whether a connection has ended.
func (p *Stepper) Settle() bool {
	p.tell()
	select {
	case err := <-p.s.down:
		p.s.tell(p.s.ended)
		p.s.dropped(err)
		return true
	default:
		return false
	}
}

func (p *Stepper) tell() {
	select {
	case <-p.s.wake:
		p.s.tell(nil)
	default:
	}
}
