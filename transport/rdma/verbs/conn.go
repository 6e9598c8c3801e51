//go:build linux && cgo && rdma

package verbs

// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
	"iscsictl/wait"
)

// conn is an established connection. It implements rdma.Conn.
type conn struct {
	h           *handle
	opts        rdma.Options
	info        rdma.Info
	device      C.struct_vb_device
	memory      C.struct_vb_memory
	completions *channel
	handlers    rdma.Handlers

	// Memory of the shim's, shared with it as the numbers below say.
	sends    []C.struct_vb_send
	receives []C.uint32_t
	done     []C.struct_vb_done
	taken    int // completions in done
	spin     func() time.Duration

	mu      sync.Mutex
	idle    sync.Cond // signalled when posting becomes false
	posting bool      // someone is in vb_post

	// Requests are numbered as they are posted; their numbers modulo the depth
	// are their places. head <= posted <= tail.
	items      []item
	tail       uint64 // next to be posted by the user
	posted     uint64 // next to be given to the device
	head       uint64 // next to be done
	completed  uint64 // all before it have completed, but for RDMA Reads
	unsignaled int    // requests since the last one that asks for its completion

	// Receive slots given back, likewise; arrived counts those that were used.
	receiveTail, receivePosted, arrived uint64

	held    bool // nothing may be sent before something has come
	regions *regions

	wanted  wait.Thread   // which the connection is to be lent to
	lent    *bundle       // what the thread that has it waits for, or nil
	back    chan struct{} // the thread has given it back
	lentErr error         // why it could give nothing more; the thread's until then

	started  bool
	ended    bool          // nothing is posted or delivered any more
	ending   chan struct{} // closed then
	cause    error         // of the end, once it is known
	attended chan struct{} // closed when attend has ended
	over     chan struct{} // closed when Close before Start has ended it all
}

// item is what is remembered of a request.
type item struct {
	id     uint64
	region int32 // of its data, or none
	read   bool  // an RDMA Read that has not completed
}

// newConn makes the queues of a connection whose device is known by now, and
// posts its receives. On an error, what it has made goes with the handle.
func newConn(h *handle, opts rdma.Options) (*conn, error) {
	c := &conn{h: h, opts: opts, items: make([]item, opts.SendDepth)}
	c.ending, c.attended, c.over = make(chan struct{}), make(chan struct{}), make(chan struct{})
	c.back = make(chan struct{}, 1)
	c.idle.L = &c.mu
	C.vb_describe(h.c, &c.device)
	if err := c.fits(); err != nil {
		return nil, err
	}
	shape := C.struct_vb_shape{
		sends: C.uint32_t(opts.SendDepth), receives: C.uint32_t(opts.Receives),
		send_slots: C.uint32_t(opts.SendSlots), send_size: C.uint32_t(opts.SendSlotSize), receive_size: C.uint32_t(opts.ReceiveSize),
	}
	if err := errno(C.vb_setup(h.c, &shape, &c.memory)); err != nil {
		slots := opts.Receives*opts.ReceiveSize + opts.SendSlots*opts.SendSlotSize
		return nil, fmt.Errorf("make the queues on %s: %w", c.deviceName(), locked(err, slots+c.arenaSize()))
	}
	c.sends = unsafe.Slice(c.memory.sends, opts.SendDepth)
	c.receives = unsafe.Slice(c.memory.receives, opts.Receives)
	c.done = unsafe.Slice(c.memory.done, C.VB_BATCH)
	c.regions = newRegions(c, c.arenaSize(), opts.Regions)
	var err error
	if c.completions, err = newChannel(int(c.memory.completion_fd), "completions", c.drain); err != nil {
		return nil, fmt.Errorf("watch for completions: %w", err)
	}
	for i := range opts.Receives {
		c.receives[i] = C.uint32_t(i)
	}
	c.receiveTail = uint64(opts.Receives)
	c.receivePosted = c.receiveTail
	if err := errno(C.vb_post(h.c, 0, C.uint32_t(opts.Receives), 0, 0)); err != nil {
		c.abandon()
		return nil, fmt.Errorf("post receives: %w", err)
	}
	return c, nil
}

