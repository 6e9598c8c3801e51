package target

import (
	"fmt"

	"iscsictl/iscsi"
	"iscsictl/transport/rdma"
)

// receive implements datamover.
func (m *iser) receive() (*iscsi.BHS, error) {
	c := m.c
	m.repost()
	for {
		if c.err != nil {
			return nil, c.err
		}
		switch l, a, what := m.next(); what {
		case happenedEnd:
			return nil, m.failed
		case happenedRead:
			m.land(l)
		case happenedMessage:
			m.current = a
			return m.parse(a.data)
		default:
			m.rc.Flush()
			c.mu.Unlock()
			m.idle()
			c.mu.Lock()
		}
	}
}

// happened is what is to be dealt with next.
type happened uint8

const (
	happenedNothing happened = iota
	happenedEnd              // nothing more will happen
	happenedRead             // data have come, which make room for others
	happenedMessage
)

// next takes what has happened.
func (m *iser) next() (l landing, a arrival, what happened) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return l, a, happenedEnd
	}
	l, ok := m.landed.take()
	if ok {
		return l, a, happenedRead
	}
	if a, ok = m.arrivals.take(); ok {
		return l, a, happenedMessage
	}
	return l, a, happenedNothing
}

// idle waits for something to happen.
func (m *iser) idle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.landed.empty() && m.arrivals.empty() && !m.over {
		m.changed.Wait()
	}
}

// repost gives back the receive of the PDU that was handled.
func (m *iser) repost() {
	if m.current.slot < 0 {
		return
	}
	m.mu.Lock()
	if !m.over {
		m.rc.Repost(m.current.slot)
	}
	m.mu.Unlock()
	m.current, m.segments = arrival{slot: -1}, nil
}

// parse takes a message apart: the iSER header, the PDU's header, additional
// header segments, which are dropped, and its data segment (RFC 7145 §9).
func (m *iser) parse(message []byte) (*iscsi.BHS, error) {
	c := m.c
	if len(message) < iserHeaders {
		return nil, c.broken("a message of %d bytes, less than its headers", len(message))
	}
	if err := c.lent.Decode((*[iscsi.ISERHeaderLen]byte)(message)); err != nil {
		return nil, c.broken("%v", err)
	}
	m.bhs = iscsi.BHS(message[iscsi.ISERHeaderLen:iserHeaders])
	h, rest := &m.bhs, message[iserHeaders:]
	ahs, n := h.TotalAHSLength(), h.DataSegmentLength()
	if ahs+n > len(rest) || len(rest) > ahs+n+iscsi.Pad(n) {
		return nil, c.broken("%v with %d bytes of data in a message of %d bytes", h.Opcode(), n, len(message))
	}
	m.segments = rest[ahs : ahs+n]
	return h, nil
}

// checkMemory checks what a command says of the initiator's memory
// (RFC 7145 §7.3).
func (c *conn) checkMemory(cmd *scsiCommand) error {
	if !c.iser {
		return nil
	}
	mem, n := &cmd.memory, cmd.ExpectedDataTransferLength
	switch {
	case mem.HasRead && !cmd.Read, mem.HasWrite && !cmd.Write:
		return c.broken("%v with an STag for a direction in which it has no data", iscsi.OpSCSICommand)
	case cmd.Read && n > 0 && !mem.HasRead:
		return c.broken("%v for %d bytes to read without an STag", iscsi.OpSCSICommand, n)
	case cmd.Write && cmd.Final && int64(cmd.DataSegmentLength) < int64(n) && !mem.HasWrite:
		return c.broken("%v for %d bytes to write, %d of them immediate, without an STag", iscsi.OpSCSICommand, n, cmd.DataSegmentLength)
	}
	return nil
}

// segment implements datamover.
func (m *iser) segment(n int, t *task, off uint32) (intact bool, err error) {
	p := m.segments[:min(n, len(m.segments))]
	m.segments = m.segments[len(p):]
	if t != nil && len(p) > 0 {
		t.place(off, p)
	}
	return true, nil
}

// collect implements datamover.
func (m *iser) collect(n int) (intact bool, err error) {
	m.c.data = append(m.c.data, m.segments[:min(n, len(m.segments))]...)
	m.segments = nil
	return true, nil
}

// burstLimit implements datamover. MaxOutstandingR2T is for R2Ts.
func (m *iser) burstLimit() (size uint32, outstanding int) {
	return uint32(min(m.c.session.params.MaxBurstLength, iserTransfer)), iserTaskReads
}

// fetch implements datamover. Data that the initiator has sent unsolicited are
// not in the memory that it has lent.
func (m *iser) fetch(t *task, b burst) bool {
	c, mem := m.c, &t.cmd.memory
	if !mem.HasWrite {
		if c.err == nil {
			c.err = c.broken("no STag for %d bytes to write", b.size)
		}
		return false
	}
	// Those who wait come first, but a task with a fetch under way comes back by itself.
	patient := len(t.bursts) > 0 || t.aborted
	if !patient && !m.retrying && len(m.waiting) > 0 {
		m.await(t)
		return false
	}
	sink, ok := m.arena.Alloc(int(b.size))
	if !ok {
		if !patient {
			m.await(t)
		}
		return false
	}
	from := rdma.Region{Key: rdma.Key(mem.WriteSTag), Addr: mem.WriteBase + uint64(b.offset) - uint64(t.given)}
	if t.shape != nil {
		from = m.astray(from, t.shape, 0)
	}
	c.session.counters.rdmaReads.Add(1)
	m.post(rdma.WorkRequest{Op: rdma.OpRead, Signal: true, Data: sink, Remote: from},
		posting{slot: -1, read: true, landing: landing{t, b.ttt, b.offset, sink}})
	return true
}

// await puts a task at the end of those that wait for room; the one that is
// tried again stays where it is.
func (m *iser) await(t *task) {
	t.queued = true
	if !m.retrying {
		m.waiting = append(m.waiting, t)
	}
}

// land takes in the data of an RDMA Read.
func (m *iser) land(l landing) {
	t := l.task
	t.place(l.offset, l.sink.Bytes())
	l.sink.Free()
	if !t.aborted {
		for i := range t.bursts {
			if t.bursts[i].ttt == l.ttt {
				t.bursts = append(t.bursts[:i], t.bursts[i+1:]...)
				break
			}
		}
		m.c.proceed(t)
	}
	m.retry()
}

// retry lets those who wait for room try again, in order.
func (m *iser) retry() {
	for len(m.waiting) > 0 {
		t := m.waiting[0]
		if !t.aborted {
			t.queued, m.retrying = false, true
			m.c.proceed(t)
			m.retrying = false
			if t.queued {
				return
			}
		}
		m.waiting = m.waiting[:copy(m.waiting, m.waiting[1:])]
	}
}

// post posts a request, when there is room for it.
func (m *iser) post(w rdma.WorkRequest, p posting) {
	if !m.wait(func() bool { return !m.posted.full() }) {
		p.sink.Free()
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.rc.Post(w); err != nil {
		p.sink.Free()
		if m.c.err == nil {
			m.c.err = fmt.Errorf("request to the RDMA connection: %w", err)
		}
		return
	}
	m.posted.put(p)
	if p.read {
		m.reading++
	}
}
