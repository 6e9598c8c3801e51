package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"iscsictl/conf"
	"iscsictl/iscsi"
	"iscsictl/session/chap"
	"iscsictl/session/login"
	"iscsictl/transport"
)

// maxRedirects bounds how often one attempt follows a target that has moved.
const maxRedirects = 8

// Reasons of FreeBSD's listing that come from here.
var (
	errLoginTimeout   = errors.New("Login Phase timeout")
	errConnectionLost = errors.New("connection lost")
)

// movedError is a failure at a portal that the target has sent us to.
type movedError struct {
	to        string
	permanent bool
	err       error
}

func (e *movedError) Error() string {
	if e.permanent {
		return "Target moved permanently"
	}
	return "Target moved temporarily"
}

func (e *movedError) Unwrap() error { return e.err }

// attempt connects and logs in, following redirections.
func (s *Session) attempt(ctx context.Context, target conf.Session) error {
	if limit := s.attemptTimeout(); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, errLoginTimeout)
		defer cancel()
	}
	s.mu.Lock()
	s.info.Reason = "" // an attempt is under way
	known := s.login
	s.mu.Unlock()
	address := target.TargetAddress
	var moved *movedError
	if known.moved != "" {
		address = known.moved
		moved = &movedError{to: address, permanent: true}
	}
	for range maxRedirects {
		err := s.connect(ctx, target, address, known.md5Only)
		var r *login.Redirect
		var refused *login.AlgorithmRefused
		switch {
		case err == nil:
			return nil
		case errors.As(err, &r):
			s.tellMoved(r)
			address = r.Address
			moved = &movedError{to: r.Address, permanent: r.Permanent}
			if r.Permanent {
				s.remember(func(m *memory, i *Info) { m.moved, i.Moved = r.Address, r.Address })
			}
		case errors.As(err, &refused) && !known.md5Only && target.CHAPDigest == "": // not where one is pinned
			s.logger().Info("the target refuses a list of CHAP algorithms; offering MD5 alone")
			known.md5Only = true
			s.remember(func(m *memory, _ *Info) { m.md5Only = true })
		case moved != nil:
			// The next attempt asks at the configured portal again.
			s.remember(func(m *memory, _ *Info) { m.moved = "" })
			moved.err = err
			return moved
		default:
			return err
		}
	}
	return &movedError{to: address, permanent: moved != nil && moved.permanent, err: errors.New("redirected in a circle")}
}

// attemptTimeout bounds an attempt: by the daemon's option and by the tunable,
// each of which may be 0 for no bound.
func (s *Session) attemptTimeout() time.Duration {
	own, tunable := s.cfg.AttemptTimeout, s.cfg.Tunables.ISCSIDTimeout()
	if own == 0 || tunable > 0 && tunable < own {
		return tunable
	}
	return own
}

func (s *Session) remember(f func(*memory, *Info)) {
	s.mu.Lock()
	f(&s.login, &s.info)
	s.mu.Unlock()
}

// connect logs in at one portal, at the first of its addresses that answers.
func (s *Session) connect(ctx context.Context, target conf.Session, address string, md5Only bool) error {
	opts := transport.DialOptions{DSCP: target.DSCP, PCP: target.PCP, Arena: s.cfg.Arena, Tasks: s.cfg.Tunables.MaxTags() + internalTasks}
	conn, err := dial(ctx, s.cfg.Dialer(target), target, address, opts)
	if err != nil {
		return err
	}
	cfg := loginConfig(target, s.cfg, md5Only)
	cfg.Offers = conn.Offers()
	result, err := logIn(ctx, conn, cfg, s.loginTimeout(target))
	if err != nil {
		conn.Close()
		return err
	}
	if err := s.checkGroup(result); err != nil {
		conn.Close()
		return err
	}
	for _, w := range result.Warnings {
		s.logger().Warn(w)
	}
	s.enable(conn, result)
	return nil
}

// enable enters the full-feature phase.
func (s *Session) enable(conn transport.Conn, r login.Result) {
	s.mu.Lock()
	s.number++
	n := newNexus(s.number, numbers{r.CmdSN, r.MaxCmdSN, r.ExpStatSN}, r.Params, s.cfg.Tunables.MaxTags(), s.limits(), s.now())
	n.mover = conn.Enable(r.Params, s)
	s.n = n
	i := &s.info
	i.Connected, i.Reason, i.Negotiated = true, "", true
	i.InitiatorPortal, i.TargetPortal, i.Facts = conn.LocalAddr(), conn.RemoteAddr(), conn.Facts()
	i.TargetAlias, i.PortalGroupTag, i.Auth, i.Params = r.TargetAlias, r.TargetPortalGroupTag, auth(r), r.Params
	i.Connections++
	again := i.Connections > 1
	s.mu.Unlock()
	n.mover.Start()
	s.lend()
	if again {
		s.logger().Info("reconnected")
	} else {
		s.logger().Info("connected")
	}
	s.cfg.Handler.Up(n.number)
}

