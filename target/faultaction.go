package target

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"iscsictl/iscsi"
)

// receivedFaults does what faults want at a PDU that has come. handled means
// that the PDU is dealt with.
func (c *conn) receivedFaults(h *iscsi.BHS) (handled bool, err error) {
	c.firing = c.server.faults.fire(c.firing[:0], c, h, false)
	for _, f := range c.firing {
		c.log.Info("fault", "action", string(f.Action), "at", h.Opcode().String())
		switch f.Action {
		case ActionDrop:
			return true, fmt.Errorf("fault %s at %v", f.Action, h.Opcode())
		case ActionDropAfter:
			if n := f.Bytes - iscsi.BHSLen; n > 0 {
				_ = c.skip(min(n, h.DataSegmentLength()))
			}
			_ = c.flush()
			return true, fmt.Errorf("fault %s at %v", f.Action, h.Opcode())
		case ActionSwallow:
			c.takenAnyway(h)
			return true, c.skip(h.DataSegmentLength())
		case ActionReject:
			c.takenAnyway(h)
			return true, c.refuse(h, iscsi.RejectReason(f.Reason))
		case ActionLoginStatus:
			return true, c.faultyLogin(h, f)
		case ActionRedirect:
			return true, c.faultyLogin(h, f)
		case ActionAnswer:
			if c.login != nil {
				c.login.forced = append(c.login.forced, f.Text)
			}
		default:
			if err := c.commonFault(f); err != nil {
				return true, err
			}
		}
	}
	return false, nil
}

// takenAnyway counts a request that is not carried out, so that the session
// can go on after it.
func (c *conn) takenAnyway(h *iscsi.BHS) {
	switch h.Opcode() {
	case iscsi.OpSCSICommand, iscsi.OpNOPOut, iscsi.OpTaskManagementRequest, iscsi.OpTextRequest, iscsi.OpLogoutRequest:
		if c.login == nil && !h.Immediate() {
			c.expCmdSN++
		}
	}
}

// faultyLogin answers a login request with a status of our choice.
func (c *conn) faultyLogin(h *iscsi.BHS, f *Fault) error {
	if err := c.login.req.Decode(h); err != nil {
		return err
	}
	if _, err := c.collect(h); err != nil {
		return err
	}
	if f.Action == ActionRedirect {
		return c.redirect(&Redirect{f.Address, f.Permanent})
	}
	return c.failLogin(loginFailure(iscsi.LoginStatus(f.Status), "fault"))
}

// commonFault does what faults do beside a PDU, received or sent.
func (c *conn) commonFault(f *Fault) error {
	switch f.Action {
	case ActionDelay:
		return c.pause(time.Duration(f.Delay))
	case ActionSilence:
		c.silent = true
	case ActionPing:
		if c.session != nil {
			c.sendPing()
		}
	case ActionAsync:
		if c.session != nil {
			c.sendAsync(f.async())
		}
	case ActionGarbage:
		_ = c.flush()
		return c.mover.raw(bytes.Repeat([]byte{0xdb}, max(f.Bytes, 1)))
	case ActionCloseWindow:
		c.windowClosed = true
		time.AfterFunc(time.Duration(f.Delay), func() {
			c.do(func() {
				c.windowClosed = false
				if c.session != nil {
					c.sendNOPIn(iscsi.ReservedTag)
				}
			})
		})
	case ActionSplitText, ActionEndlessText:
		chunk, endless := f.Bytes, f.Action == ActionEndlessText
		if c.login != nil {
			c.login.chunk, c.login.endless = chunk, endless
		} else {
			c.session.text.chunk, c.session.text.endless = chunk, endless
		}
	}
	return nil
}

// commandFault returns the fault among those of this PDU that changes how a
// command is carried out, or nil.
func (c *conn) commandFault() *Fault {
	if !c.server.faults.some.Load() {
		return nil
	}
	for _, f := range c.firing {
		switch f.Action {
		case ActionStatus, ActionCheck, ActionHold, ActionR2T,
			ActionDataReverse, ActionDataGap, ActionDataBeyond, ActionDataShort,
			ActionBadSTag, ActionStaleSTag, ActionLateRDMA, ActionPlainData:
			return f
		}
	}
	return nil
}

// sentFaults does what faults want at the PDU in c.h before it is sent.
// swallowed means that it is not to be sent.
func (c *conn) sentFaults(data []byte) (swallowed bool, as distortion) {
	h := &c.h
	for _, f := range c.server.faults.fire(nil, c, h, true) {
		c.log.Info("fault", "action", string(f.Action), "at", h.Opcode().String())
		kept := *h
		switch f.Action {
		case ActionDrop, ActionDropAfter:
			c.dropWithin(f.Bytes, data)
			return true, as
		case ActionSwallow:
			return true, as
		case ActionHeaderDigest:
			as.header = true
		case ActionDataDigest:
			as.data = true
		case ActionInvalidate, ActionInvalidateOther:
			as.invalidate = f
		case ActionOversizeSend:
			if as.excess = f.Bytes; as.excess == 0 {
				as.excess = 2 * iserSegment
			}
		case ActionStatSN:
			addTo(h, 24, f.Delta)
		case ActionExpCmdSN:
			addTo(h, 28, f.Delta)
		case ActionMaxCmdSN:
			addTo(h, 32, f.Delta)
		case ActionUnknownITT:
			addTo(h, 16, 0x5a5a5a5a)
		case ActionOversize:
			h.SetDataSegmentLength(f.Bytes)
		case ActionResidual:
			h[1] = h[1]&^0x06 | 0x02
			clear(h[44:48])
			addTo(h, 44, f.Delta)
		default:
			if err := c.commonFault(f); err != nil && c.err == nil {
				c.err = err
			}
			*h = kept // a ping or a message was built in it
		}
		if c.silent {
			return true, as
		}
	}
	return false, as
}

