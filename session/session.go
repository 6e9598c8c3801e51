package session

import (
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"iscsictl/arena"
	"iscsictl/conf"
	"iscsictl/iscsi"
	"iscsictl/transport"
	"iscsictl/wait"
)

// Config is what a session is made of.
type Config struct {
	ID       uint32
	ISID     [6]byte // kept for the life of the session: a login with it reinstates (RFC 7143 §6.3.5)
	Target   conf.Session
	Tunables *conf.Tunables
	Dialer   func(conf.Session) transport.Dialer
	Arena    *arena.Arena
	Handler  Handler
	Log      *slog.Logger
	Rand     io.Reader
	// Attempts bounds the login attempts of all sessions together: a place is
	// taken by sending and given back by receiving. nil: no bound.
	Attempts chan struct{}
	// AttemptTimeout bounds one attempt; 0: no bound.
	AttemptTimeout time.Duration
}

// Session is one session with a target, which is kept up until it is closed.
type Session struct {
	cfg Config
	now func() time.Duration // since some moment in the past; it never goes back

	mu      sync.Mutex // the session's lock
	n       *nexus     // nil where there is none
	number  uint64     // of the last nexus
	target  conf.Session
	info    Info
	login   memory
	closing bool
	hurry   time.Duration // silence that is endured at the most; 0: as configured
	threads []wait.Thread // that can wait for the connection
	lending sync.Mutex    // taken before mu

	wake    chan struct{} // something is to be done outside of the lock
	kick    chan struct{} // the configuration has changed
	down    chan error    // the connection has ended
	ended   *nexus        // that the last connection has left; set before down is told
	stop    chan struct{} // closed by Close
	stopped chan struct{} // closed when the session's goroutine has ended
	spare   sync.Pool     // of *[]*Command
}

// memory is what attempts to log in leave for the next.
type memory struct {
	md5Only bool   // the target refuses a list of CHAP algorithms
	moved   string // where it has moved to for good
	told    string // the last failure that was logged
	sent    string // the last redirection that was
	old     oldGroup
}

// Info is what a listing shows of a session's connection.
type Info struct {
	Connected       bool
	Reason          string // of the last failure; "" once connected
	InitiatorPortal netip.AddrPort
	TargetPortal    netip.AddrPort
	Moved           string // address of a permanent redirection
	TargetAlias     string
	PortalGroupTag  int    // -1: not known
	Auth            string // "None", "CHAP (SHA-256)" …
	Params          transport.Params
	Facts           []transport.Fact // of the present connection, or the last
	Negotiated      bool             // Params are those of a login
	Connections     int              // logins that have succeeded
	LastFailure     string
	LastFailureAt   time.Time
	Outstanding     int // commands on the wire
}

// Waiting is the reason until the session is taken up, as FreeBSD words it.
const Waiting = "Waiting for iscsid(8)"

// New makes a session; Start begins to connect it.
func New(cfg Config) *Session {
	start := time.Now()
	s := &Session{
		cfg: cfg, now: func() time.Duration { return time.Since(start) }, target: cfg.Target,
		wake: make(chan struct{}, 1), kick: make(chan struct{}, 1), down: make(chan error, 1),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	s.info.Reason, s.info.PortalGroupTag = Waiting, -1
	s.spare.New = func() any { b := make([]*Command, 0, 64); return &b }
	return s
}

// Start begins to connect, in the background.
func (s *Session) Start() { go s.run() }

// Arena returns the memory for the session's data.
func (s *Session) Arena() *arena.Arena { return s.cfg.Arena }

// MaxTransfer returns the most bytes of data that one command should have; 0: any.
func (s *Session) MaxTransfer() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info.Params.MaxTransfer
}

// Target returns the session's present configuration.
func (s *Session) Target() conf.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.target
}

// Reconfigure replaces the session's configuration: the connection is closed,
// and made again as the new one says.
func (s *Session) Reconfigure(target conf.Session) {
	s.mu.Lock()
	s.target, s.login = target, memory{}
	s.info.Reason, s.info.Moved = Waiting, ""
	s.mu.Unlock()
	signal(s.kick)
}

// Hurry has the session endure no more silence than this, whatever its
// configuration and the tunables say.
func (s *Session) Hurry(silence time.Duration) {
	s.mu.Lock()
	s.hurry = silence
	s.mu.Unlock()
}

// Close logs out and ends the session. It returns when nothing of it is left.
func (s *Session) Close() {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.stop)
	}
	s.mu.Unlock()
	<-s.stopped
}

// Info returns what there is to say of the session.
func (s *Session) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.info
	if s.n != nil {
		i.Outstanding = s.n.active
	}
	return i
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Submit hands commands over. It does not block, and does not keep the slice.
// Where there is no nexus they complete at once with ErrNexusLost.
func (s *Session) Submit(batch []*Command) {
	s.mu.Lock()
	if s.n == nil {
		for _, c := range batch {
			c.Err, c.Nexus = ErrNexusLost, s.number
		}
		s.mu.Unlock()
		deliver(batch)
		return
	}
	s.n.submit(batch)
	s.Leave()
}

// Enter implements transport.Session.
func (s *Session) Enter() { s.mu.Lock() }

// Leave implements transport.Session.
func (s *Session) Leave() {
	n := s.n
	if n == nil {
		s.mu.Unlock()
		return
	}
	n.pump()
	mover, failed := n.mover, n.failed
	done := s.takeDone(n)
	if len(n.async)+len(n.logs) > 0 {
		signal(s.wake)
	}
	s.mu.Unlock()
	mover.Flush()
	s.deliver(done)
	if failed != nil {
		mover.Close(failed)
	}
}

// Numbers, ExpStatSN, Task, Done and Control implement transport.Session. They
// are called by the mover of the present nexus, between Enter and Leave.
func (s *Session) Numbers(hasStatus bool, statSN, expCmdSN, maxCmdSN uint32) error {
	return s.n.Numbers(hasStatus, statSN, expCmdSN, maxCmdSN)
}

// ExpStatSN implements transport.Session.
func (s *Session) ExpStatSN() uint32 { return s.n.ExpStatSN() }

// Task implements transport.Session.
func (s *Session) Task(itt uint32) *transport.Task { return s.n.Task(itt) }

// Done implements transport.Session.
func (s *Session) Done(t *transport.Task, r *transport.Result) error { return s.n.Done(t, r) }

// Control implements transport.Session.
func (s *Session) Control(h *iscsi.BHS, data []byte) error { return s.n.Control(h, data) }

// Down implements transport.Session.
func (s *Session) Down(err error) {
	s.mu.Lock()
	n := s.n
	if n.bye.answered {
		err = errLoggedOut
	}
	n.lost()
	s.n = nil
	s.info.Connected = false
	done := s.takeDone(n)
	s.mu.Unlock()
	s.deliver(done)
	s.ended = n
	s.down <- err
}

// takeDone takes what has completed, to be delivered without the lock.
func (s *Session) takeDone(n *nexus) *[]*Command {
	if len(n.done) == 0 {
		return nil
	}
	b := s.spare.Get().(*[]*Command)
	*b, n.done = n.done, (*b)[:0]
	return b
}

func (s *Session) deliver(done *[]*Command) {
	if done != nil {
		deliver(*done)
		s.spare.Put(done)
	}
}

// deliver tells each issuer of its commands, in runs.
func deliver(done []*Command) {
	for len(done) > 0 {
		n := 1
		for n < len(done) && done[n].Issuer == done[0].Issuer {
			n++
		}
		run := done[:n]
		done = done[n:]
		run[0].Issuer.Complete(run)
	}
}
