package tcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/iscsi"
	"iscsictl/transport"
)

// Limits that are offered at login, in bytes.
const (
	maxRecvDataSegmentLength = 256 << 10
	maxBurstLength           = 1 << 20
	firstBurstLength         = 256 << 10
	maxOutstandingR2T        = 4

	// loginDataMax is the data segment that a PDU may have before a larger
	// one is negotiated (RFC 7143 §13.12).
	loginDataMax = 8192
)

// Dialer opens TCP connections. Its zero value is ready for use.
type Dialer struct{}

// Dial implements transport.Dialer.
func (Dialer) Dial(ctx context.Context, addr, local netip.AddrPort, opts transport.DialOptions) (transport.Conn, error) {
	d := net.Dialer{
		KeepAlive: -1, // NOP-Out sees to that
		Control:   func(_, _ string, c syscall.RawConn) error { return mark(c, addr.Addr().Is4(), opts) },
	}
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	}
	c, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, cause(err)
	}
	return &loginConn{tcp: c.(*net.TCPConn), opts: opts}, nil
}

// cause takes off what the net package puts around an error of the system:
// the caller knows the address.
func cause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		if no := syscall.Errno(0); errors.As(op.Err, &no) {
			return no
		}
		return op.Err
	}
	return err
}

// mark sets the DSCP (RFC 2474 §3, the upper six bits of the traffic class) and
// the priority that becomes the PCP on a VLAN device's egress map.
func mark(c syscall.RawConn, ipv4 bool, opts transport.DialOptions) error {
	var failed error
	set := func(name string, level, option, value int, fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), level, option, value); err != nil && failed == nil {
			failed = fmt.Errorf("set %s: %w", name, err)
		}
	}
	err := c.Control(func(fd uintptr) {
		if opts.DSCP >= 0 && ipv4 {
			set("dscp", unix.IPPROTO_IP, unix.IP_TOS, opts.DSCP<<2, fd)
		} else if opts.DSCP >= 0 {
			set("dscp", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, opts.DSCP<<2, fd)
		}
		if opts.PCP >= 0 {
			set("pcp", unix.SOL_SOCKET, unix.SO_PRIORITY, opts.PCP, fd)
		}
	})
	return errors.Join(err, failed)
}

// loginConn is a connection in the login phase.
type loginConn struct {
	tcp  *net.TCPConn
	opts transport.DialOptions
	data [loginDataMax + 3]byte
	out  []byte
	on   *conn // once enabled
}

func (l *loginConn) LocalAddr() netip.AddrPort  { return addrPort(l.tcp.LocalAddr()) }
func (l *loginConn) RemoteAddr() netip.AddrPort { return addrPort(l.tcp.RemoteAddr()) }

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func (l *loginConn) SetDeadline(t time.Time) error { return l.tcp.SetDeadline(t) }

func (l *loginConn) Send(h *iscsi.BHS, data []byte) error {
	l.out = append(append(l.out[:0], h[:]...), data...)
	l.out = append(l.out, zeroes[:iscsi.Pad(len(data))]...)
	if _, err := l.tcp.Write(l.out); err != nil {
		return cause(err)
	}
	return nil
}

func (l *loginConn) Receive() (h iscsi.BHS, data []byte, err error) {
	if err := l.header(&h); err != nil {
		return h, nil, err
	}
	n := h.DataSegmentLength()
	if n > loginDataMax {
		return h, nil, fmt.Errorf("%v with a data segment of %d bytes before a length over %d was negotiated (does the portal speak iSCSI?)", h.Opcode(), n, loginDataMax)
	}
	if h.TotalAHSLength() != 0 {
		return h, nil, fmt.Errorf("%v with an additional header segment of %d bytes", h.Opcode(), h.TotalAHSLength())
	}
	if k, err := io.ReadFull(l.tcp, l.data[:n+iscsi.Pad(n)]); err != nil {
		return h, nil, ended(err, iscsi.BHSLen+k)
	}
	return h, l.data[:n], nil
}

// header receives a header. Other services are told by their first bytes: many
// say less than a header has, and wait.
func (l *loginConn) header(h *iscsi.BHS) error {
	for got, least := 0, bannerMin; got < len(h); least = len(h) {
		n, err := io.ReadAtLeast(l.tcp, h[got:], least-got)
		got += n
		if speaks := otherProtocol(h[:got]); speaks != "" {
			return fmt.Errorf("the portal does not speak iSCSI: it answered as %s", speaks)
		}
		if err != nil {
			return ended(err, got)
		}
	}
	return nil
}

// bannerMin is how many bytes tell another service, at least.
const bannerMin = 8

// ended words the end of a connection within a login PDU, of which got bytes
// were received.
func ended(err error, got int) error {
	switch {
	case err == io.EOF && got == 0:
		return errClosed
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return fmt.Errorf("the target closed the connection in the middle of a PDU, after %d bytes of it (does the portal speak iSCSI?)", got)
	}
	return cause(err)
}

// otherProtocol recognizes servers that are often found on a mistaken port.
func otherProtocol(head []byte) string {
	for _, known := range []struct{ start, name string }{
		{"SSH-", "an SSH server"},
		{"HTTP/", "a web server"},
		{"220 ", "a mail or FTP server"},
		{"220-", "a mail or FTP server"},
		{"\x15\x03", "a TLS server"},
		{"\x16\x03", "a TLS server"},
		{"NBDMAGIC", "an NBD server"},
		{"MPA ID Rep Fr", "an iWARP listener (Protocol = iSER)"},
	} {
		if strings.HasPrefix(string(head), known.start) {
			return known.name
		}
	}
	return ""
}

func (l *loginConn) Offers() transport.Offers {
	return transport.Offers{
		Digests:                  true,
		MaxRecvDataSegmentLength: maxRecvDataSegmentLength,
		MaxBurstLength:           maxBurstLength,
		FirstBurstLength:         firstBurstLength,
		ImmediateData:            true,
		InitialR2T:               false,
		MaxOutstandingR2T:        maxOutstandingR2T,
	}
}

// Facts implements transport.Conn: all there is to know is in the parameters.
func (l *loginConn) Facts() []transport.Fact { return nil }

func (l *loginConn) Enable(p transport.Params, s transport.Session) transport.Mover {
	l.on = newConn(l.tcp, p, s, l.opts.Tasks)
	return l.on
}

func (l *loginConn) Close() error {
	if l.on != nil {
		l.on.Close(net.ErrClosed)
		return nil
	}
	return l.tcp.Close()
}