// addTo adds to a four-byte field of a header.
func addTo(h *iscsi.BHS, at, delta int) {
	v := uint32(h[at])<<24 | uint32(h[at+1])<<16 | uint32(h[at+2])<<8 | uint32(h[at+3])
	v += uint32(delta)
	h[at], h[at+1], h[at+2], h[at+3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
}

// dropWithin sends what is pending and n bytes of the PDU in c.h, and ends the
// connection.
func (c *conn) dropWithin(n int, data []byte) {
	_ = c.flush()
	c.mover.truncated(n, data)
	if c.err == nil {
		c.err = fmt.Errorf("fault: connection dropped within a PDU: %w", io.EOF)
	}
}

// hold lets a task wait for its fault's time, or for ever.
func (c *conn) hold(t *task, f *Fault) {
	t.held = true
	if f.Delay == 0 {
		return
	}
	time.AfterFunc(time.Duration(f.Delay), func() {
		c.do(func() {
			if t.aborted || c.session.tasks[t.cmd.InitiatorTaskTag] != t {
				return
			}
			if t.cmd.Write {
				c.complete(t)
				return
			}
			cmd := t.cmd
			c.session.release(t)
			v, u := c.judge(&cmd, nil)
			c.carryOut(&cmd, u, v, nil)
		})
	})
}

// plan cuts the data from offset from to end into R2Ts of this shape.
func (s *R2TShape) plan(from, end, burst uint32) []span {
	if s.Burst > 0 {
		burst = uint32(s.Burst)
	}
	plan := []span{}
	for from < end {
		next := span{from, min(end-from, burst)}
		from += next.size
		if from < end {
			from -= uint32(s.Overlap)
		} else {
			next.size += uint32(s.Beyond)
		}
		plan = append(plan, next)
	}
	if s.Reverse {
		for i, j := 0, len(plan)-1; i < j; i, j = i+1, j-1 {
			plan[i], plan[j] = plan[j], plan[i]
		}
	}
	return plan
}

// r2tForRead asks for the data of a command that has none.
func (c *conn) r2tForRead(cmd *scsiCommand, f *Fault) {
	size := f.R2T.Burst
	if size == 0 {
		size = 512
	}
	c.sendR2T(cmd, burst{ttt: c.nextTTT(), size: uint32(size)}, 0)
}

// sendShaped sends the data of a command as a fault wants it, and reports
// whether there was such a fault.
func (c *conn) sendShaped(cmd *scsiCommand, u *unit, off, total int64, f *Fault) bool {
	switch f.Action {
	case ActionDataReverse, ActionDataGap, ActionDataBeyond, ActionDataShort:
	default:
		return false
	}
	// At least two pieces, so that there is an order to break.
	size := min(int64(c.session.params.MaxSend), max(total/2, 1))
	var pieces []span
	for at := int64(0); at < total; at += size {
		pieces = append(pieces, span{uint32(at), uint32(min(size, total-at))})
	}
	p := iscsi.DataIn{InitiatorTaskTag: cmd.InitiatorTaskTag, TargetTransferTag: iscsi.ReservedTag}
	for i := range pieces {
		s := pieces[i]
		switch {
		case f.Action == ActionDataReverse:
			s = pieces[len(pieces)-1-i]
		case f.Action == ActionDataShort && i >= (len(pieces)+1)/2:
			continue
		}
		for s.size > 0 { // storage may give less than asked for
			data, ref, ok := c.piece(u, off+int64(s.offset), int64(s.size))
			if !ok {
				return false
			}
			p.BufferOffset, p.DataSegmentLength = s.offset, len(data)
			s.offset, s.size = s.offset+uint32(len(data)), s.size-uint32(len(data))
			p.Final = i == len(pieces)-1 && s.size == 0
			if f.Action == ActionDataGap && i == 1 {
				p.DataSN++
			}
			if f.Action == ActionDataBeyond && p.Final {
				p.BufferOffset = cmd.ExpectedDataTransferLength
			}
			p.ExpCmdSN, p.MaxCmdSN = c.window()
			p.Encode(&c.h)
			c.send(data, ref)
			p.DataSN++
		}
	}
	c.respond(cmd, verdict{}, expected(cmd), 0, p.DataSN)
	return true
}
