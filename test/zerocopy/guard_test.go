package zerocopy

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/transport/rdma"
)

// guard is a provider whose connections are watched.
type guard struct {
	rdma.Provider

	mu        sync.Mutex
	protect   bool                      // take access to reads away
	lent      []arena.Extent            // what was lent or sent, in order
	granted   []arena.Extent            // for the command that is being made
	reads     map[uint32][]arena.Extent // by initiator task tag: protected until the response
	protected int                       // how many extents were
	ended     []error                   // why connections have ended
}

// Dial implements rdma.Provider.
func (g *guard) Dial(ctx context.Context, addr, local netip.AddrPort, opts rdma.Options) (rdma.Conn, error) {
	c, err := g.Provider.Dial(ctx, addr, local, opts)
	if err != nil {
		return nil, err
	}
	return &guardConn{Conn: c, g: g}, nil
}

// watch begins to note what is lent, and forgets what was.
func (g *guard) watch(protect bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.protect, g.lent, g.protected, g.reads = protect, nil, 0, map[uint32][]arena.Extent{}
}

type guardConn struct {
	rdma.Conn
	g *guard
}

// Start implements rdma.Conn.
func (c *guardConn) Start(h rdma.Handler) { c.Conn.Start(&guardHandler{h, c.g}) }

// Handover implements rdma.Conn.
func (c *guardConn) Handover(h rdma.Handler) { c.Conn.Handover(&guardHandler{h, c.g}) }

// Grant implements rdma.Conn.
func (c *guardConn) Grant(id uint64, e arena.Extent, a rdma.Access) (rdma.Region, error) {
	c.g.mu.Lock()
	c.g.lent = append(c.g.lent, e)
	if c.g.protect && a == rdma.RemoteWrite {
		setAccess(e, unix.PROT_NONE)
		c.g.granted = append(c.g.granted, e)
		c.g.protected++
	}
	c.g.mu.Unlock()
	return c.Conn.Grant(id, e, a)
}

// Post implements rdma.Conn. The command that a region was granted for follows
// upon the grant.
func (c *guardConn) Post(w rdma.WorkRequest) error {
	c.g.mu.Lock()
	if w.Data.Len() > 0 {
		c.g.lent = append(c.g.lent, w.Data)
	}
	if len(c.g.granted) > 0 {
		c.g.reads[tag(c.SendSlot(w.Slot))] = c.g.granted
		c.g.granted = nil
	}
	c.g.mu.Unlock()
	return c.Conn.Post(w)
}

// tag is the initiator task tag of a PDU behind its iSER header.
func tag(message []byte) uint32 {
	return binary.BigEndian.Uint32(message[iscsi.ISERHeaderLen+16:])
}

type guardHandler struct {
	rdma.Handler
	g *guard
}

// Received implements rdma.Handler: with the response, the data are there.
func (h *guardHandler) Received(slot int, data []byte, invalidated rdma.Key) error {
	if len(data) >= iscsi.ISERHeaderLen+iscsi.BHSLen && iscsi.Opcode(data[iscsi.ISERHeaderLen]&0x3f) == iscsi.OpSCSIResponse {
		h.g.mu.Lock()
		for _, e := range h.g.reads[tag(data)] {
			setAccess(e, unix.PROT_READ|unix.PROT_WRITE)
		}
		delete(h.g.reads, tag(data))
		h.g.mu.Unlock()
	}
	return h.Handler.Received(slot, data, invalidated)
}

// Closed implements rdma.Handler.
func (h *guardHandler) Closed(err error) {
	h.g.mu.Lock()
	h.g.ended = append(h.g.ended, err)
	for _, list := range h.g.reads {
		for _, e := range list {
			setAccess(e, unix.PROT_READ|unix.PROT_WRITE)
		}
	}
	h.g.reads = map[uint32][]arena.Extent{}
	h.g.mu.Unlock()
	h.Handler.Closed(err)
}

// setAccess sets the access to the pages of an extent, which are its own.
func setAccess(e arena.Extent, access int) {
	if err := unix.Mprotect(e.Bytes(), access); err != nil {
		panic(err) // the range is one of an arena
	}
}
