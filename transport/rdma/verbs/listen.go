//go:build linux && cgo && rdma

package verbs

// #include "shim.h"
import "C"

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"iscsictl/transport/rdma"
)

const (
	// backlog is how many peers may wait to be accepted.
	backlog = 128
	// establishTime is how long a peer may take to confirm.
	establishTime = 10 * time.Second
)

type listener struct {
	h      *handle
	addr   netip.AddrPort
	closed atomic.Bool
	mu     sync.Mutex // of Accept, which uses the handle
	once   sync.Once
}

// Listen implements rdma.Provider.
func (Provider) Listen(_ context.Context, addr netip.AddrPort) (rdma.Listener, error) {
	if err := Probe(); err != nil {
		return nil, err
	}
	h, err := open()
	if err != nil {
		return nil, err
	}
	at := toC(addr)
	if err := errno(C.vb_listen(h.c, &at, backlog)); err != nil {
		h.destroy()
		return nil, fmt.Errorf("verbs: listen at %v: %w", addr, err)
	}
	var local, remote C.struct_vb_addr
	C.vb_addresses(h.c, &local, &remote)
	return &listener{h: h, addr: fromC(&local)}, nil
}

// Addr implements rdma.Listener.
func (l *listener) Addr() netip.AddrPort { return l.addr }

// Accept implements rdma.Listener.
func (l *listener) Accept() (rdma.Request, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed.Load() {
		e, err := l.h.next()
		switch {
		case l.closed.Load():
			if err == nil && e.request != nil {
				(&handle{c: e.request}).destroy()
			}
			return nil, rdma.ErrClosed
		case err != nil:
			return nil, fmt.Errorf("verbs: wait for a connection: %w", err)
		case e._type == C.VB_DEVICE_REMOVAL:
			return nil, fmt.Errorf("verbs: listen at %v: the RDMA device was removed", l.addr)
		case e._type != C.VB_CONNECT_REQUEST:
			continue
		}
		r := &request{
			h: &handle{c: e.request}, data: eventData(e),
			responder: int(e.responder_resources), initiator: int(e.initiator_depth),
		}
		if r.h.watch() == nil { // else it was dropped, for want of a descriptor
			var local, remote C.struct_vb_addr
			C.vb_addresses(r.h.c, &local, &remote)
			r.remote = fromC(&remote)
			return r, nil
		}
	}
	return nil, rdma.ErrClosed
}

// Close implements rdma.Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.closed.Store(true)
		l.h.events.wake()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.h.destroy()
	})
	return nil
}

// request is a peer's wish to connect.
type request struct {
	h                    *handle
	remote               netip.AddrPort
	data                 []byte
	responder, initiator int // the peer's depths, from our point of view
}

// RemoteAddr implements rdma.Request.
func (r *request) RemoteAddr() netip.AddrPort { return r.remote }

// PrivateData implements rdma.Request.
func (r *request) PrivateData() []byte { return r.data }

// Accept implements rdma.Request.
func (r *request) Accept(opts rdma.Options) (rdma.Conn, error) {
	c, err := r.accept(opts)
	if err != nil {
		r.h.destroy()
		return nil, fmt.Errorf("verbs: accept %v: %w", r.remote, err)
	}
	return c, nil
}

func (r *request) accept(opts rdma.Options) (*conn, error) {
	if err := opts.Check(); err != nil {
		return nil, err
	}
	c, err := newConn(r.h, opts)
	if err != nil {
		return nil, err
	}
	c.held = true
	responder := min(opts.InboundReads, r.responder, int(c.device.max_responder))
	initiator := min(opts.OutboundReads, r.initiator, int(c.device.max_initiator))
	data, n := bytesToC(opts.PrivateData)
	if err := errno(C.vb_accept(r.h.c, data, n, C.uint8_t(responder), C.uint8_t(initiator))); err != nil {
		c.abandon()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), establishTime)
	defer cancel()
	e, err := r.h.expect(ctx, C.VB_ESTABLISHED)
	if err != nil {
		c.abandon()
		return nil, err
	}
	c.established(e, responder, initiator)
	c.info.PrivateData = r.data
	return c, nil
}

// Reject implements rdma.Request.
func (r *request) Reject(privateData []byte) error {
	data, n := bytesToC(privateData)
	err := errno(C.vb_reject(r.h.c, data, n))
	r.h.destroy()
	if err != nil {
		return fmt.Errorf("verbs: reject %v: %w", r.remote, err)
	}
	return nil
}
