package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"iscsictl/conf"
)

// server serves the clients of one listener.
type server struct {
	handler Handler
	limits  limits
	access  access
	running sync.WaitGroup

	mu      sync.Mutex // guards the following
	clients int
	perUser map[uint32]int
}

// Serve answers the clients of listener, each in a goroutine of its own, until ctx
// is cancelled or the listener fails. It closes the listener, lets requests that
// are under way end, and returns nil where ctx was the reason.
func Serve(ctx context.Context, listener net.Listener, handler Handler) error {
	s := newServer(handler, defaultLimits)
	return s.serve(ctx, listener)
}

func newServer(handler Handler, limits limits) *server {
	return &server{
		handler: handler,
		limits:  limits,
		access:  newAccess(os.Geteuid()),
		perUser: map[uint32]int{},
	}
}

func (s *server) serve(ctx context.Context, listener net.Listener) error {
	defer s.running.Wait()
	defer listener.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			s.running.Go(func() { s.accepted(ctx, conn) })
		case ctx.Err() != nil:
			return nil
		case passes(err):
			// Out of descriptors or memory: clients wait in the backlog.
			pause(ctx, 100*time.Millisecond)
		default:
			return err
		}
	}
}

// passes tells whether accepting may work again later (accept(2)).
func passes(err error) bool {
	for _, code := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// accepted judges who has connected, and serves those who may call.
func (s *server) accepted(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	p, err := peerOf(conn)
	if err != nil {
		return
	}
	if !s.access.allows(p) {
		_ = s.send(conn, &reply{Error: refusal(Errorf(syscall.EACCES,
			"only root and members of the group %s may control iscsid", Group))})
		return
	}
	if !s.admit(p.uid) {
		_ = s.send(conn, &reply{Error: refusal(Errorf(syscall.EAGAIN,
			"iscsid has too many clients; try again later"))})
		return
	}
	defer s.leave(p.uid)
	s.converse(ctx, conn)
}

func (s *server) admit(uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients >= s.limits.clients || uid != 0 && s.perUser[uid] >= s.limits.perUser {
		return false
	}
	s.clients++
	s.perUser[uid]++
	return true
}

func (s *server) leave(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients--
	if s.perUser[uid]--; s.perUser[uid] == 0 {
		delete(s.perUser, uid)
	}
}

// converse reads requests and answers them until the client leaves, is silent for
// too long, or writes what is not a request.
func (s *server) converse(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Who waits for a request when the daemon stops need not wait longer; who
	// is slow to read a reply, not much longer.
	var gate readGate
	stop := context.AfterFunc(ctx, func() {
		gate.shut(conn)
		time.AfterFunc(s.limits.grace, func() { conn.Close() })
	})
	defer stop()

	in := bufio.NewReader(conn)
	for greeted := false; ; {
		line, err := s.receive(conn, in, &gate)
		if errors.Is(err, errTooLong) {
			_ = s.send(conn, &reply{Error: refusal(Errorf(syscall.EMSGSIZE,
				"the request is longer than %d bytes", MaxRequest))})
		}
		if err != nil {
			return
		}
		req, err := decodeRequest(line)
		if err == nil && !greeted && req.Hello == nil {
			err = Errorf(syscall.EPROTO, "the first request must be hello")
		}
		if err != nil {
			_ = s.send(conn, &reply{Error: refusal(err)})
			return
		}
		if err := s.answer(ctx, conn, in, &gate, req); err != nil {
			return
		}
		greeted = true
	}
}

// readGate sets read deadlines until it is shut, which ends all reading.
type readGate struct {
	mu     sync.Mutex
	closed bool
}

func (g *readGate) deadline(conn net.Conn, t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		_ = conn.SetReadDeadline(t)
	}
}

func (g *readGate) shut(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	_ = conn.SetReadDeadline(time.Unix(1, 0))
}

// receive reads a request's line: it may be long in coming, but not once begun.
func (s *server) receive(conn net.Conn, in *bufio.Reader, gate *readGate) ([]byte, error) {
	gate.deadline(conn, time.Now().Add(s.limits.idle))
	if _, err := in.Peek(1); err != nil {
		return nil, err
	}
	gate.deadline(conn, time.Now().Add(s.limits.request))
	return readLine(in, MaxRequest)
}

