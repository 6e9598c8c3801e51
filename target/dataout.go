package target

import (
	"time"

	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// Sense of commands whose data came wrong (RFC 7143 §11.4.7.2).
const (
	codeUnexpectedUnsolicited scsi.Code = 0x0c0c
	codeNotEnoughUnsolicited  scsi.Code = 0x0c0d
	codeProtocolCRC           scsi.Code = 0x4705
)

// beginWrite starts a command that the initiator sends data for, takes its
// immediate data, and asks for more.
func (c *conn) beginWrite(h *iscsi.BHS, cmd *scsiCommand, u *unit, v verdict, f *Fault) error {
	s := c.session
	t := s.newTask(cmd)
	t.unit, t.kind, t.end, t.off, t.full = u, v.kind, v, v.off, v.n
	if f != nil {
		t.shape = f
		t.delay = time.Duration(f.Delay)
	}
	switch v.kind {
	case verdictSend, verdictRead:
		// The CDB sends, the initiator as well: its data is dropped.
		t.fail(illegal(scsi.CodeInvalidFieldInCDB))
	case verdictTake:
		if v.n != int64(cmd.ExpectedDataTransferLength) {
			t.fail(illegal(scsi.CodeInvalidFieldInCDB))
			break
		}
		t.want, t.buf = uint32(v.n), make([]byte, v.n)
	case verdictWrite:
		t.want = uint32(min(t.full, int64(cmd.ExpectedDataTransferLength)))
		if f != nil && f.Action == ActionHold {
			t.buf = make([]byte, t.want)
		}
	}
	if err := c.checkUnsolicited(t); err != nil {
		return err
	}
	s.tasks[cmd.InitiatorTaskTag] = t
	n := cmd.DataSegmentLength
	intact, err := c.mover.segment(n, t, 0)
	if err != nil {
		return err
	}
	if t.aborted {
		return nil
	}
	if !intact { // RFC 7143 §7.8: the command is as if it had not come
		s.release(t)
		c.reject(h, iscsi.RejectDataDigestError)
		return nil
	}
	t.given = uint32(n)
	t.unsolicited = !t.cmd.Final
	c.proceed(t)
	return nil
}

// checkUnsolicited checks what comes with a command against what was
// negotiated (RFC 7143 §13.10, §13.11, §13.14).
func (c *conn) checkUnsolicited(t *task) error {
	p, cmd := &c.session.params, &t.cmd
	n := cmd.DataSegmentLength
	switch {
	case n > 0 && !p.ImmediateData:
		return c.broken("immediate data, but ImmediateData=No")
	case !cmd.Final && p.InitialR2T:
		return c.broken("unsolicited data is announced, but InitialR2T=Yes")
	case n > p.FirstBurstLength:
		return c.broken("%d bytes of immediate data, but FirstBurstLength=%d", n, p.FirstBurstLength)
	case int64(n) > int64(cmd.ExpectedDataTransferLength):
		return c.broken("%d bytes of immediate data, more than the %d expected", n, cmd.ExpectedDataTransferLength)
	}
	return nil
}

// proceed asks for the next data of a task, or ends it.
func (c *conn) proceed(t *task) {
	if t.unsolicited || t.held {
		return
	}
	if t.kind == verdictStatus {
		if len(t.bursts) == 0 {
			c.complete(t)
		}
		return
	}
	if !t.begun {
		t.begun, t.asked = true, t.given
		if t.shape != nil && c.shapedWrite(t) {
			return
		}
	}
	if !c.solicit(t) || len(t.bursts) > 0 {
		return
	}
	if t.shape != nil && t.shape.Action == ActionHold {
		c.hold(t, t.shape)
		return
	}
	c.complete(t)
}

// solicit asks for as many bursts of data as there may be (RFC 7143 §11.8). It
// reports false where there was no room for one; proceed follows then.
func (c *conn) solicit(t *task) bool {
	size, most := c.mover.burstLimit()
	if t.plan != nil && t.shape.R2T.Outstanding > 0 {
		most = t.shape.R2T.Outstanding
	}
	for len(t.bursts) < most {
		var next span
		switch {
		case t.plan != nil && len(t.plan) == 0, t.plan == nil && t.asked >= t.want:
			return true
		case t.plan != nil:
			next = t.plan[0]
		default:
			next = span{t.asked, min(t.want-t.asked, size)}
		}
		b := burst{ttt: c.nextTTT(), offset: next.offset, size: next.size}
		if !c.mover.fetch(t, b) {
			return false
		}
		t.bursts = append(t.bursts, b)
		if t.plan != nil {
			t.plan = t.plan[1:]
		} else {
			t.asked += next.size
		}
	}
	return true
}

// fetch implements datamover.
func (m *stream) fetch(t *task, b burst) bool {
	m.c.sendR2T(&t.cmd, b, t.r2tSN)
	t.r2tSN++
	return true
}

func (c *conn) sendR2T(cmd *scsiCommand, b burst, sn uint32) {
	c.session.counters.r2ts.Add(1)
	r := iscsi.R2T{
		LUN: cmd.LUN, InitiatorTaskTag: cmd.InitiatorTaskTag, TargetTransferTag: b.ttt,
		StatSN: c.statSN, R2TSN: sn, BufferOffset: b.offset, DesiredLength: b.size,
	}
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Encode(&c.h)
	c.send(nil, false)
}

// onDataOut takes data of a write (RFC 7143 §11.7).
func (c *conn) onDataOut(h *iscsi.BHS) error {
	var p iscsi.DataOut
	if err := p.Decode(h); err != nil {
		return c.broken("%v", err)
	}
	if c.iser && p.TargetTransferTag != iscsi.ReservedTag {
		return c.broken("solicited Data-Out, which iSER does not have")
	}
	t := c.session.tasks[p.InitiatorTaskTag]
	if t == nil { // of a task that was aborted, or answered early
		return c.skip(p.DataSegmentLength)
	}
	b, err := c.burstOf(t, &p)
	if err != nil {
		return err
	}
	intact, err := c.mover.segment(p.DataSegmentLength, t, p.BufferOffset)
	if err != nil || t.aborted {
		return err
	}
	if !intact { // RFC 7143 §7.8: end the task, but take all of its data first
		c.reject(h, iscsi.RejectDataDigestError)
		t.fail(check(scsi.AbortedCommand, codeProtocolCRC))
		t.plan = nil
	}
	if b == nil {
		return c.unsolicitedData(t, &p)
	}
	b.got += uint32(p.DataSegmentLength)
	if !p.Final {
		if b.got >= b.size && c.session.params.DataPDUInOrder {
			return c.broken("Data-Out with the last data of an R2T is not final")
		}
		return nil
	}
	if b.got != b.size {
		t.fail(check(scsi.AbortedCommand, scsi.CodeDataPhaseError))
	}
	t.bursts = append(t.bursts[:b.index(t)], t.bursts[b.index(t)+1:]...)
	c.proceed(t)
	return nil
}

// index is the place of a burst among those of its task.
func (b *burst) index(t *task) int {
	for i := range t.bursts {
		if &t.bursts[i] == b {
			return i
		}
	}
	return 0
}

// burstOf finds the R2T that a Data-Out answers, nil for unsolicited data, and
// checks its place in it.
func (c *conn) burstOf(t *task, p *iscsi.DataOut) (*burst, error) {
	end := uint64(p.BufferOffset) + uint64(p.DataSegmentLength)
	inOrder := c.session.params.DataPDUInOrder
	if p.TargetTransferTag == iscsi.ReservedTag {
		first := uint64(min(c.session.params.FirstBurstLength, int(t.cmd.ExpectedDataTransferLength)))
		switch {
		case !t.unsolicited:
			return nil, c.broken("unsolicited Data-Out for a task that has none to come")
		case end > first:
			return nil, c.broken("unsolicited Data-Out up to byte %d, beyond the first burst of %d", end, first)
		case inOrder && p.BufferOffset != t.given:
			return nil, c.broken("unsolicited Data-Out at %d instead of %d", p.BufferOffset, t.given)
		case p.DataSN != t.dataSN:
			return nil, c.broken("unsolicited Data-Out with DataSN %d instead of %d", p.DataSN, t.dataSN)
		}
		t.dataSN++
		return nil, nil
	}
	for i := range t.bursts {
		b := &t.bursts[i]
		if b.ttt != p.TargetTransferTag {
			continue
		}
		switch {
		case p.BufferOffset < b.offset || end > uint64(b.offset)+uint64(b.size):
			return nil, c.broken("Data-Out for bytes %d to %d, beyond the R2T for %d at %d", p.BufferOffset, end, b.size, b.offset)
		case inOrder && p.BufferOffset != b.offset+b.got:
			return nil, c.broken("Data-Out at %d instead of %d", p.BufferOffset, b.offset+b.got)
		case p.DataSN != b.dataSN:
			return nil, c.broken("Data-Out with DataSN %d instead of %d", p.DataSN, b.dataSN)
		}
		b.dataSN++
		return b, nil
	}
	return nil, c.broken("Data-Out with tag %#x, for which there is no R2T", p.TargetTransferTag)
}

func (c *conn) unsolicitedData(t *task, p *iscsi.DataOut) error {
	t.given += uint32(p.DataSegmentLength)
	if p.Final {
		t.unsolicited = false
		c.proceed(t)
	}
	return nil
}

// complete ends a task whose data is there.
func (c *conn) complete(t *task) {
	v, moved := t.end, int64(0)
	if t.kind != verdictStatus {
		v, moved = c.finish(t), int64(t.want)
		c.session.counters.bytesWritten.Add(uint64(moved))
	}
	full := t.full
	if t.kind == verdictStatus {
		full = 0
	}
	cmd, pdus := t.cmd, t.r2tSN
	c.session.release(t)
	c.respond(&cmd, v, moved, full, pdus)
}

// finish carries out a command whose data is there.
func (c *conn) finish(t *task) verdict {
	if t.kind == verdictTake {
		return t.unit.taken(&t.cmd.CDB, t.buf)
	}
	if t.buf != nil {
		if _, err := t.unit.storage.WriteAt(t.buf, t.off); err != nil {
			return check(scsi.MediumError, scsi.CodeWriteError)
		}
	}
	return t.unit.written(&t.cmd.CDB)
}
