package target

import (
	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// moreImmediate is how many immediate commands may wait beside the window.
const moreImmediate = 64

// scsiCommand is a SCSI Command as it came.
type scsiCommand struct {
	iscsi.SCSICommand
	memory iscsi.ISERHeader // iSER: the initiator's memory for its data
}

// onCommand takes a SCSI Command (RFC 7143 §11.3).
func (c *conn) onCommand(h *iscsi.BHS) error {
	cmd := &c.cmd
	if err := cmd.Decode(h); err != nil {
		return c.broken("%v", err)
	}
	cmd.memory = c.lent
	if err := c.checkMemory(cmd); err != nil {
		return err
	}
	s := c.session
	ok, err := c.takeCmdSN(cmd.CmdSN, cmd.Immediate)
	if err != nil {
		return err
	}
	if !ok {
		return c.skip(cmd.DataSegmentLength)
	}
	if len(s.tasks) > 0 {
		if _, busy := s.tasks[cmd.InitiatorTaskTag]; busy {
			return c.refuse(h, iscsi.RejectTaskInProgress)
		}
		if len(s.tasks) >= s.node.Window+moreImmediate {
			return c.refuse(h, iscsi.RejectTooManyImmediate)
		}
	}
	s.counters.commands.Add(1)
	f := c.commandFault()
	if cmd.Attribute >= iscsi.Ordered { // what was read before must not change any more
		if err := c.flush(); err != nil {
			return err
		}
	}
	if f != nil && f.Action == ActionHold && !cmd.Write {
		t := s.newTask(cmd)
		s.tasks[cmd.InitiatorTaskTag] = t
		c.hold(t, f)
		return c.skip(cmd.DataSegmentLength)
	}
	if cmd.Write {
		v, u := c.judge(cmd, f)
		return c.beginWrite(h, cmd, u, v, f)
	}
	if err := c.skip(cmd.DataSegmentLength); err != nil {
		return err
	}
	v, u := c.judge(cmd, f)
	c.carryOut(cmd, u, v, f)
	return nil
}

// judge finds out what a command asks for.
func (c *conn) judge(cmd *scsiCommand, f *Fault) (verdict, *unit) {
	number, ok := lunNumber(cmd.LUN)
	var u *unit
	if ok {
		u = c.session.node.units.Load().find(number)
	}
	op := scsi.Opcode(cmd.CDB[0])
	if f != nil {
		switch f.Action {
		case ActionStatus:
			return verdict{status: scsi.Status(f.Status)}, u
		case ActionCheck:
			return verdict{status: scsi.CheckCondition, sense: f.Sense.scsi()}, u
		}
	}
	r := &c.request
	*r = request{node: c.session.node, cdb: &cmd.CDB, data: c.params[:0]}
	var v verdict
	switch {
	case cmd.Read && cmd.Write:
		v = illegal(scsi.CodeInvalidOpcode)
	case u == nil:
		v = noSuchUnit(r)
	default:
		if v, ok = c.beforeExecution(u, r, op); !ok {
			v = u.execute(r)
		}
	}
	c.params = r.data
	return v, u
}

func (s Sense) scsi() scsi.Sense {
	return scsi.Sense{Key: s.Key, Code: s.Code, HasInfo: s.Info != 0, Info: s.Info}
}

// noSuchUnit is what a LUN without logical unit answers (SPC-4 §6.4, §6.33,
// §6.39).
func noSuchUnit(r *request) verdict {
	missing := scsi.Sense{Key: scsi.IllegalRequest, Code: scsi.CodeLUNotSupported}
	switch scsi.Opcode(r.cdb[0]) {
	case scsi.OpInquiry:
		return (*unit)(nil).inquiry(r)
	case scsi.OpReportLUNs:
		return (*unit)(nil).reportLUNs(r)
	case scsi.OpRequestSense:
		r.data = appendSense(r.data, missing)
		return r.sendAtMost(uint32(r.cdb[4]))
	}
	return verdict{status: scsi.CheckCondition, sense: missing}
}

// beforeExecution tells unit attentions and forced statuses (SAM-5 §5.14);
// ok means that the command ends with them.
func (c *conn) beforeExecution(u *unit, r *request, op scsi.Opcode) (v verdict, ok bool) {
	forced := u.forced.Load()
	if len(c.session.attention) == 0 && forced == 0 || op == scsi.OpInquiry {
		return v, false
	}
	switch op {
	case scsi.OpReportLUNs:
		c.session.dropAttention(scsi.CodeLUNsChanged)
		return v, false
	case scsi.OpRequestSense:
		code, found := c.session.takeAttention(u.Number)
		if !found || r.cdb[1]&1 != 0 {
			return v, false
		}
		r.data = appendSense(r.data, scsi.Sense{Key: scsi.UnitAttention, Code: code})
		return r.sendAtMost(uint32(r.cdb[4])), true
	}
	if code, found := c.session.takeAttention(u.Number); found {
		return check(scsi.UnitAttention, code), true
	}
	return verdict{status: scsi.Status(forced)}, forced != 0
}

// carryOut does what a command without data from the initiator asks for.
func (c *conn) carryOut(cmd *scsiCommand, u *unit, v verdict, f *Fault) {
	switch v.kind {
	case verdictStatus:
		c.respond(cmd, v, 0, 0, 0)
	case verdictSend:
		c.sendData(cmd, nil, 0, int64(len(c.params)), f)
	case verdictRead:
		if f != nil && f.Action == ActionR2T && f.R2T.ForRead {
			c.r2tForRead(cmd, f)
		}
		c.sendData(cmd, u, v.off, v.n, f)
	case verdictWrite, verdictTake:
		// The CDB wants data that the initiator does not announce.
		c.respond(cmd, illegal(scsi.CodeInvalidFieldInCDB), 0, 0, 0)
	}
}

// expected is how many bytes the initiator expects to be moved.
func expected(cmd *scsiCommand) int64 {
	if !cmd.Read && !cmd.Write {
		return 0
	}
	return int64(cmd.ExpectedDataTransferLength)
}

// respond ends a command with a SCSI Response. moved is how many bytes went
// over the wire, full how many the command has, and pdus the number of R2T and
// Data-In PDUs (RFC 7143 §11.4).
func (c *conn) respond(cmd *scsiCommand, v verdict, moved, full int64, pdus uint32) {
	r := iscsi.SCSIResponse{
		Response: iscsi.ResponseCompleted, Status: uint8(v.status),
		InitiatorTaskTag: cmd.InitiatorTaskTag, StatSN: c.nextStatSN(), ExpDataSN: pdus,
	}
	if c.iser { // RDMA is not counted
		r.ExpDataSN = 0
	}
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Overflow, r.Underflow, r.Residual = residual(expected(cmd), moved, full)
	var sense []byte
	if v.status == scsi.CheckCondition {
		var fixed [18]byte
		c.data = iscsi.AppendResponseSense(c.data[:0], appendSense(fixed[:0], v.sense))
		sense = c.data
	}
	r.DataSegmentLength = len(sense)
	r.Encode(&c.h)
	c.answered = cmd.memory
	c.send(sense, false)
}

// residual compares what was expected with what the command has and what was
// moved (RFC 7143 §11.4.5).
func residual(expected, moved, full int64) (over, under bool, n uint32) {
	switch {
	case full > expected:
		return true, false, uint32(full - expected)
	case moved < expected:
		return false, true, uint32(expected - moved)
	}
	return false, false, 0
}
