//go:build linux && cgo && rdma

package verbs

/*
#cgo CFLAGS: -O2 -Wall
#cgo LDFLAGS: -ldl
#cgo noescape vb_post
#cgo nocallback vb_post
#cgo noescape vb_poll
#cgo nocallback vb_poll
#cgo noescape vb_drain
#cgo nocallback vb_drain
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"iscsictl/transport/rdma"
)

// Built reports whether RDMA devices are in this program.
const Built = true

// resolveTime bounds each of the two steps that find the way to an address.
const resolveTime = 5 * time.Second

// Probe says why no connection can be made on this host, or returns nil.
func Probe() error {
	if err := load(); err != nil {
		return err
	}
	return nodes()
}

// Dial implements rdma.Provider.
func (p Provider) Dial(ctx context.Context, addr, local netip.AddrPort, opts rdma.Options) (rdma.Conn, error) {
	if err := opts.Check(); err != nil {
		return nil, err
	}
	if err := Probe(); err != nil {
		return nil, err
	}
	h, err := open()
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, h, addr, local, opts)
	switch {
	case err == nil:
		c.spin = p.Spin
		return c, nil
	case ctx.Err() != nil:
		// A connection manager may go on for as long as an attempt lasts (siw:
		// 10 s). Nothing of the user's is registered yet.
		go h.destroy()
	default:
		h.destroy()
	}
	return nil, fmt.Errorf("verbs: connect to %v: %w", addr, err)
}

func dial(ctx context.Context, h *handle, addr, local netip.AddrPort, opts rdma.Options) (*conn, error) {
	if opts.DSCP >= 0 {
		if err := errno(C.vb_set_tos(h.c, C.uint8_t(opts.DSCP<<2))); err != nil {
			return nil, fmt.Errorf("set dscp: %w", err)
		}
	}
	from, to := toC(local), toC(addr)
	ms := C.int(resolveTime.Milliseconds())
	if err := errno(C.vb_resolve_addr(h.c, &from, &to, ms)); err != nil {
		return nil, resolving(err, addr, local)
	}
	if _, err := h.expect(ctx, C.VB_ADDR_RESOLVED); err != nil {
		return nil, resolving(err, addr, local)
	}
	if err := errno(C.vb_resolve_route(h.c, ms)); err != nil {
		return nil, fmt.Errorf("resolve the route: %w", err)
	}
	if _, err := h.expect(ctx, C.VB_ROUTE_RESOLVED); err != nil {
		return nil, fmt.Errorf("resolve the route: %w", err)
	}
	c, err := newConn(h, opts)
	if err != nil {
		return nil, err
	}
	responder, initiator := min(opts.InboundReads, int(c.device.max_responder)), min(opts.OutboundReads, int(c.device.max_initiator))
	data, n := bytesToC(opts.PrivateData)
	if err := errno(C.vb_connect(h.c, data, n, C.uint8_t(responder), C.uint8_t(initiator))); err != nil {
		c.abandon()
		if len(opts.PrivateData) > requestData && c.device.iwarp == 0 {
			return nil, fmt.Errorf("%d bytes of private data, over the %d that a request has place for on InfiniBand and RoCE: %w", len(opts.PrivateData), requestData, err)
		}
		return nil, err
	}
	e, err := h.expect(ctx, C.VB_ESTABLISHED)
	if err != nil {
		c.abandon()
		return nil, err
	}
	// Drivers of iWARP do not agree on which of the event's depths is whose.
	if c.device.iwarp == 0 {
		responder, initiator = min(responder, int(e.responder_resources)), min(initiator, int(e.initiator_depth))
	}
	c.established(e, responder, initiator)
	return c, nil
}

// requestData is what is left of the private data of a request (InfiniBand
// Architecture Specification, annex A11: RDMA IP CM Service), in bytes.
const requestData = 56

// resolving explains why there is no way to an address by RDMA.
func resolving(err error, addr, local netip.AddrPort) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if _, why := DeviceFor(addr.Addr(), local.Addr()); why != nil {
		return fmt.Errorf("%w (%w)", why, err)
	}
	return fmt.Errorf("resolve the address: %w", err)
}

func bytesToC(p []byte) (*C.uint8_t, C.uint8_t) {
	if len(p) == 0 {
		return nil, 0
	}
	return (*C.uint8_t)(&p[0]), C.uint8_t(len(p))
}