// fits says what of the options the device cannot do.
func (c *conn) fits() error {
	requests := max(c.opts.SendDepth, c.opts.Receives)
	if limit := int(c.device.max_requests); limit > 0 && requests > limit {
		return fmt.Errorf("%s takes %d requests at a time, and %d are needed", c.deviceName(), limit, requests)
	}
	if limit := int(c.device.max_completions); limit > 0 && c.opts.SendDepth+c.opts.Receives > limit {
		return fmt.Errorf("%s keeps %d completions, and %d are needed", c.deviceName(), limit, c.opts.SendDepth+c.opts.Receives)
	}
	return nil
}

func (c *conn) arenaSize() int {
	if c.opts.Arena == nil {
		return 0
	}
	return c.opts.Arena.Size()
}

func (c *conn) deviceName() string { return C.GoString(&c.device.name[0]) }

// abandon takes back what newConn made and the handle does not know of.
func (c *conn) abandon() { c.completions.close() }

// established fills in what is known only now: the depths among it, as they are
// for this side.
func (c *conn) established(e *event, responder, initiator int) {
	var local, remote C.struct_vb_addr
	C.vb_addresses(c.h.c, &local, &remote)
	var gid [16]byte
	for i := range gid {
		gid[i] = byte(c.device.gid[i])
	}
	c.info = rdma.Info{
		Local: fromC(&local), Remote: fromC(&remote),
		PrivateData: eventData(e), Provider: name, Device: c.deviceName(), Detail: c.detail(),
		SendDepth: c.opts.SendDepth, Receives: c.opts.Receives,
		InboundReads: responder, OutboundReads: initiator,
	}
	if a := netip.AddrFrom16(gid); !a.IsUnspecified() {
		c.info.GID = a.String()
	}
	watchDevice(c)
}

func (c *conn) detail() string {
	s := "InfiniBand"
	switch {
	case c.device.iwarp != 0:
		s = "iWARP"
	case c.device.ethernet != 0:
		s = "RoCE"
	}
	if c.device.iwarp == 0 && c.device.mtu > 0 {
		s += fmt.Sprintf(", MTU %d", c.device.mtu)
	}
	if c.opts.PCP >= 0 {
		s += ", PCP not set (the device takes it from the DSCP)"
	}
	return s
}

// Info implements rdma.Conn.
func (c *conn) Info() rdma.Info { return c.info }

// SendSlot implements rdma.Conn.
func (c *conn) SendSlot(i int) []byte {
	p := c.slot(c.memory.send_slots, c.memory.send_stride, i, c.opts.SendSlots)
	return unsafe.Slice(p, c.opts.SendSlotSize)
}

func (c *conn) receiveSlot(i int) []byte {
	p := c.slot(c.memory.receive_slots, c.memory.receive_stride, i, c.opts.Receives)
	return unsafe.Slice(p, c.opts.ReceiveSize)
}

func (c *conn) slot(base *C.uint8_t, stride C.uint32_t, i, n int) *byte {
	if i < 0 || i >= n {
		panic(fmt.Sprintf("verbs: slot %d of %d", i, n))
	}
	return (*byte)(unsafe.Add(unsafe.Pointer(base), i*int(stride)))
}

// Post implements rdma.Conn.
func (c *conn) Post(w rdma.WorkRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil
	}
	if c.tail-c.head == uint64(len(c.items)) {
		return rdma.ErrFull
	}
	send := w.Op == rdma.OpSend || w.Op == rdma.OpSendInvalidate
	if w.Op > rdma.OpRead || !send && w.Head != 0 || w.Head < 0 || w.Head > c.opts.SendSlotSize ||
		w.Head > 0 && (w.Slot < 0 || w.Slot >= c.opts.SendSlots) {
		return fmt.Errorf("verbs: a request %d of %d bytes of slot %d", w.Op, w.Head, w.Slot)
	}
	place := c.tail % uint64(len(c.items))
	s := &c.sends[place]
	*s = C.struct_vb_send{op: opcodes[w.Op], rkey: C.uint32_t(w.Remote.Key), remote: C.uint64_t(w.Remote.Addr)}
	if w.Head > 0 {
		slot := c.slot(c.memory.send_slots, c.memory.send_stride, w.Slot, c.opts.SendSlots)
		s.addr[0], s.len[0], s.lkey[0] = C.uint64_t(uintptr(unsafe.Pointer(slot))), C.uint32_t(w.Head), c.memory.lkey
	}
	it := item{id: w.ID, region: none, read: w.Op == rdma.OpRead}
	if n := w.Data.Len(); n > 0 {
		// The sink of an RDMA Read is the peer's to write to on iWARP.
		addr, lkey, region, err := c.regions.local(w.Data, w.Op == rdma.OpRead && c.device.iwarp != 0)
		if err != nil {
			return err
		}
		s.addr[1], s.len[1], s.lkey[1] = C.uint64_t(addr), C.uint32_t(n), C.uint32_t(lkey)
		it.region = region
	}
	c.items[place] = it
	c.tail++
	// Without a completion now and then, the queue would stay full.
	if c.unsignaled++; w.Signal || it.read || c.unsignaled >= (len(c.items)+1)/2 {
		s.signal, c.unsignaled = 1, 0
	}
	return nil
}

