package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"iscsictl/arena"
	"iscsictl/conf"
	"iscsictl/iscsi"
	"iscsictl/transport"
	"iscsictl/wait"
)

// pass lets fake time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// portal is a target that logs everybody in, or answers as it is told to. Its
// connections have no wire, so that they live in fake time.
type portal struct {
	mu      sync.Mutex
	dials   []dialed
	refuse  error                                         // of Dial
	status  func(addr string) (iscsi.LoginStatus, string) // of a login, with its text
	silent  bool                                          // never answers a login
	mute    bool                                          // never answers a ping
	deaf    bool                                          // never answers a logout
	lingers bool                                          // does not close the connection after one
	group   int                                           // its tag, beyond 1
	current *link
}

// seen returns the attempts so far.
func (p *portal) seen() []dialed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}

type dialed struct {
	at   time.Time
	addr string
}

func (p *portal) Dial(ctx context.Context, addr, _ netip.AddrPort, _ transport.DialOptions) (transport.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dials = append(p.dials, dialed{time.Now(), addr.String()})
	if p.refuse != nil {
		return nil, p.refuse
	}
	return &link{portal: p, addr: addr, closed: make(chan struct{})}, nil
}

// link is a connection to a portal, in both phases.
type link struct {
	portal   *portal
	addr     netip.AddrPort
	request  iscsi.LoginRequest
	deadline time.Time
	once     sync.Once
	closed   chan struct{}
	session  transport.Session
	cause    error
	statSN   uint32
	tasks    []*transport.Task
	lent     []wait.Thread // the calls of Lend
}

func (l *link) LocalAddr() netip.AddrPort         { return netip.MustParseAddrPort("192.0.2.9:999") }
func (l *link) RemoteAddr() netip.AddrPort        { return l.addr }
func (l *link) SetDeadline(t time.Time) error     { l.deadline = t; return nil }
func (l *link) Send(h *iscsi.BHS, _ []byte) error { return l.request.Decode(h) }
func (l *link) Facts() []transport.Fact           { return nil }
func (l *link) Offers() transport.Offers {
	return transport.Offers{MaxRecvDataSegmentLength: 8192, MaxBurstLength: 65536, FirstBurstLength: 65536, MaxOutstandingR2T: 1}
}

func (l *link) Receive() (h iscsi.BHS, data []byte, err error) {
	if l.portal.silent {
		select {
		case <-time.After(time.Until(l.deadline)):
			return h, nil, os.ErrDeadlineExceeded
		case <-l.closed:
			return h, nil, errors.New("closed")
		}
	}
	r := iscsi.LoginResponse{
		Transit: true, CurrentStage: l.request.CurrentStage, NextStage: l.request.NextStage, ISID: l.request.ISID,
		InitiatorTaskTag: l.request.InitiatorTaskTag, StatSN: l.statSN, ExpCmdSN: 1, MaxCmdSN: 32,
	}
	l.statSN++
	if r.NextStage == iscsi.StageFullFeature {
		r.TSIH = 1
	}
	if l.portal.status != nil {
		status, text := l.portal.status(l.addr.String())
		r.Status, data = status, []byte(text)
	}
	if len(data) == 0 && r.CurrentStage == iscsi.StageSecurity {
		data = fmt.Appendf(nil, "AuthMethod=None\x00TargetPortalGroupTag=%d\x00", 1+l.portal.group)
	}
	if len(data) == 0 && r.CurrentStage == iscsi.StageOperational {
		data = []byte("DefaultTime2Wait=0\x00")
	}
	r.DataSegmentLength = len(data)
	r.Encode(&h)
	return h, data, nil
}

func (l *link) Enable(_ transport.Params, s transport.Session) transport.Mover {
	l.session = s
	l.portal.mu.Lock()
	l.portal.current = l
	l.portal.mu.Unlock()
	return mover{l}
}

func (l *link) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// mover is the link in the full-feature phase.
type mover struct{ *link }

func (m mover) Start() {
	go func() {
		<-m.closed
		m.session.Down(m.cause)
	}()
}
func (m mover) Command(t *transport.Task) { m.tasks = append(m.tasks, t); m.link.tasks = m.tasks }
func (m mover) Abort(*transport.Task)     {}
func (m mover) Flush()                    {}
func (m mover) Lend(t wait.Thread)        { m.link.lent = append(m.link.lent, t) }
func (m mover) Close(err error) {
	m.once.Do(func() {
		m.cause = err
		close(m.closed)
	})
}

func (m mover) Control(h *iscsi.BHS, _ []byte) {
	var out iscsi.BHS
	itt := h.InitiatorTaskTag()
	switch {
	case h.Opcode() == iscsi.OpLogoutRequest && !m.portal.deaf:
		(&iscsi.LogoutResponse{InitiatorTaskTag: itt, StatSN: m.statSN, ExpCmdSN: 1, MaxCmdSN: 32}).Encode(&out)
	case h.Opcode() == iscsi.OpNOPOut && !m.portal.mute:
		(&iscsi.NOPIn{InitiatorTaskTag: itt, TargetTransferTag: iscsi.ReservedTag, StatSN: m.statSN, ExpCmdSN: 1, MaxCmdSN: 32}).Encode(&out)
	default:
		return
	}
	m.link.statSN++
	go func() {
		m.session.Enter()
		err := m.session.Control(&out, nil)
		m.session.Leave()
		if err == nil && h.Opcode() == iscsi.OpLogoutRequest && !m.portal.lingers {
			err = io.EOF
		}
		if err != nil {
			m.Close(err)
		}
	}()
}

// watcher is a handler that counts.
type watcher struct {
	mu    sync.Mutex
	ups   []uint64
	downs []string
}

func (w *watcher) Up(n uint64) {
	w.mu.Lock()
	w.ups = append(w.ups, n)
	w.mu.Unlock()
}

func (w *watcher) Down(err error) {
	w.mu.Lock()
	w.downs = append(w.downs, err.Error())
	w.mu.Unlock()
}
func (w *watcher) Async(uint64, []byte) {}

func start(t *testing.T, p *portal, change func(*Config)) (*Session, *watcher) {
	t.Helper()
	a, err := arena.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	c := conf.NewSession()
	c.InitiatorName, c.TargetName, c.TargetAddress = "iqn.2026-01.example:i", "iqn.2026-01.example:t", "192.0.2.1"
	w := &watcher{}
	cfg := Config{
		ID: 1, ISID: [6]byte{0x80, 1}, Target: c, Tunables: conf.NewTunables(), Arena: a, Handler: w,
		Dialer: func(conf.Session) transport.Dialer { return p },
		Log:    slog.New(slog.DiscardHandler), Rand: rand.Reader,
	}
	if change != nil {
		change(&cfg)
	}
	s := New(cfg)
	s.Start()
	synctest.Wait()
	t.Cleanup(func() {
		s.Close()
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, w
}
