package target

import (
	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// sendData answers a command with n bytes: of the medium from byte off, or of
// the parameter data in c.params if there is no unit.
func (c *conn) sendData(cmd *scsiCommand, u *unit, off, n int64, f *Fault) {
	total := min(n, expected(cmd))
	if !cmd.Read {
		total = 0
	}
	if total == 0 {
		c.respond(cmd, verdict{}, 0, n, 0)
		return
	}
	c.session.counters.bytesRead.Add(uint64(total))
	c.mover.sendData(cmd, u, off, total, n, f)
}

// sendData implements datamover. The last Data-In has the status, unless the
// target is told to send it apart (RFC 7143 §11.7).
func (m *stream) sendData(cmd *scsiCommand, u *unit, off, total, full int64, f *Fault) {
	c, s := m.c, m.c.session
	if f != nil && c.sendShaped(cmd, u, off, total, f) {
		return
	}
	p := iscsi.DataIn{InitiatorTaskTag: cmd.InitiatorTaskTag, TargetTransferTag: iscsi.ReservedTag}
	burst := int64(s.params.MaxBurstLength)
	for at := int64(0); at < total; {
		left := min(total-at, burst-at%burst, int64(s.params.MaxSend))
		data, ref, ok := c.piece(u, off+at, left)
		if !ok {
			c.respond(cmd, check(scsi.MediumError, scsi.CodeReadError), at, at, p.DataSN)
			return
		}
		p.BufferOffset, p.DataSegmentLength = uint32(at), len(data)
		at += int64(len(data))
		p.Final = at == total || at%burst == 0
		p.ExpCmdSN, p.MaxCmdSN = c.window()
		if at == total && !s.node.SeparateStatus {
			p.HasStatus, p.StatSN = true, c.nextStatSN()
			p.Overflow, p.Underflow, p.Residual = residual(expected(cmd), total, full)
		}
		p.Encode(&c.h)
		c.send(data, ref)
		p.DataSN++
	}
	if !p.HasStatus {
		c.respond(cmd, verdict{}, total, full, p.DataSN)
	}
}

// piece returns up to n bytes of the medium, or of c.params. ref tells that
// they stay where they are.
func (c *conn) piece(u *unit, off, n int64) (data []byte, ref, ok bool) {
	if u == nil {
		return c.params[off : off+n], false, true
	}
	if data := u.storage.view(off, n); data != nil {
		return data, true, true
	}
	n = min(n, fileChunk)
	c.data = grow(c.data, int(n))
	if _, err := u.storage.ReadAt(c.data, off); err != nil {
		c.log.Warn("read of a logical unit failed", "lun", u.Number, "offset", off, "error", err)
		return nil, false, false
	}
	return c.data, false, true
}

// fileChunk is the most bytes that are read from a file at once.
const fileChunk = 256 << 10

// grow returns b with length n; its content is not kept.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}
