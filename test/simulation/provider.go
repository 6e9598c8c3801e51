package simulation

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/transport/rdma"
)

// provider is RDMA between the initiator and the target model.
type provider struct{ w *world }

func (provider) Name() string           { return "simulated" }
func (provider) RemoteInvalidate() bool { return true }
func (provider) Listen(context.Context, netip.AddrPort) (rdma.Listener, error) {
	return nil, errors.New("the simulation does not listen")
}

func (p provider) Dial(_ context.Context, _, _ netip.AddrPort, o rdma.Options) (rdma.Conn, error) {
	w := p.w
	if !w.well && (w.vanished || w.rng.IntN(8) == 0) {
		return nil, errCut
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	c := &card{w: w, p: w.target.newTerms(true), o: o, slots: make([][]byte, o.SendSlots), free: make([]int, 0, o.Receives)}
	for i := range o.Receives {
		c.free = append(c.free, i)
	}
	return c, nil
}

// grant is memory that the target may reach.
type grant struct {
	id     uint64
	key    rdma.Key
	memory arena.Extent
	access rdma.Access
	going  bool // Revoke was called; Revoked is still to come
}

// base is added to addresses, so that one that is made of nothing is noticed.
const base = 1 << 20

// card is an RDMA connection, both ends of it.
type card struct {
	w       *world
	p       terms
	o       rdma.Options
	n       *nexus // nil in the login phase
	handler rdma.Handler
	slots   [][]byte
	free    []int // receive slots
	grants  []grant
	keys    rdma.Key
	sends   []rdma.WorkRequest // posted, in order
	sent    []rdma.WorkRequest // not yet done
	there   [][]byte           // messages on the way to the target
	here    []message          // on the way to the initiator
	broken  bool
	shut    bool
	cause   error
	flushes bool
}

type message struct {
	bytes      []byte
	invalidate rdma.Key
}

func (c *card) Info() rdma.Info {
	return rdma.Info{
		PrivateData: []byte{0x80, 0, 0, 0}, Provider: "simulated", SendDepth: c.o.SendDepth, Receives: c.o.Receives,
		InboundReads: c.o.InboundReads, OutboundReads: c.o.OutboundReads, Revokes: true,
	}
}

func (c *card) SendSlot(i int) []byte {
	if c.slots[i] == nil { // most are never used
		c.slots[i] = make([]byte, c.o.SendSlotSize)
	}
	return c.slots[i]
}

func (c *card) Start(h rdma.Handler)    { c.handler = h }
func (c *card) Handover(h rdma.Handler) { c.handler, c.n = h, c.w.target.n; c.n.wire, c.w.link = c, c }

func (c *card) Post(r rdma.WorkRequest) error {
	if len(c.sends)+len(c.sent) == c.o.SendDepth {
		return rdma.ErrFull
	}
	c.sends = append(c.sends, r)
	return nil
}

func (c *card) Repost(slot int) { c.free = append(c.free, slot) }

func (c *card) Grant(id uint64, e arena.Extent, a rdma.Access) (rdma.Region, error) {
	if len(c.grants) == c.o.Regions {
		return rdma.Region{}, rdma.ErrFull
	}
	c.keys += 3
	c.grants = append(c.grants, grant{id: id, key: c.keys, memory: e, access: a})
	return rdma.Region{Key: c.keys, Addr: base + uint64(c.keys)<<16}, nil
}

func (c *card) Revoke(r rdma.Region) bool {
	for i, g := range c.grants {
		if g.key != r.Key {
			continue
		}
		if !c.shut && c.w.rng.IntN(4) == 0 {
			c.grants[i].going = true
			return false
		}
		c.grants = append(c.grants[:i], c.grants[i+1:]...)
		return true
	}
	c.w.violation("key %d is revoked, which is not granted", r.Key)
	return true
}

// Flush answers login requests at once; later, play takes what was posted.
func (c *card) Flush() {
	if c.n != nil || c.flushes || c.handler == nil {
		return
	}
	c.flushes = true
	defer func() { c.flushes = false }()
	for len(c.sends) > 0 {
		r := c.sends[0]
		c.sends = c.sends[1:]
		if r.Op != rdma.OpSend {
			continue
		}
		if !c.w.well && c.w.rng.IntN(40) == 0 {
			c.handler.Closed(errCut)
			return
		}
		m := c.slots[r.Slot][:r.Head]
		h := iscsi.BHS(m[iscsi.ISERHeaderLen:])
		answer, text, up := c.w.target.login(&c.p, &h, m[iscsi.ISERHeaderLen+iscsi.BHSLen:][:h.DataSegmentLength()])
		if up {
			c.w.target.n.p = c.p
		}
		if !c.w.well && c.w.rng.IntN(40) == 0 {
			c.handler.Closed(errCut)
			return
		}
		c.receive(message{bytes: pack(&answer, text)})
	}
}

func pack(h *iscsi.BHS, data []byte) []byte {
	var r [iscsi.ISERHeaderLen]byte
	(&iscsi.ISERHeader{}).Encode(&r)
	b := append(append(r[:], h[:]...), data...)
	return append(b, make([]byte, iscsi.Pad(len(data)))...)
}

// receive hands a message to the initiator.
func (c *card) receive(m message) {
	slot := c.free[0]
	c.free = c.free[1:]
	c.handler.Enter()
	err := c.handler.Received(slot, m.bytes, m.invalidate)
	c.handler.Leave()
	if err != nil {
		c.Close(err)
	}
}

func (c *card) Close(err error) {
	if !c.shut {
		c.shut, c.cause = true, err
	}
}

func (c *card) closed() bool   { return c.shut }
func (c *card) drop(err error) { c.Close(err) }
func (c *card) end()           { c.grants, c.sends, c.sent = nil, nil, nil; c.handler.Closed(c.cause) }
func (c *card) lie()           {}

func (c *card) refers(e arena.Extent) bool {
	in := func(x arena.Extent) bool {
		return x.Len() > 0 && x.Offset() < e.Offset()+e.Len() && e.Offset() < x.Offset()+x.Len()
	}
	return slices.ContainsFunc(c.grants, func(g grant) bool { return in(g.memory) }) ||
		slices.ContainsFunc(c.sends, func(r rdma.WorkRequest) bool { return in(r.Data) }) ||
		slices.ContainsFunc(c.sent, func(r rdma.WorkRequest) bool { return in(r.Data) })
}

func (c *card) cut() {
	c.there = c.there[:c.w.rng.IntN(len(c.there)+1)]
	c.here = c.here[:c.w.rng.IntN(len(c.here)+1)]
	c.broken = true
}

func (c *card) play() bool {
	w := c.w
	switch w.rng.IntN(5) {
	case 0: // a request of the initiator leaves
		if len(c.sends) == 0 || c.shut {
			return false
		}
		r := c.sends[0]
		c.sends = c.sends[1:]
		m := append([]byte(nil), c.slots[r.Slot][:r.Head]...)
		if r.Data.Len() > 0 {
			m = append(m, r.Data.Bytes()...)
		}
		c.sent = append(c.sent, r)
		if !c.broken {
			c.there = append(c.there, m)
		}
	case 1: // its completions
		if len(c.sent) == 0 || c.shut {
			return false
		}
		k := 1 + w.rng.IntN(len(c.sent))
		c.done(k)
	case 2:
		if len(c.there) == 0 || w.vanished {
			return false
		}
		m := c.there[0]
		c.there = c.there[1:]
		if !c.n.over {
			c.arrive(m)
		}
	case 3:
		return c.toInitiator()
	default:
		return !w.vanished && !c.n.over && !c.broken && c.n.step()
	}
	return true
}

// done tells of requests up to the last of the first k that asks for it.
func (c *card) done(k int) {
	for k > 0 && !c.sent[k-1].Signal {
		k--
	}
	if k == 0 {
		return
	}
	list := c.sent[:k]
	c.sent = c.sent[k:]
	c.handler.Enter()
	var failed error
	for _, r := range list {
		if err := c.handler.Done(r.ID); err != nil {
			failed = err
		}
	}
	c.handler.Leave()
	if failed != nil {
		c.Close(failed)
	}
}

// toInitiator delivers a message, or the end of a region.
func (c *card) toInitiator() bool {
	if c.shut {
		return false
	}
	for i, g := range c.grants {
		if !g.going {
			continue
		}
		c.grants = append(c.grants[:i], c.grants[i+1:]...)
		c.handler.Enter()
		err := c.handler.Revoked(g.id)
		c.handler.Leave()
		if err != nil {
			c.Close(err)
		}
		return true
	}
	if len(c.here) == 0 || len(c.free) == 0 {
		return false
	}
	m := c.here[0]
	c.here = c.here[1:]
	c.receive(m)
	return true
}

// arrive takes a message in at the target.
func (c *card) arrive(m []byte) {
	w, n := c.w, c.n
	if len(m) < iscsi.ISERHeaderLen+iscsi.BHSLen {
		w.violation("a message of %d bytes", len(m))
		return
	}
	var r iscsi.ISERHeader
	if err := r.Decode((*[iscsi.ISERHeaderLen]byte)(m)); err != nil {
		w.violation("%v", err)
	}
	h := iscsi.BHS(m[iscsi.ISERHeaderLen:])
	rest := m[iscsi.ISERHeaderLen+iscsi.BHSLen:]
	size := h.DataSegmentLength()
	if size > len(rest) || len(rest) > size+3 || size > n.p.maxRecv {
		w.violation("%v with %d bytes of data in %d", h.Opcode(), size, len(rest))
		return
	}
	if iscsi.SerialLess(n.statSN, h.ExpStatSN()) {
		w.violation("ExpStatSN %d acknowledges what was not sent", h.ExpStatSN())
	}
	if h.Opcode() != iscsi.OpSCSICommand {
		n.control(&h, rest[:size])
		return
	}
	var cmd iscsi.SCSICommand
	if err := cmd.Decode(&h); err != nil {
		w.violation("%v", err)
		return
	}
	if !cmd.Final || size > 0 && !n.p.immediate {
		w.violation("a command with data to come, or with immediate data")
	}
	k := n.accept(cmd, rest[:size])
	k.header = r
	if size == 0 && (cmd.Write != r.HasWrite || cmd.Read != r.HasRead) {
		w.violation("a command (read %v, write %v) tells of memory (read %v, write %v)", cmd.Read, cmd.Write, r.HasRead, r.HasWrite)
	}
}

// reach finds memory that the target was told of.
func (c *card) reach(key uint32, addr uint64, n int, a rdma.Access) []byte {
	for _, g := range c.grants {
		if uint32(g.key) != key {
			continue
		}
		off := addr - base - uint64(g.key)<<16
		if g.access&a == 0 || off > uint64(g.memory.Len()) || uint64(n) > uint64(g.memory.Len())-off {
			c.w.violation("memory of %d bytes does not have what the command tells of: %d at %d", g.memory.Len(), n, off)
			return nil
		}
		return g.memory.Bytes()[off:][:n]
	}
	return nil // the initiator has taken it back: the connection is at its end
}

// send implements wire.
func (c *card) send(h *iscsi.BHS, data []byte) {
	if c.broken {
		return
	}
	m := message{bytes: pack(h, data)}
	c.here = append(c.here, m)
}

// fetch implements wire: it reads some of a write's data.
func (c *card) fetch(k *task) bool {
	size := 1 + c.w.rng.IntN(len(k.data)-k.got)
	p := c.reach(k.header.WriteSTag, k.header.WriteBase+uint64(k.got), size, rdma.RemoteRead)
	if p == nil {
		return false
	}
	k.got += copy(k.data[k.got:], p)
	return true
}

// deliver implements wire: it writes some of a read's data. What is left of a
// connection that the initiator has given up may do so until its end.
func (c *card) deliver(k *task) int {
	left := len(k.data) - k.short - k.sent
	size := 1 + c.w.rng.IntN(left)
	p := c.reach(k.header.ReadSTag, k.header.ReadBase+uint64(k.sent), size, rdma.RemoteWrite)
	if p == nil {
		return 0
	}
	copy(p, k.data[k.sent:k.sent+size])
	return size
}