// answer does what is asked and sends the reply. An error means that the
// conversation is over.
func (s *server) answer(ctx context.Context, conn net.Conn, in *bufio.Reader, gate *readGate, req *request) error {
	if req.List != nil {
		return s.list(conn)
	}
	if req.Hello != nil {
		r, err := s.hello(req.Hello)
		return errors.Join(s.send(conn, r), err)
	}
	// These may take long: notice when the client is gone.
	if req.Rescan != nil || req.Discover != nil {
		var release func()
		ctx, release = watch(ctx, conn, in, gate)
		defer release()
	}
	r, err := s.do(ctx, req)
	if err != nil {
		r = &reply{Error: refusal(err)}
	}
	return s.send(conn, r)
}

func (s *server) hello(theirs *helloRequest) (*reply, error) {
	version, err := agree(*theirs)
	if err != nil {
		return &reply{Error: refusal(err)}, err
	}
	return &reply{Hello: &helloReply{
		Min: MinVersion, Max: MaxVersion, Version: version, Daemon: s.handler.Version(),
	}}, nil
}

// watch returns a context that ends when the client hangs up. The release must be
// called before anything else is read.
func watch(ctx context.Context, conn net.Conn, in *bufio.Reader, gate *readGate) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	gate.deadline(conn, time.Time{})
	go func() {
		defer close(done)
		// A next request, sent early, is no reason; neither is the release.
		if _, err := in.Peek(1); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			cancel()
		}
	}()
	return ctx, func() {
		gate.deadline(conn, time.Unix(1, 0))
		<-done
		cancel()
	}
}

func (s *server) do(ctx context.Context, req *request) (*reply, error) {
	switch {
	case req.Add != nil:
		c, err := req.Add.valid()
		if err != nil {
			return nil, err
		}
		id, err := s.handler.Add(c)
		return &reply{ID: &id}, err
	case req.Modify != nil:
		change, err := req.Modify.modification()
		if err != nil {
			return nil, err
		}
		return &reply{}, s.handler.Modify(req.Modify.ID, change)
	case req.Remove != nil:
		if req.Remove.Empty() {
			return nil, Errorf(syscall.EINVAL, "nothing says which sessions to remove")
		}
		removed, err := s.handler.Remove(*req.Remove)
		return &reply{Removed: removed}, err
	case req.Rescan != nil:
		if req.Rescan.Empty() {
			return nil, Errorf(syscall.EINVAL, "nothing says which sessions to rescan")
		}
		return &reply{}, s.handler.Rescan(ctx, *req.Rescan)
	case req.Discover != nil:
		return s.discover(ctx, req.Discover)
	case req.Tunables != nil:
		return &reply{Tunables: s.handler.Tunables()}, nil
	case req.SetTunable != nil:
		return &reply{}, s.handler.SetTunable(req.SetTunable.Name, req.SetTunable.Value)
	}
	return nil, Errorf(syscall.EPROTO, "not a request")
}

func (s *server) discover(ctx context.Context, c *config) (*reply, error) {
	from, err := c.valid()
	if err != nil {
		return nil, err
	}
	var found []conf.Session
	if found, err = s.handler.Discover(ctx, from); err != nil {
		return nil, err
	}
	return &reply{Entries: entriesOf(found)}, nil
}

// send writes a reply's line.
func (s *server) send(conn net.Conn, r *reply) error {
	var line bytes.Buffer
	if err := json.NewEncoder(&line).Encode(r); err != nil {
		return err
	}
	_, err := s.writer(conn).Write(line.Bytes())
	return err
}

// list writes the reply to list, session by session: there may be thousands.
func (s *server) list(conn net.Conn) error {
	out := bufio.NewWriterSize(s.writer(conn), piece)
	_, _ = out.WriteString(`{"sessions":[`)
	for i, session := range s.handler.List() {
		if i > 0 {
			_ = out.WriteByte(',')
		}
		one, err := json.Marshal(session)
		if err != nil {
			return err
		}
		if _, err := out.Write(one); err != nil {
			return err
		}
	}
	_, _ = out.WriteString("]}\n")
	return out.Flush() // has the first error of them all
}

func (s *server) writer(conn net.Conn) *pacedWriter {
	return &pacedWriter{
		conn: conn,
		step: s.limits.writeStep,
		end:  time.Now().Add(s.limits.writeTotal),
		left: MaxReply,
	}
}
