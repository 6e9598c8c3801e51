package iwarp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"iscsictl/transport/rdma"
)

const (
	// replyTimeout is how long the other side may take for the MPA startup.
	replyTimeout = 10 * time.Second

	mulpduMin     = 128
	mulpduMax     = 65534 // a multiple of four, less the length field
	mulpduDefault = 1442  // where TCP does not say: for an MSS of 1448
)

// Provider makes iWARP connections. Its zero value is ready for use.
type Provider struct {
	NoCRC    bool          // do not ask for CRCs; a peer that does gets them
	MULPDU   int           // the longest ULPDU to send, in bytes; 0: what fits TCP's segments
	Revision int           // of MPA: 1, or 0 and 2 for 2 (with 1 where the peer answers so)
	RTR      RTR           // Dial: offer peer-to-peer mode with these kinds; 0: do not
	Timeout  time.Duration // of the MPA startup; 0: 10 s
	Faults   Faults        // mistakes to make, for tests of peers
}

// Name implements rdma.Provider.
func (*Provider) Name() string { return "iwarp" }

// RemoteInvalidate implements rdma.Provider.
func (*Provider) RemoteInvalidate() bool { return true }

// errRevision means that the peer answers with revision 1.
var errRevision = errors.New("the peer speaks MPA revision 1 only")

// Dial implements rdma.Provider. The error wraps ErrNotIWARP where something
// else listens there, and is an *rdma.RejectedError where the peer refuses.
func (p *Provider) Dial(ctx context.Context, addr, local netip.AddrPort, opts rdma.Options) (rdma.Conn, error) {
	if err := opts.Check(); err != nil {
		return nil, err
	}
	revision := uint8(2)
	if p.Revision == 1 {
		revision = 1
	}
	c, err := p.dial(ctx, addr, local, &opts, revision)
	if errors.Is(err, errRevision) && revision > 1 {
		c, err = p.dial(ctx, addr, local, &opts, 1)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (p *Provider) dial(ctx context.Context, addr, local netip.AddrPort, opts *rdma.Options, revision uint8) (*conn, error) {
	d := net.Dialer{
		KeepAlive: -1, // who uses the connection sees to that
		Control:   func(_, _ string, c syscall.RawConn) error { return mark(c, addr.Addr().Is4(), opts.DSCP, opts.PCP) },
	}
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	}
	nc, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, cause(err)
	}
	tcp := nc.(*net.TCPConn)
	_ = tcp.SetDeadline(time.Now().Add(p.timeout())) // fails only on a closed connection
	stop := context.AfterFunc(ctx, func() { _ = tcp.SetDeadline(time.Unix(1, 0)) })
	c, err := p.initiate(tcp, opts, revision)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		tcp.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return c, nil
}

func (p *Provider) timeout() time.Duration {
	if p.Timeout > 0 {
		return p.Timeout
	}
	return replyTimeout
}

// initiate is the active side of the MPA startup (RFC 5044 §7.1.2, RFC 6581 §7).
func (p *Provider) initiate(tcp *net.TCPConn, opts *rdma.Options, revision uint8) (*conn, error) {
	q := mpaFrame{
		markers: p.Faults.Markers, crc: !p.NoCRC, revision: revision, enhanced: revision > 1, private: opts.PrivateData,
		ird: uint16(opts.InboundReads), ord: uint16(opts.OutboundReads), peerToPeer: p.RTR != 0, rtr: p.RTR,
	}
	if _, err := tcp.Write(q.append(nil)); err != nil {
		return nil, noReply(err, p.timeout())
	}
	r, err := readFrame(tcp, true)
	if err != nil {
		return nil, noReply(err, p.timeout())
	}
	switch {
	case r.revision < revision:
		return nil, errRevision
	case r.reject:
		return nil, &rdma.RejectedError{PrivateData: r.private}
	case r.revision != revision:
		return nil, fmt.Errorf("the peer answers with MPA revision %d to revision %d", r.revision, revision)
	case r.markers:
		return nil, errors.New("the peer demands MPA markers, which are not supported")
	}
	crc := q.crc || r.crc
	s := setup{crc: crc, faults: p.Faults}
	if r.enhanced && r.peerToPeer {
		if s.rtr = r.rtr & p.RTR; s.rtr != RTRWrite && s.rtr != RTRRead {
			return nil, fmt.Errorf("the peer wants RTR messages %#b of the %#b that were offered", r.rtr, p.RTR)
		}
	}
	return p.establish(tcp, opts, r, s)
}

