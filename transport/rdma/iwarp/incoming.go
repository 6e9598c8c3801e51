package iwarp

import (
	"iscsictl/transport/rdma"
)

// incoming is what the reader knows between two segments.
type incoming struct {
	msn    [queues]uint32 // expected next, or of the message under way
	posted slotRing

	slot   int // of the Send under way, or -1
	got    int // bytes of it
	sendOp opcode
	inval  uint32

	write uint32             // the region that a Write's segment is placed in
	read  *read              // that a Read Response's segment belongs to
	short [terminateMax]byte // payload of a Read Request or a Terminate
	told  bool               // a first FPDU has come
}

// slotRing has the receive slots that are posted, in order.
type slotRing struct {
	slots       []int
	first, last uint64
}

func (q *slotRing) put(slot int) {
	if q.last-q.first < uint64(len(q.slots)) {
		q.slots[q.last%uint64(len(q.slots))] = slot
		q.last++
	}
}

func (q *slotRing) take() (slot int, ok bool) {
	if q.first == q.last {
		return 0, false
	}
	slot = q.slots[q.first%uint64(len(q.slots))]
	q.first++
	return slot, true
}

func (in *incoming) init(receives int) {
	in.slot = -1
	in.posted.slots = make([]int, receives)
	for i := range receives {
		in.posted.put(i)
	}
	for i := range in.msn {
		in.msn[i] = 1
	}
}

// segment implements sink: RFC 5041 §5 and §7, RFC 5040 §5 and §7.
func (c *conn) segment(s *segment) ([]byte, error) {
	switch {
	case s.ddp != ddpVersion && s.tagged:
		return nil, faultf(terminateTaggedVersion, "DDP version %d", s.ddp)
	case s.ddp != ddpVersion:
		return nil, faultf(terminateUntaggedVersion, "DDP version %d", s.ddp)
	case s.rdmap != rdmapVersion>>6:
		return nil, faultf(terminateRDMAPVersion, "RDMAP version %d", s.rdmap)
	case s.op > opTerminate || s.op.tagged() != s.tagged:
		return nil, faultf(terminateOpcode, "opcode %d in a DDP segment with T=%t", s.op, s.tagged)
	case s.op == opWrite:
		return c.writeSegment(s)
	case s.op == opReadResponse:
		return c.responseSegment(s)
	case s.qn != s.op.queue():
		return nil, faultf(terminateQueue, "%v on queue %d", s.op, s.qn)
	case s.msn != c.in.msn[s.qn]:
		return nil, faultf(terminateMSN, "%v with message sequence number %d where %d is next", s.op, s.msn, c.in.msn[s.qn])
	case s.op == opReadRequest:
		return c.wholeSegment(s, readReqLen, readReqLen)
	case s.op == opTerminate:
		return c.wholeSegment(s, 4, len(c.in.short))
	}
	return c.sendSegment(s)
}

// wholeSegment finds the place of a message that must be in one segment.
func (c *conn) wholeSegment(s *segment, least, most int) ([]byte, error) {
	switch {
	case s.mo != 0:
		return nil, faultf(terminateMO, "%v with message offset %d", s.op, s.mo)
	case s.payload > most:
		return nil, faultf(terminateTooLong, "%v with %d bytes", s.op, s.payload)
	case s.payload < least || !s.last:
		return nil, faultf(terminateOperation, "%v of %d bytes, last=%t", s.op, s.payload, s.last)
	}
	return c.in.short[:s.payload], nil
}

func (c *conn) writeSegment(s *segment) ([]byte, error) {
	c.in.write = noRegion
	if s.payload == 0 {
		return nil, nil // RFC 5040 §5.1: needs no valid STag
	}
	i, mem, b := c.regions.at(s.stag, s.to, uint32(s.payload), rdma.RemoteWrite)
	switch b {
	case breachSTag:
		return nil, faultf(terminateTaggedSTag, "RDMA Write to the STag %#08x, which is not valid", s.stag)
	case breachAccess:
		return nil, faultf(terminateAccess, "RDMA Write to the STag %#08x, which may only be read", s.stag)
	case breachWrap:
		return nil, faultf(terminateTaggedWrap, "RDMA Write of %d bytes at %#x", s.payload, s.to)
	case breachBounds:
		return nil, faultf(terminateTaggedBounds, "RDMA Write of %d bytes at %#x, outside of the region", s.payload, s.to)
	}
	c.in.write = i
	c.regions.entries[i].placing = true
	return mem, nil
}