// failed notes that an attempt has failed.
func (s *Session) failed(target conf.Session, err error) {
	line := ""
	if errors.Is(err, errLoginTimeout) {
		line = fmt.Sprintf("login timed out after %d seconds; reconnecting%s", s.loginTimeout(target)/time.Second, advice(err))
	}
	s.note(err, line)
	s.cfg.Handler.Down(err)
}

// dropped notes that a connection has ended.
func (s *Session) dropped(err error) {
	switch {
	case errors.Is(err, errLoggedOut), errors.Is(err, errReconfigured):
		s.logger().Info("logged out")
	case errors.Is(err, errNoPingReply):
		s.note(err, err.Error()+"; reconnecting")
	default:
		s.note(fmt.Errorf("%w: %s", errConnectionLost, Text(err)), fmt.Sprintf("connection error: %s; reconnecting", Text(err)))
	}
	s.remember(func(_ *memory, i *Info) { i.Reason = Waiting })
	s.cfg.Handler.Down(err)
}

// note keeps a failure for the listing, and logs a line where it is a new one.
func (s *Session) note(err error, line string) {
	text := Text(err)
	var moved *movedError
	if errors.As(err, &moved) && moved.err != nil {
		text = fmt.Sprintf("%v to %s: %s", err, moved.to, Text(moved.err))
	}
	s.mu.Lock()
	i := &s.info
	news := s.login.told != text || time.Since(i.LastFailureAt) > repeatAfter
	i.Reason, i.LastFailure, s.login.told = reason(err), text, text
	if news {
		i.LastFailureAt = time.Now()
	}
	s.mu.Unlock()
	if line == "" {
		line = text + "; trying again" + advice(err)
	}
	if news {
		s.logger().Warn(line)
	}
}

// repeatAfter is how long a failure that goes on is not logged again.
const repeatAfter = 10 * time.Minute

// tellMoved logs a redirection, unless it is the one that was logged last.
func (s *Session) tellMoved(r *login.Redirect) {
	how := "temporarily"
	if r.Permanent {
		how = "permanently"
	}
	text := fmt.Sprintf("target moved %s to %s", how, r.Address)
	news := false
	s.remember(func(m *memory, _ *Info) { news, m.sent = m.sent != text, text })
	if news {
		s.logger().Info(text)
	}
}

// Text is an error's text, as listings and logs have it; the operating system's own as strerror(3) spells it.
func Text(err error) string {
	text := err.Error()
	if no := syscall.Errno(0); errors.As(err, &no) && text == no.Error() {
		return strings.ToUpper(text[:1]) + text[1:]
	}
	return text
}

// reason is a failure in the words of the listing.
func reason(err error) string {
	var moved *movedError
	if errors.As(err, &moved) {
		return moved.Error()
	}
	if text := Text(err); text != err.Error() {
		return text
	}
	return login.Reason(err)
}

// auth words how the parties have shown who they are.
func auth(r login.Result) string {
	switch {
	case r.Mutual:
		return fmt.Sprintf("mutual %s (%v)", r.AuthMethod, r.Algorithm)
	case r.AuthMethod == "CHAP":
		return fmt.Sprintf("%s (%v)", r.AuthMethod, r.Algorithm)
	}
	return r.AuthMethod
}

// advice says what an administrator can do about a failure.
func advice(err error) string {
	var status *login.StatusError
	switch {
	case errors.As(err, &status) && status.Status == iscsi.LoginAuthenticationFailure:
		return " (check chapIName and chapSecret)"
	case errors.As(err, &status) && status.Status == iscsi.LoginNotFound:
		return " (check TargetName; iscsictl --discover lists what the portal has)"
	case errors.As(err, &status) && status.Status == iscsi.LoginAuthorizationFailure:
		return " (the target must allow InitiatorName)"
	case errors.Is(err, login.ErrNoVerdict):
		return " (check chapIName and chapSecret)"
	case errors.Is(err, login.ErrAuthenticationRequired):
		return " (set chapIName and chapSecret)"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errLoginTimeout):
		return " (is the target overloaded, or the portal another service's?)"
	}
	return ""
}