// establish makes the connection of what both frames have said. r is the peer's.
func (p *Provider) establish(tcp *net.TCPConn, opts *rdma.Options, r mpaFrame, s setup) (*conn, error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, cause(err)
	}
	s.mulpdu = p.mulpdu(raw)
	info := rdma.Info{
		Local: addrPort(tcp.LocalAddr()), Remote: addrPort(tcp.RemoteAddr()),
		PrivateData: r.private, Provider: p.Name(),
		SendDepth: opts.SendDepth, Receives: opts.Receives, Revokes: true,
		InboundReads:  readDepth(opts.InboundReads, r.ord, r.enhanced),
		OutboundReads: readDepth(opts.OutboundReads, r.ird, r.enhanced),
	}
	if s.rtrAwaited == RTRRead {
		info.InboundReads = max(1, info.InboundReads)
	}
	info.Device = deviceName(info.Local.Addr())
	check := "no CRC"
	if s.crc {
		check = "CRC32C"
	}
	info.Detail = fmt.Sprintf("MPA %d, %s, MULPDU %d", r.revision, check, s.mulpdu)
	return newConn(tcp, raw, opts, info, s)
}

// mulpdu returns the longest ULPDU to be sent, such that full FPDUs need no
// padding (RFC 5044 §4.1 has the arithmetic).
func (p *Provider) mulpdu(raw syscall.RawConn) int {
	n := p.MULPDU
	if n == 0 {
		n = mulpduDefault
		if mss := segmentSize(raw); mss > 0 {
			n = mss - lengthLen - crcLen
		}
	}
	n = min(max(n, mulpduMin), mulpduMax)
	return (n+lengthLen)&^3 - lengthLen
}

// readFrame reads an MPA frame, and not a byte beyond it.
func readFrame(tcp *net.TCPConn, reply bool) (mpaFrame, error) {
	var b [mpaHeaderLen + mpaPDMax]byte
	if n, err := io.ReadFull(tcp, b[:mpaHeaderLen]); err != nil {
		if n > 0 && n < mpaHeaderLen && string(b[:min(n, mpaKeyLen)]) != mpaReplyKey[:min(n, mpaKeyLen)] {
			err = ErrNotIWARP
		}
		return mpaFrame{}, err
	}
	f, n, err := parseMPAHeader(b[:], reply)
	if err != nil {
		return f, err
	}
	pd := b[mpaHeaderLen : mpaHeaderLen+n]
	if _, err := io.ReadFull(tcp, pd); err != nil {
		return f, err
	}
	f.parsePrivate(append([]byte(nil), pd...))
	return f, nil
}

// noReply words what came instead of an MPA reply.
func noReply(err error, timeout time.Duration) error {
	var late net.Error
	switch {
	case errors.Is(err, ErrNotIWARP):
		return fmt.Errorf("%w: the answer to the MPA request is something else (a plain iSCSI portal?)", ErrNotIWARP)
	case err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w: the connection was closed on the MPA request (a plain iSCSI portal, or an adapter that wants other parameters?)", ErrNotIWARP)
	case errors.As(err, &late) && late.Timeout():
		return fmt.Errorf("%w: no answer to the MPA request within %v (a plain iSCSI portal?)", ErrNotIWARP, timeout)
	}
	return fmt.Errorf("MPA reply: %w", cause(err))
}