var opcodes = [...]C.uint8_t{
	rdma.OpSend: C.VB_SEND, rdma.OpSendInvalidate: C.VB_SEND_INVALIDATE, rdma.OpWrite: C.VB_WRITE, rdma.OpRead: C.VB_READ,
}

// Repost implements rdma.Conn.
func (c *conn) Repost(slot int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	if slot < 0 || slot >= c.opts.Receives || c.receiveTail-c.arrived == uint64(c.opts.Receives) {
		panic(fmt.Sprintf("verbs: receive slot %d of %d is given back that was not used", slot, c.opts.Receives))
	}
	c.receives[c.receiveTail%uint64(c.opts.Receives)] = C.uint32_t(slot)
	c.receiveTail++
}

// Grant implements rdma.Conn.
func (c *conn) Grant(_ uint64, e arena.Extent, a rdma.Access) (rdma.Region, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return rdma.Region{}, rdma.ErrClosed
	}
	return c.regions.grant(e, a)
}

// Revoke implements rdma.Conn. The device lets the peer reach the block until
// the connection ends, but nothing of ours refers to it.
func (c *conn) Revoke(r rdma.Region) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.regions.revoke(r)
	}
	return true
}

// register implements registrar.
func (c *conn) register(addr uintptr, n int, access rdma.Access) (g registration, err error) {
	flags := C.int(0)
	if access&rdma.RemoteRead != 0 {
		flags |= C.VB_REMOTE_READ
	}
	if access&rdma.RemoteWrite != 0 {
		flags |= C.VB_REMOTE_WRITE
	}
	if access != rdma.RemoteRead {
		flags |= C.VB_LOCAL_WRITE
	}
	var handle C.uintptr_t
	var lkey, rkey C.uint32_t
	if err := errno(C.vb_register(c.h.c, C.uintptr_t(addr), C.uint64_t(n), flags, &handle, &lkey, &rkey)); err != nil {
		return g, locked(err, c.regions.bytesMax)
	}
	return registration{handle: uintptr(handle), lkey: uint32(lkey), rkey: uint32(rkey)}, nil
}

// deregister implements registrar.
func (c *conn) deregister(g registration) error {
	return errno(C.vb_deregister(C.uintptr_t(g.handle)))
}

// Flush implements rdma.Conn. Who finds someone posting leaves the work to them.
func (c *conn) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.posting {
		return
	}
	for !c.ended {
		receive, receives := c.receivePosted, c.receiveTail-c.receivePosted
		send, sends := c.posted, c.tail-c.posted
		if c.held {
			sends = 0
		}
		if receives == 0 && sends == 0 {
			return
		}
		c.posting = true
		c.mu.Unlock()
		err := errno(C.vb_post(c.h.c, C.uint32_t(receive%uint64(c.opts.Receives)), C.uint32_t(receives), C.uint64_t(send), C.uint32_t(sends)))
		c.mu.Lock()
		c.posting = false
		c.receivePosted += receives
		c.posted += sends
		if c.ended {
			c.idle.Broadcast()
		} else if err != nil && !(errors.Is(err, syscall.EINVAL) && c.cause != nil) {
			c.endLocked(fmt.Errorf("verbs: post: %w", err))
		}
	}
}
