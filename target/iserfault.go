package target

import (
	"iscsictl/iscsi"
	"iscsictl/transport/rdma"
)

// astray returns the memory that a fault has the target reach for, instead of
// that which the initiator has lent, of n bytes.
func (m *iser) astray(r rdma.Region, f *Fault, n int64) rdma.Region {
	switch f.Action {
	case ActionBadSTag:
		r.Key ^= 0x5a5a5a5a
	case ActionStaleSTag:
		// Without a command before it, the generation before this one's.
		if r.Key--; m.earlier != 0 {
			r.Key = rdma.Key(m.earlier)
		}
	case ActionDataBeyond:
		r.Addr += uint64(n)
	}
	return r
}

// otherSTag is that of another command: one that is with the target, so that
// the STag is valid, or else one that was.
func (m *iser) otherSTag(own uint32) uint32 {
	for _, t := range m.c.session.tasks {
		for _, stag := range []uint32{t.cmd.memory.ReadSTag, t.cmd.memory.WriteSTag} {
			if stag != 0 && stag != own {
				return stag
			}
		}
	}
	if m.earlier != 0 && m.earlier != own {
		return m.earlier
	}
	return own ^ 0x5a5a5a5a
}

// shapedData moves the data of a read as a fault wants it, and reports whether
// there was such a fault.
func (m *iser) shapedData(cmd *scsiCommand, to rdma.Region, u *unit, off, total, full int64, f *Fault) bool {
	c, size := m.c, uint32(total)
	to = m.astray(to, f, expected(cmd))
	done := func() { c.respond(cmd, verdict{}, total, full, 0) }
	switch f.Action {
	case ActionBadSTag, ActionStaleSTag, ActionDataBeyond:
		m.write(to, u, off, span{0, size})
		done()
	case ActionDataShort:
		m.write(to, u, off, span{0, (size + 1) / 2})
		done()
	case ActionDataReverse:
		for end := size; end > 0; {
			n := min(end, max(size/4, 1))
			end -= n
			m.write(to, u, off, span{end, n})
		}
		done()
	case ActionLateRDMA:
		done()
		m.write(to, u, off, span{0, size})
	case ActionPlainData:
		m.plainData(cmd, u, off, total, full)
	default:
		return false
	}
	return true
}

// plainData sends the beginning of a read's data in a Data-In with the status,
// as if there were no iSER.
func (m *iser) plainData(cmd *scsiCommand, u *unit, off, total, full int64) {
	c := m.c
	data, _, ok := c.piece(u, off, min(total, int64(c.session.params.MaxSend)))
	if !ok {
		data = nil
	}
	p := iscsi.DataIn{
		InitiatorTaskTag: cmd.InitiatorTaskTag, TargetTransferTag: iscsi.ReservedTag,
		Final: true, HasStatus: true, StatSN: c.nextStatSN(), DataSegmentLength: len(data),
	}
	p.ExpCmdSN, p.MaxCmdSN = c.window()
	p.Overflow, p.Underflow, p.Residual = residual(expected(cmd), int64(len(data)), full)
	p.Encode(&c.h)
	c.send(data, false)
}

// shapedWrite begins to fetch the data of a write as its fault wants it. It
// reports whether that is all that is to be done.
func (c *conn) shapedWrite(t *task) bool {
	left := span{t.asked, t.want - min(t.asked, t.want)}
	switch {
	case t.shape.Action == ActionR2T:
		size, _ := c.mover.burstLimit()
		shape := t.shape.R2T
		if c.iser { // there is memory for so much
			shape.Burst, shape.Beyond = min(shape.Burst, iserTransfer), min(shape.Beyond, iserTransfer)
		}
		t.plan = shape.plan(t.asked, t.want, size)
	case !c.iser || left.size == 0:
	case t.shape.Action == ActionPlainData:
		c.sendR2T(&t.cmd, burst{ttt: c.nextTTT(), offset: left.offset, size: left.size}, 0)
		return true
	case t.shape.Action == ActionLateRDMA:
		late := &task{cmd: t.cmd, given: t.given, aborted: true}
		c.complete(t)
		c.mover.fetch(late, burst{offset: left.offset, size: min(left.size, iserTransfer)})
		return true
	}
	return false
}
