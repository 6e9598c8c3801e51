package target

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"

	"iscsictl/iscsi"
	"iscsictl/transport/rdma"
)

// Server serves the targets of a Config.
type Server struct {
	conf   Config
	log    *slog.Logger
	rand   io.Reader
	nodes  []*node
	faults faults

	mu        sync.Mutex
	closed    bool
	listeners []listener
	conns     map[*conn]struct{}
	sessions  map[uint16]*conn // by TSIH
	accepted  int
	lastTSIH  uint16
	retired   []*unit // removed, but their bytes may still be on their way
	wait      sync.WaitGroup
}

// listener is a portal that is served.
type listener struct {
	io.Closer
	address string
	tag     int
	iser    bool
}

// maxConns is how many connections a server has at most.
const maxConns = 4096

// New makes a server. Memory and files of its logical units are held until
// Close.
func New(conf Config) (*Server, error) {
	conf.setDefaults()
	s := &Server{
		conf: conf, log: conf.Logger, rand: conf.Rand,
		conns: make(map[*conn]struct{}), sessions: make(map[uint16]*conn),
	}
	if s.rand == nil {
		s.rand = rand.Reader
	}
	if err := s.configure(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) configure() error {
	if s.conf.Discovery != nil {
		if err := s.conf.Discovery.check(); err != nil {
			return fmt.Errorf("discovery: %w", err)
		}
	}
	for i := range s.conf.Portals {
		p := &s.conf.Portals[i]
		if err := p.check(); err != nil {
			return err
		}
		if p.Tag == 0 {
			p.Tag = defaultTag
		}
	}
	for _, f := range s.conf.Faults {
		if err := s.AddFault(f); err != nil {
			return err
		}
	}
	for _, t := range s.conf.Targets {
		if s.node(t.Name) != nil {
			return fmt.Errorf("target %s is there twice", t.Name)
		}
		n, err := newNode(t)
		if err != nil {
			return err
		}
		s.nodes = append(s.nodes, n)
	}
	return nil
}

// node returns the target with a name, or nil.
func (s *Server) node(name string) *node {
	for _, n := range s.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Serve accepts connections from l as a portal of portal group 1, until Close
// or until l fails. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.ServePortal(l, defaultTag) }

// ServePortal is Serve with another portal group tag. It returns nil after
// Close.
func (s *Server) ServePortal(l net.Listener, tag int) error {
	return s.accept(listener{l, l.Addr().String(), tag, false}, func() error {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		if !s.start(func(number int) *conn { return newStream(s, nc, number, tag) }) {
			_ = nc.Close()
		}
		return nil
	})
}

// ServeISER is ServePortal for iSER: it accepts RDMA connections.
func (s *Server) ServeISER(l rdma.Listener, tag int) error {
	return s.accept(listener{l, l.Addr().String(), tag, true}, func() error {
		r, err := l.Accept()
		if err != nil {
			return err
		}
		if !s.start(func(number int) *conn { return newISER(s, r, number, tag) }) {
			_ = r.Reject(nil)
		}
		return nil
	})
}

// accept calls next, which takes in one connection, until Close.
func (s *Server) accept(l listener, next func() error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = l.Close()
		return net.ErrClosed
	}
	s.listeners = append(s.listeners, l)
	s.wait.Add(1)
	s.mu.Unlock()
	defer s.wait.Done()
	defer s.forget(l)
	for {
		if err := next(); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.closed {
				return nil
			}
			return fmt.Errorf("portal %s: %w", l.address, err)
		}
	}
}

func (s *Server) forget(l listener) {
	_ = l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = slices.DeleteFunc(s.listeners, func(o listener) bool { return o.Closer == l.Closer })
}

// start makes a connection and serves it, unless there are too many.
func (s *Server) start(open func(number int) *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= maxConns {
		return false
	}
	s.accepted++
	c := open(s.accepted)
	s.conns[c] = struct{}{}
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		c.run()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	}()
	return true
}

// portals are those that SendTargets lists: where data moves as on the
// connection that asks, as an initiator could not tell them apart.
func (s *Server) portals(iser bool) []Portal {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Portal
	add := func(p Portal) {
		if p.ISER == iser && !slices.ContainsFunc(list, func(o Portal) bool { return o.Address == p.Address && o.Tag == p.Tag }) {
			list = append(list, p)
		}
	}
	for _, l := range s.listeners {
		add(Portal{Address: l.address, Tag: l.tag, ISER: l.iser})
	}
	for _, p := range s.conf.Portals {
		add(p)
	}
	return list
}

// register makes the session of c known, after it has ended the session that
// it takes the place of (RFC 7143 §6.3.5): the tasks of that one are gone when
// this returns. tsih is what the initiator gave: it must be 0, as there is one
// connection to a session.
func (s *Server) register(c *conn, session *session, tsih uint16) error {
	for {
		s.mu.Lock()
		if tsih != 0 {
			_, exists := s.sessions[tsih]
			s.mu.Unlock()
			if exists {
				return loginFailure(iscsi.LoginTooManyConnections, "another connection for session %d", tsih)
			}
			return loginFailure(iscsi.LoginSessionDoesNotExist, "no session %d", tsih)
		}
		old := s.sameNexus(c, session)
		if old == nil {
			err := s.enter(c, session)
			s.mu.Unlock()
			return err
		}
		s.mu.Unlock()
		c.log.Info("session reinstated", "initiator", session.initiator, "old-connection", old.number)
		old.close()
		<-old.done
	}
}

// sameNexus finds the session between the same two ports; s.mu is held.
func (s *Server) sameNexus(c *conn, n *session) *conn {
	for _, old := range s.sessions {
		o := old.session
		if o.node == n.node && o.node != nil && o.initiator == n.initiator && o.isid == n.isid && old.tag == c.tag {
			return old
		}
	}
	return nil
}

// enter gives a session its TSIH; s.mu is held.
func (s *Server) enter(c *conn, session *session) error {
	if s.closed || len(s.sessions) >= maxConns {
		return loginFailure(iscsi.LoginOutOfResources, "%d sessions", len(s.sessions))
	}
	for {
		s.lastTSIH++
		if _, taken := s.sessions[s.lastTSIH]; s.lastTSIH != 0 && !taken {
			break
		}
	}
	session.tsih = s.lastTSIH
	c.session = session
	s.sessions[session.tsih] = c
	return nil
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[c.session.tsih] == c {
		delete(s.sessions, c.session.tsih)
	}
}

// connections are those that are logged in to a target, in the order of their
// numbers; nil: to any.
func (s *Server) connections(n *node) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*conn
	for _, c := range s.sessions {
		if n == nil || c.session.node == n {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *conn) int { return a.number - b.number })
	return list
}

// dropTarget closes all connections of a target.
func (s *Server) dropTarget(n *node) {
	for _, c := range s.connections(n) {
		c.close()
	}
}

// Close ends all listeners and connections, and frees the logical units.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for _, l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		c.close()
	}
	s.mu.Unlock()
	s.wait.Wait()
	var err error
	for _, n := range s.nodes {
		err = errors.Join(err, n.close())
	}
	for _, u := range s.retired {
		err = errors.Join(err, u.storage.close())
	}
	return err
}