func (c *conn) responseSegment(s *segment) ([]byte, error) {
	r := c.send.outstanding()
	c.in.read = r
	switch {
	case r == nil:
		return nil, faultf(terminateOpcode, "RDMA Read Response to no request")
	case len(r.mem) == 0 && s.payload == 0 && s.last:
		return nil, nil // RFC 5040 §5.2: needs no valid STag
	case s.stag != r.stag:
		return nil, faultf(terminateTaggedSTag, "RDMA Read Response to the STag %#08x where %#08x is next", s.stag, r.stag)
	case s.to != r.to+uint64(r.got):
		return nil, faultf(terminateTaggedBounds, "RDMA Read Response at %#x where %#x is next", s.to, r.to+uint64(r.got))
	case s.payload > len(r.mem)-r.got:
		return nil, faultf(terminateTaggedBounds, "RDMA Read Response with %d bytes where %d are to come", s.payload, len(r.mem)-r.got)
	case s.last != (s.payload == len(r.mem)-r.got):
		return nil, faultf(terminateOperation, "RDMA Read Response that ends after %d bytes of %d", r.got+s.payload, len(r.mem))
	}
	return r.mem[r.got : r.got+s.payload], nil
}

func (c *conn) sendSegment(s *segment) ([]byte, error) {
	in := &c.in
	inval := uint32(0)
	if s.op == opSendInvalidate || s.op == opSendSEInvalidate {
		inval = s.stag
	}
	if in.slot < 0 {
		slot, ok := in.posted.take()
		if !ok {
			return nil, faultf(terminateNoBuffer, "a Send where no receive is posted")
		}
		in.slot, in.got, in.sendOp, in.inval = slot, 0, s.op, inval
	}
	slot := c.receiveSlot(in.slot)
	switch {
	case s.op != in.sendOp || inval != in.inval:
		return nil, faultf(terminateOpcode, "%v within a message that began as %v", s.op, in.sendOp)
	case uint64(s.mo) != uint64(in.got):
		return nil, faultf(terminateMO, "a Send's segment with message offset %d where %d is next", s.mo, in.got)
	case s.payload > len(slot)-in.got:
		return nil, faultf(terminateTooLong, "a Send of at least %d bytes into a receive of %d", in.got+s.payload, len(slot))
	case s.payload == 0 && !s.last:
		return nil, faultf(terminateOperation, "an empty segment within a Send")
	}
	return slot[in.got : in.got+s.payload], nil
}

// placed implements sink.
func (c *conn) placed(s *segment) error {
	if !c.in.told {
		c.in.told = true
		c.send.release()
	}
	var err error
	switch s.op {
	case opWrite:
		err = c.writePlaced()
	case opReadResponse:
		r := c.in.read
		r.got += s.payload
		if s.last {
			c.send.arrived(r)
		}
	case opReadRequest:
		c.in.msn[queueRead]++
		err = c.readRequested()
	case opTerminate:
		return parseTerminate(c.in.short[:s.payload])
	default:
		c.in.got += s.payload
		if s.last {
			err = c.received()
		}
	}
	return err
}

func (c *conn) writePlaced() error {
	i := c.in.write
	if i == noRegion {
		return nil
	}
	r := &c.regions.entries[i]
	r.placing = false
	if r.state == regionRevoked && !c.send.hold(i) {
		err := c.user.Revoked(c.regions.release(i))
		c.user = c.Next(c.user)
		return err
	}
	return nil
}

func (c *conn) readRequested() error {
	q := parseReadRequest(c.in.short[:])
	answer := response{region: noRegion, stag: q.sinkSTag, to: q.sinkTO}
	if q.length > 0 { // RFC 5040 §5.2: else it needs no valid STag
		i, mem, b := c.regions.at(q.srcSTag, q.srcTO, q.length, rdma.RemoteRead)
		switch b {
		case breachSTag:
			return faultf(terminateReadSTag, "RDMA Read from the STag %#08x, which is not valid", q.srcSTag)
		case breachAccess:
			return faultf(terminateAccess, "RDMA Read from the STag %#08x, which may only be written", q.srcSTag)
		case breachWrap:
			return faultf(terminateReadWrap, "RDMA Read of %d bytes at %#x", q.length, q.srcTO)
		case breachBounds:
			return faultf(terminateReadBounds, "RDMA Read of %d bytes at %#x, outside of the region", q.length, q.srcTO)
		}
		answer.data, answer.region = mem, i
	}
	if !c.send.answer(answer) {
		return faultf(terminateIRD, "more than the %d RDMA Reads at a time that were negotiated", c.info.InboundReads)
	}
	return nil
}

func (c *conn) received() error {
	in := &c.in
	in.msn[queueSend]++
	slot := in.slot
	in.slot = -1
	if in.inval != 0 || in.sendOp == opSendInvalidate || in.sendOp == opSendSEInvalidate {
		i, ok := c.regions.index(in.inval)
		if !ok || c.regions.entries[i].state != regionGranted {
			return faultf(terminateInvalidate, "%v of the STag %#08x, which is not valid", in.sendOp, in.inval)
		}
		c.regions.entries[i].state = regionInvalidated
	}
	err := c.user.Received(slot, c.receiveSlot(slot)[:in.got], rdma.Key(in.inval))
	c.user = c.Next(c.user)
	return err
}
