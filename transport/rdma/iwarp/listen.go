package iwarp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"iscsictl/transport/rdma"
)

// startupsMax bounds how many peers may be in the MPA startup at a time.
const startupsMax = 64

type listener struct {
	provider *Provider
	tcp      *net.TCPListener
	requests chan *request
	places   chan struct{}   // of peers in the startup
	open     context.Context // until Close
	stop     context.CancelFunc
	failed   error // why the listener has ended; valid once requests is closed
}

// Listen implements rdma.Provider.
func (p *Provider) Listen(ctx context.Context, addr netip.AddrPort) (rdma.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen at %v: %w", addr, cause(err))
	}
	x := &listener{
		provider: p, tcp: l.(*net.TCPListener), requests: make(chan *request),
		places: make(chan struct{}, startupsMax),
	}
	x.open, x.stop = context.WithCancel(context.WithoutCancel(ctx))
	go x.run()
	return x, nil
}

// Addr implements rdma.Listener.
func (l *listener) Addr() netip.AddrPort { return addrPort(l.tcp.Addr()) }

// Accept implements rdma.Listener.
func (l *listener) Accept() (rdma.Request, error) {
	select {
	case r, ok := <-l.requests:
		if !ok {
			return nil, l.failed
		}
		return r, nil
	case <-l.open.Done():
		return nil, rdma.ErrClosed
	}
}

// Close implements rdma.Listener.
func (l *listener) Close() error {
	if l.open.Err() != nil {
		return nil
	}
	l.stop()
	return l.tcp.Close()
}

func (l *listener) run() {
	var startups sync.WaitGroup
	for {
		tcp, err := l.tcp.AcceptTCP()
		if err != nil {
			startups.Wait()
			if errors.Is(err, net.ErrClosed) {
				err = rdma.ErrClosed
			}
			l.failed = cause(err)
			close(l.requests)
			return
		}
		select {
		case l.places <- struct{}{}:
			startups.Go(func() { l.startup(tcp) })
		default:
			tcp.Close()
		}
	}
}

// startup reads a peer's request and waits until somebody takes it.
func (l *listener) startup(tcp *net.TCPConn) {
	defer func() { <-l.places }()
	_ = tcp.SetDeadline(time.Now().Add(l.provider.timeout())) // fails only on a closed connection
	// Close ends the reading, too.
	keep := context.AfterFunc(l.open, func() { _ = tcp.SetDeadline(time.Unix(1, 0)) })
	f, err := readFrame(tcp, false)
	if !keep() && err == nil {
		err = rdma.ErrClosed
	}
	r := &request{provider: l.provider, tcp: tcp, frame: f}
	switch {
	case err != nil, f.reject:
		tcp.Close()
		return
	case f.markers, f.revision == 0:
		// Markers are not supported; nor is what the RDMA consortium had
		// before revision 1.
		_ = r.Reject(nil) // the peer is of no more interest
		return
	}
	select {
	case l.requests <- r:
	case <-l.open.Done():
		tcp.Close()
	}
}

// request is a peer's, on the passive side.
type request struct {
	provider *Provider
	tcp      *net.TCPConn
	frame    mpaFrame
}

// RemoteAddr implements rdma.Request.
func (r *request) RemoteAddr() netip.AddrPort { return addrPort(r.tcp.RemoteAddr()) }

// PrivateData implements rdma.Request.
func (r *request) PrivateData() []byte { return r.frame.private }

// reply begins the answer: in the request's revision, but not above ours.
func (r *request) reply() mpaFrame {
	q := &r.frame
	f := mpaFrame{reply: true, markers: r.provider.Faults.Markers, crc: q.crc || !r.provider.NoCRC, revision: min(q.revision, 2)}
	if r.provider.Revision == 1 {
		f.revision = 1
	}
	f.enhanced = q.enhanced && f.revision > 1
	return f
}

// Reject implements rdma.Request.
func (r *request) Reject(privateData []byte) error {
	defer r.tcp.Close()
	f := r.reply()
	f.reject, f.private = true, privateData[:min(len(privateData), rdma.MaxPrivateData)]
	_ = r.tcp.SetDeadline(time.Now().Add(r.provider.timeout())) // fails only on a closed connection
	if _, err := r.tcp.Write(f.append(nil)); err != nil {
		return fmt.Errorf("MPA reply: %w", cause(err))
	}
	return nil
}

// Accept implements rdma.Request (RFC 5044 §7.1.2, RFC 6581 §7).
func (r *request) Accept(opts rdma.Options) (rdma.Conn, error) {
	c, err := r.accept(&opts)
	if err != nil {
		r.tcp.Close()
		return nil, err
	}
	return c, nil
}

func (r *request) accept(opts *rdma.Options) (*conn, error) {
	if err := opts.Check(); err != nil {
		return nil, err
	}
	f := r.reply()
	f.private = opts.PrivateData
	s := setup{crc: f.crc, passive: true, faults: r.provider.Faults}
	if f.enhanced && r.frame.peerToPeer {
		switch {
		case r.frame.rtr&RTRWrite != 0:
			s.rtrAwaited = RTRWrite
		case r.frame.rtr&RTRRead != 0:
			s.rtrAwaited = RTRRead
		default:
			return nil, errors.Join(errors.New("the peer offers no RTR message that is supported"), r.Reject(nil))
		}
		f.peerToPeer, f.rtr = true, s.rtrAwaited
	}
	c, err := r.provider.establish(r.tcp, opts, r.peer(f), s)
	if err != nil {
		return nil, err
	}
	f.ird, f.ord = uint16(c.info.InboundReads), uint16(c.info.OutboundReads)
	_ = r.tcp.SetDeadline(time.Now().Add(r.provider.timeout())) // fails only on a closed connection
	if _, err := r.tcp.Write(f.append(nil)); err != nil {
		return nil, fmt.Errorf("MPA reply: %w", cause(err))
	}
	return c, nil
}

// peer is the request as it counts after what the reply will say.
func (r *request) peer(reply mpaFrame) mpaFrame {
	f := r.frame
	f.revision, f.enhanced = reply.revision, reply.enhanced
	return f
}
