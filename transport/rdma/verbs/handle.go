//go:build linux && cgo && rdma

package verbs

// #include "shim.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"iscsictl/transport/rdma"
)

// load opens the libraries, the first time that it is called.
var load = sync.OnceValue(func() error {
	var why [256]byte
	if C.vb_load((*C.char)(unsafe.Pointer(&why[0])), C.uint(len(why))) != 0 {
		return fmt.Errorf("verbs: the RDMA libraries cannot be used: %s; install librdmacm, libibverbs and its providers (Debian: librdmacm1 and ibverbs-providers; Fedora: librdmacm and libibverbs)",
			unix.ByteSliceToString(why[:]))
	}
	raiseMemlock()
	return nil
})

// errno turns what the shim returns into an error.
func errno(rc C.int) error {
	if rc >= 0 {
		return nil
	}
	return syscall.Errno(-rc)
}

// handle is a connection identifier of librdmacm with its event channel, and
// what else the shim hangs on to it.
type handle struct {
	c      *C.struct_vb_conn
	events *channel
	event  event // the last one
}

func open() (*handle, error) {
	h := &handle{}
	if err := errno(C.vb_open(&h.c)); err != nil {
		return nil, fmt.Errorf("verbs: make a connection identifier: %w", err)
	}
	return h, h.watch()
}

// watch makes the event channel of a handle that has none yet.
func (h *handle) watch() (err error) {
	if h.events, err = newChannel(int(C.vb_event_fd(h.c)), "rdma_cm", h.take); err != nil {
		h.destroy()
		return fmt.Errorf("verbs: watch for events: %w", err)
	}
	return nil
}

// destroy gives all up; nobody may be using any of it any more.
func (h *handle) destroy() {
	if h.events != nil {
		h.events.close()
	}
	C.vb_destroy_queues(h.c)
	C.vb_destroy(h.c)
	C.vb_free(h.c)
}

// event is a copy of librdmacm's.
type event = C.struct_vb_event

func eventData(e *event) []byte {
	return C.GoBytes(unsafe.Pointer(&e.private_data[0]), C.int(e.private_len))
}

// take looks for an event.
func (h *handle) take() (bool, error) {
	switch err := errno(C.vb_next_event(h.c, &h.event)); err {
	case nil:
		return true, nil
	case unix.EAGAIN, unix.EINTR:
		return false, nil
	default:
		return false, err
	}
}

// next waits for the next event, which is valid until the next call.
func (h *handle) next() (*event, error) {
	if err := h.events.wait(); err != nil {
		return nil, err
	}
	return &h.event, nil
}

// expect waits for an event of a kind. Any other is the end of an attempt.
func (h *handle) expect(ctx context.Context, kind C.uint32_t) (*event, error) {
	stop := context.AfterFunc(ctx, h.events.wake)
	defer stop()
	for {
		e, err := h.next()
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, fmt.Errorf("wait for an event: %w", err)
		case e._type == kind:
			return e, nil
		}
		if err := failure(e); err != nil {
			return nil, err
		}
	}
}

// failure says what an event tells of an attempt that has failed, or of a
// connection that has ended; nil where it is nothing of the kind.
func failure(e *event) error {
	what := ""
	switch e._type {
	case C.VB_REJECTED:
		return &rdma.RejectedError{Reason: rejection(int(e.status)), PrivateData: eventData(e)}
	case C.VB_DISCONNECTED, C.VB_TIMEWAIT_EXIT:
		return rdma.ErrDisconnected
	case C.VB_ADDR_ERROR:
		what = "the address does not resolve"
	case C.VB_ROUTE_ERROR:
		what = "the route does not resolve"
	case C.VB_CONNECT_ERROR:
		what = "the connection failed"
	case C.VB_UNREACHABLE:
		what = "the peer does not answer"
	case C.VB_DEVICE_REMOVAL:
		what = "the RDMA device was removed"
	case C.VB_ADDR_CHANGE:
		what = "the address has moved to another RDMA device"
	default:
		return nil
	}
	if e.status < 0 {
		return fmt.Errorf("%s: %w", what, syscall.Errno(-e.status))
	}
	return errors.New(what)
}

// channel is a file descriptor of one of the libraries in the network poller.
type channel struct {
	file  *os.File // a duplicate, so that both can be closed
	raw   syscall.RawConn
	ready func(uintptr) bool
	err   error // of ready
}

// newChannel watches a descriptor that does not block. take looks whether there
// is something: it must find whatever has made the descriptor readable.
func newChannel(fd int, name string, take func() (bool, error)) (*channel, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ch := &channel{file: os.NewFile(uintptr(dup), name)}
	ch.ready = func(uintptr) (some bool) {
		some, ch.err = take()
		return some || ch.err != nil
	}
	if ch.raw, err = ch.file.SyscallConn(); err == nil {
		err = ch.file.SetReadDeadline(time.Time{}) // fails where the poller does not have it
	}
	if err != nil {
		ch.file.Close()
		return nil, err
	}
	return ch, nil
}

// wait calls take until there is something, and between two calls it waits
// until the descriptor is readable.
func (ch *channel) wait() error {
	ch.err = nil
	if err := ch.raw.Read(ch.ready); err != nil {
		return err
	}
	return ch.err
}

// wake ends a wait, and all further ones until until is called.
func (ch *channel) wake() { _ = ch.file.SetReadDeadline(time.Unix(1, 0)) }

// until lets waits go on until a time.
func (ch *channel) until(t time.Time) { _ = ch.file.SetReadDeadline(t) }

func (ch *channel) close() { _ = ch.file.Close() }

func toC(a netip.AddrPort) (c C.struct_vb_addr) {
	ip := a.Addr().Unmap()
	if !ip.IsValid() {
		return c
	}
	c.port = C.uint16_t(a.Port())
	c.family = 4
	if ip.Is6() {
		c.family = 6
		if link, err := net.InterfaceByName(ip.Zone()); err == nil {
			c.scope = C.uint32_t(link.Index)
		} else if n, err := strconv.Atoi(ip.Zone()); err == nil {
			c.scope = C.uint32_t(n)
		}
	}
	for i, b := range ip.AsSlice() {
		c.ip[i] = C.uint8_t(b)
	}
	return c
}

func fromC(c *C.struct_vb_addr) netip.AddrPort {
	var ip [16]byte
	for i := range ip {
		ip[i] = byte(c.ip[i])
	}
	switch c.family {
	case 4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[:4])), uint16(c.port))
	case 6:
		a := netip.AddrFrom16(ip)
		if c.scope != 0 {
			zone := strconv.Itoa(int(c.scope))
			if link, err := net.InterfaceByIndex(int(c.scope)); err == nil {
				zone = link.Name
			}
			a = a.WithZone(zone)
		}
		return netip.AddrPortFrom(a, uint16(c.port))
	}
	return netip.AddrPort{}
}
