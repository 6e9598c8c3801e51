package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"iscsictl/iscsi"
	"iscsictl/session/discovery"
	"iscsictl/session/login"
	"iscsictl/transport"
)

// Discover logs in to a portal for discovery, asks for all targets (RFC 7143
// Appendix C), and logs out. cfg is as for a session; Handler and Arena are
// not used. The address is the one that was connected to.
func Discover(ctx context.Context, cfg Config) (found []discovery.Target, portal netip.AddrPort, err error) {
	t := cfg.Target
	t.Discovery, t.TargetName = true, ""
	t.HeaderDigest, t.DataDigest = false, false // login would have to enable them
	cfg.Target = t
	limit := seconds(t.LoginTimeout, cfg.Tunables.LoginTimeout())
	if cfg.AttemptTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, cfg.AttemptTimeout, errLoginTimeout)
		defer cancel()
	}
	conn, result, err := discoveryLogin(ctx, cfg, limit)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	x := &exchange{ctx: ctx, conn: conn, limit: limit, cmdSN: result.CmdSN, expStatSN: result.ExpStatSN}
	answer, err := x.sendTargets()
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	for _, w := range answer.Warnings {
		cfg.Log.Warn(w)
	}
	x.logout()
	return answer.Targets, conn.RemoteAddr(), nil
}

// discoveryData is what Conn.Receive takes, and the default (RFC 7143 §13.12). It
// is declared all the same: with iSER, LIO has no default but 0, and answers with
// nothing, again and again.
const discoveryData = 8192

// discoveryLogin logs in, following redirections.
func discoveryLogin(ctx context.Context, cfg Config, limit time.Duration) (transport.Conn, login.Result, error) {
	address, md5Only := cfg.Target.TargetAddress, false
	for range maxRedirects {
		opts := transport.DialOptions{DSCP: cfg.Target.DSCP, PCP: cfg.Target.PCP}
		conn, err := dial(ctx, cfg.Dialer(cfg.Target), cfg.Target, address, opts)
		if err != nil {
			return nil, login.Result{}, err
		}
		lc := loginConfig(cfg.Target, cfg, md5Only)
		lc.Offers = conn.Offers()
		lc.Offers.Digests = false
		lc.Offers.MaxRecvDataSegmentLength = discoveryData
		// RFC 7145 §6.3 to §6.5: iSER's keys are irrelevant here.
		lc.Offers.Extra, lc.Offers.Check = nil, nil
		result, err := logIn(ctx, conn, lc, limit)
		if err == nil {
			return conn, result, nil
		}
		conn.Close()
		var moved *login.Redirect
		var refused *login.AlgorithmRefused
		switch {
		case errors.As(err, &moved):
			address = moved.Address
		case errors.As(err, &refused) && !md5Only && cfg.Target.CHAPDigest == "":
			md5Only = true
		default:
			return nil, login.Result{}, err
		}
	}
	return nil, login.Result{}, errors.New("redirected in a circle")
}

// exchange is the full-feature phase of a discovery session: one request and
// its answer at a time.
type exchange struct {
	ctx              context.Context
	conn             transport.Conn
	limit            time.Duration
	cmdSN, expStatSN uint32
}

// maxUnsolicited bounds the PDUs that a target may send in place of an answer.
const maxUnsolicited = 1000

// ask sends a request and returns the answer to it. Pings are answered.
func (x *exchange) ask(h iscsi.BHS, data []byte, want iscsi.Opcode) (iscsi.BHS, []byte, error) {
	if x.limit > 0 {
		if err := x.conn.SetDeadline(time.Now().Add(x.limit)); err != nil {
			return h, nil, ioError(x.ctx, err)
		}
	}
	h.SetExpStatSN(x.expStatSN)
	if err := x.conn.Send(&h, data); err != nil {
		return h, nil, ioError(x.ctx, err)
	}
	for range maxUnsolicited {
		in, data, err := x.conn.Receive()
		if err != nil {
			return h, nil, ioError(x.ctx, err)
		}
		switch in.Opcode() {
		case want:
			x.expStatSN = in.StatSN() + 1
			return in, data, nil
		case iscsi.OpNOPIn:
			if err := x.pong(&in, data); err != nil {
				return h, nil, err
			}
		default:
			return h, nil, fmt.Errorf("discovery: %v in place of %v", in.Opcode(), want)
		}
	}
	return h, nil, errors.New("discovery: the target sends pings and no answer")
}

// pong answers a ping of the target.
func (x *exchange) pong(h *iscsi.BHS, data []byte) error {
	var p iscsi.NOPIn
	if err := p.Decode(h); err != nil {
		return err
	}
	if p.TargetTransferTag == iscsi.ReservedTag {
		return nil
	}
	var out iscsi.BHS
	(&iscsi.NOPOut{
		Immediate: true, LUN: p.LUN, InitiatorTaskTag: iscsi.ReservedTag, TargetTransferTag: p.TargetTransferTag,
		CmdSN: x.cmdSN, ExpStatSN: x.expStatSN, DataSegmentLength: len(data),
	}).Encode(&out)
	return ioError(x.ctx, x.conn.Send(&out, data))
}

func (x *exchange) sendTargets() (discovery.Result, error) {
	m := discovery.New(discovery.Config{InitiatorTaskTag: 2, CmdSN: x.cmdSN, ExpStatSN: x.expStatSN})
	var answer *iscsi.BHS
	var data []byte
	for {
		req, out, done, err := m.Next(answer, data)
		if err != nil {
			return discovery.Result{}, err
		}
		if done {
			return m.Result(), nil
		}
		in, text, err := x.ask(req, out, iscsi.OpTextResponse)
		if err != nil {
			return discovery.Result{}, err
		}
		answer, data = &in, text
	}
}

// logout ends the discovery session; how the target takes it changes nothing. It
// has a moment to close the connection, as after any logout.
func (x *exchange) logout() {
	if x.limit <= 0 || x.limit > logoutTimeout {
		x.limit = logoutTimeout
	}
	var h iscsi.BHS
	(&iscsi.LogoutRequest{Immediate: true, Reason: iscsi.LogoutCloseSession, InitiatorTaskTag: 3, CmdSN: x.cmdSN}).Encode(&h)
	if _, _, err := x.ask(h, nil, iscsi.OpLogoutResponse); err == nil && x.conn.SetDeadline(time.Now().Add(closingTime)) == nil {
		_, _, _ = x.conn.Receive()
	}
}