func (s *Session) logger() *slog.Logger { return s.cfg.Log }

// loginConfig says how to log in to a target.
func loginConfig(t conf.Session, cfg Config, md5Only bool) login.Config {
	c := login.Config{
		InitiatorName: t.InitiatorName, InitiatorAlias: t.InitiatorAlias, TargetName: t.TargetName,
		Discovery: t.Discovery, ISID: cfg.ISID, CmdSN: 1, InitiatorTaskTag: 1,
		HeaderDigest: t.HeaderDigest, DataDigest: t.DataDigest, Rand: cfg.Rand,
	}
	if t.AuthMethod != conf.AuthCHAP {
		return c
	}
	algorithms := chap.All()
	switch {
	case t.CHAPDigest != "":
		a, _ := chap.ParseAlgorithm(t.CHAPDigest) // conf has checked it
		algorithms = []chap.Algorithm{a}
	case md5Only:
		algorithms = []chap.Algorithm{chap.MD5}
	}
	c.CHAP = &login.CHAPConfig{
		User: t.User, Secret: t.Secret, MutualUser: t.MutualUser, MutualSecret: t.MutualSecret,
		Algorithms: algorithms,
	}
	return c
}

// logIn goes through the login phase. A limit bounds each PDU.
func logIn(ctx context.Context, conn transport.Conn, cfg login.Config, limit time.Duration) (login.Result, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	m := login.New(cfg)
	var answer *iscsi.BHS
	var data []byte
	for {
		req, out, done, err := m.Next(answer, data)
		if err != nil {
			return login.Result{}, err
		}
		if done {
			if !stop() {
				return login.Result{}, context.Cause(ctx)
			}
			return m.Result(), nil
		}
		if limit > 0 {
			if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
				return login.Result{}, ioError(ctx, err)
			}
		}
		h, in, err := ask(conn, &req, out)
		if err != nil {
			if worded := ioError(ctx, err); worded != err {
				return login.Result{}, worded // a matter of time
			}
			return login.Result{}, m.Lost(err)
		}
		answer, data = &h, in
	}
}

// ask sends a login PDU and receives the answer.
func ask(conn transport.Conn, req *iscsi.BHS, out []byte) (iscsi.BHS, []byte, error) {
	if err := conn.Send(req, out); err != nil {
		return iscsi.BHS{}, nil, err
	}
	return conn.Receive()
}

// ioError words an error of a login PDU.
func ioError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errLoginTimeout
	}
	return err
}

// dial connects to the first address of a portal that answers.
func dial(ctx context.Context, d transport.Dialer, t conf.Session, address string, opts transport.DialOptions) (transport.Conn, error) {
	remote, err := resolve(ctx, address)
	if err != nil {
		return nil, err
	}
	var local netip.AddrPort
	if t.InitiatorAddress != "" {
		from, err := resolveLocal(ctx, t.InitiatorAddress, remote[0].Addr().Is4())
		if err != nil {
			return nil, fmt.Errorf("InitiatorAddress: %w", err)
		}
		local = from
	}
	var failed error
	for _, addr := range remote {
		conn, err := d.Dial(ctx, addr, local, opts)
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if failed == nil {
			failed = err
		}
	}
	return nil, failed
}

// resolve looks up the addresses of a portal.
func resolve(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, port, err := conf.SplitAddress(address)
	if err != nil {
		return nil, err
	}
	return lookup(ctx, host, port)
}

// resolveLocal finds the address to connect from, of the portal's family.
func resolveLocal(ctx context.Context, address string, ipv4 bool) (netip.AddrPort, error) {
	host, port, err := conf.SplitLocalAddress(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	all, err := lookup(ctx, host, port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range all {
		if a.Addr().Is4() == ipv4 {
			return a, nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%s has no address of the portal's family", address)
}

func lookup(ctx context.Context, host, port string) ([]netip.AddrPort, error) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q is not a number up to 65535", port)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a, uint16(number))}, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if d := (*net.DNSError)(nil); errors.As(err, &d) {
		return nil, fmt.Errorf("%s: %s", host, d.Err)
	}
	if err != nil || len(addrs) == 0 {
		return nil, fmt.Errorf("%s: no address found", host)
	}
	out := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		out[i] = netip.AddrPortFrom(a.Unmap(), uint16(number))
	}
	return out, nil
}
