package target

import (
	"fmt"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/scsi"
	"iscsictl/transport/rdma"
)

// queue implements datamover.
func (m *iser) queue(data []byte, _ bool, as distortion) {
	c := m.c
	if len(data) > iserSegment {
		c.err = fmt.Errorf("%v with %d bytes of data, over %d", c.h.Opcode(), len(data), iserSegment)
		return
	}
	slot, ok := m.slot()
	if !ok {
		return
	}
	w := rdma.WorkRequest{Op: rdma.OpSend, Signal: true, Slot: slot}
	if key := m.invalidation(as.invalidate); key != 0 {
		w.Op, w.Remote.Key = rdma.OpSendInvalidate, key
	}
	p := posting{slot: slot}
	if as.excess > 0 {
		if w.Data, ok = m.room(min(as.excess, iserMemory/2)); !ok {
			return
		}
		p.end = m.to
		c.h.SetDataSegmentLength(len(data) + w.Data.Len())
	}
	w.Head = m.put(m.rc.SendSlot(slot), data)
	m.post(w, p)
}

// put writes the PDU in conn.h as a message; the target lends no memory.
func (m *iser) put(slot, data []byte) int {
	(&iscsi.ISERHeader{}).Encode((*[iscsi.ISERHeaderLen]byte)(slot))
	n := iscsi.ISERHeaderLen
	n += copy(slot[n:], m.c.h[:])
	n += copy(slot[n:], data)
	return n + copy(slot[n:], zeroes[:iscsi.Pad(len(data))])
}

// slot takes a send slot, when there is one.
func (m *iser) slot() (slot int, ok bool) {
	if !m.wait(func() bool { return len(m.slots) > 0 }) {
		return -1, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	last := len(m.slots) - 1
	slot = m.slots[last]
	m.slots = m.slots[:last]
	return slot, true
}

// invalidation is the STag that goes with the PDU in conn.h: that of the
// command which it answers, where the initiator takes Send with Invalidate.
func (m *iser) invalidation(f *Fault) rdma.Key {
	if m.c.h.Opcode() != iscsi.OpSCSIResponse {
		return 0
	}
	mem := &m.c.answered
	own := mem.WriteSTag
	if mem.HasRead {
		own = mem.ReadSTag
	}
	key := uint32(0)
	switch {
	case f != nil && f.Action == ActionInvalidateOther:
		key = m.otherSTag(own)
	case m.invalidate, f != nil:
		key = own
	}
	if own != 0 {
		m.earlier = own
	}
	return rdma.Key(key)
}

// sendData implements datamover: RDMA Writes, and the SCSI Response behind
// them (RFC 7145 §7.3.5).
func (m *iser) sendData(cmd *scsiCommand, u *unit, off, total, full int64, f *Fault) {
	to := rdma.Region{Key: rdma.Key(cmd.memory.ReadSTag), Addr: cmd.memory.ReadBase}
	if f != nil && m.shapedData(cmd, to, u, off, total, full, f) {
		return
	}
	moved, ok := m.write(to, u, off, span{0, uint32(total)})
	if !ok {
		m.c.respond(cmd, check(scsi.MediumError, scsi.CodeReadError), moved, moved, 0)
		return
	}
	m.c.respond(cmd, verdict{}, total, full, 0)
}

// write moves a span of a command's data to the initiator. It returns how many
// bytes went, and false where the medium could not be read.
func (m *iser) write(to rdma.Region, u *unit, off int64, s span) (moved int64, ok bool) {
	c := m.c
	for s.size > 0 {
		n := min(s.size, iserTransfer)
		before := m.to
		data, ok := m.room(int(n))
		if !ok {
			return moved, true // the connection is over
		}
		at := off + int64(s.offset)
		if u == nil {
			copy(data.Bytes(), c.params[at:])
		} else if _, err := u.storage.ReadAt(data.Bytes(), at); err != nil {
			c.log.Warn("read of a logical unit failed", "lun", u.Number, "offset", at, "error", err)
			m.to = before
			return moved, false
		}
		c.session.counters.rdmaWrites.Add(1)
		w := rdma.WorkRequest{Op: rdma.OpWrite, Data: data, Remote: to}
		w.Remote.Addr += uint64(s.offset)
		m.post(w, posting{slot: -1, end: m.to})
		s.offset, s.size, moved = s.offset+n, s.size-n, moved+int64(n)
	}
	return moved, true
}

// room takes n bytes of source, one after another, when they are free.
func (m *iser) room(n int) (arena.Extent, bool) {
	size := uint64(m.source.Len())
	at, end := m.to%size, m.to+uint64(n)
	if at+uint64(n) > size { // not enough up to the end: from the beginning
		end += size - at
		at = 0
	}
	if !m.wait(func() bool { return end-m.from <= size }) {
		return arena.Extent{}, false
	}
	m.to = end
	return m.source.Slice(int(at), int(at)+n), true
}

// raw implements datamover: a message of these bytes.
func (m *iser) raw(b []byte) error {
	slot, ok := m.slot()
	if !ok {
		return m.c.err
	}
	n := copy(m.rc.SendSlot(slot), b)
	m.post(rdma.WorkRequest{Op: rdma.OpSend, Signal: true, Slot: slot, Head: n}, posting{slot: slot})
	return m.c.err
}

// truncated implements datamover: a message that is too short.
func (m *iser) truncated(n int, data []byte) {
	if n == 0 {
		return
	}
	slot, ok := m.slot()
	if !ok {
		return
	}
	head := m.put(m.rc.SendSlot(slot), data)
	m.post(rdma.WorkRequest{Op: rdma.OpSend, Signal: true, Slot: slot, Head: min(head, iscsi.ISERHeaderLen+n)}, posting{slot: slot})
	m.drain()
}
