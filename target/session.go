package target

import (
	"log/slog"
	"sync/atomic"

	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// session is what a connection is once it is logged in. Its fields belong to
// the connection's lock; those that are set by login do not change.
type session struct {
	initiator string
	isid      [6]byte
	tsih      uint16
	cid       uint16
	node      *node // nil: a discovery session
	user      string
	params    Params

	counters counters

	tasks   map[uint32]*task // by initiator task tag: those that wait for something
	free    *task
	lastTTT uint32

	attention map[int][]scsi.Code // unit attentions to be told, by LUN
	ping      uint32              // target transfer tag of an unanswered NOP-In, 0: none
	text      textState
}

// counters are read by others while the connection runs.
type counters struct {
	pdusIn, pdusOut         atomic.Uint64
	commands                atomic.Uint64
	r2ts                    atomic.Uint64
	ackAhead                atomic.Uint64
	bytesRead, bytesWritten atomic.Uint64
	rdmaReads, rdmaWrites   atomic.Uint64
}

func (s *session) discovery() bool { return s.node == nil }

// end drops all tasks: nothing of this session happens any more.
func (s *session) end() {
	for _, t := range s.tasks {
		t.abort()
	}
	clear(s.tasks)
}

// attend notes a unit attention for a LUN, once.
func (s *session) attend(lun int, code scsi.Code) {
	if s.attention == nil {
		s.attention = make(map[int][]scsi.Code)
	}
	for _, have := range s.attention[lun] {
		if have == code {
			return
		}
	}
	s.attention[lun] = append(s.attention[lun], code)
}

func (s *session) attendAll(code scsi.Code) {
	for _, u := range s.node.units.Load().list {
		s.attend(u.Number, code)
	}
}

// takeAttention removes the oldest unit attention of a LUN.
func (s *session) takeAttention(lun int) (scsi.Code, bool) {
	list := s.attention[lun]
	if len(list) == 0 {
		return 0, false
	}
	if len(list) == 1 {
		delete(s.attention, lun)
	} else {
		s.attention[lun] = list[1:]
	}
	return list[0], true
}

// dropAttention removes a unit attention from all LUNs.
func (s *session) dropAttention(code scsi.Code) {
	for lun, list := range s.attention {
		kept := list[:0]
		for _, have := range list {
			if have != code {
				kept = append(kept, have)
			}
		}
		s.attention[lun] = kept
		if len(kept) == 0 {
			delete(s.attention, lun)
		}
	}
}

// LogValue shows the parameters in a log line.
func (p Params) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Bool("HeaderDigest", p.HeaderDigest), slog.Bool("DataDigest", p.DataDigest),
		slog.Bool("InitialR2T", p.InitialR2T), slog.Bool("ImmediateData", p.ImmediateData),
		slog.Int("MaxSend", p.MaxSend), slog.Int("MaxRecv", p.MaxRecv),
		slog.Int("MaxBurstLength", p.MaxBurstLength), slog.Int("FirstBurstLength", p.FirstBurstLength),
		slog.Int("MaxOutstandingR2T", p.MaxOutstandingR2T),
		slog.Bool("RDMAExtensions", p.RDMAExtensions))
}

// onNOPOut answers a ping, or takes the answer to ours (RFC 7143 §11.18).
func (c *conn) onNOPOut(h *iscsi.BHS) error {
	var p iscsi.NOPOut
	if err := p.Decode(h); err != nil {
		return c.broken("%v", err)
	}
	ok, err := c.collect(h)
	if err != nil || !ok {
		return err
	}
	if ok, err := c.takeCmdSN(p.CmdSN, p.Immediate); err != nil || !ok {
		return err
	}
	if p.TargetTransferTag != iscsi.ReservedTag {
		if c.session.ping != p.TargetTransferTag {
			return c.broken("NOP-Out answers a NOP-In with tag %#x that was not sent", p.TargetTransferTag)
		}
		c.session.ping = 0
		return nil
	}
	if p.InitiatorTaskTag == iscsi.ReservedTag {
		return nil
	}
	data := c.data[:min(len(c.data), c.session.params.MaxSend)]
	r := iscsi.NOPIn{
		InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: iscsi.ReservedTag,
		StatSN: c.nextStatSN(), DataSegmentLength: len(data),
	}
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Encode(&c.h)
	c.send(data, false)
	return nil
}

// sendPing asks for an answer (RFC 7143 §11.19); one at a time.
func (c *conn) sendPing() {
	if c.session.ping != 0 {
		return
	}
	c.session.ping = c.nextTTT()
	c.sendNOPIn(c.session.ping)
}

// sendNOPIn sends a NOP-In of the target's own accord; StatSN is not consumed.
func (c *conn) sendNOPIn(ttt uint32) {
	r := iscsi.NOPIn{InitiatorTaskTag: iscsi.ReservedTag, TargetTransferTag: ttt, StatSN: c.statSN}
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Encode(&c.h)
	c.send(nil, false)
}

func (c *conn) nextTTT() uint32 {
	s := c.session
	s.lastTTT++
	if s.lastTTT == iscsi.ReservedTag || s.lastTTT == 0 {
		s.lastTTT = 1
	}
	return s.lastTTT
}

// onLogout ends the session (RFC 7143 §11.14).
func (c *conn) onLogout(h *iscsi.BHS) error {
	var p iscsi.LogoutRequest
	if err := p.Decode(h); err != nil {
		return c.broken("%v", err)
	}
	if err := c.skip(h.DataSegmentLength()); err != nil {
		return err
	}
	if ok, err := c.takeCmdSN(p.CmdSN, p.Immediate); err != nil || !ok {
		return err
	}
	code := iscsi.LogoutSuccess
	switch {
	case p.Reason == iscsi.LogoutRemoveForRecovery:
		code = iscsi.LogoutRecoveryNotSupported
	case p.Reason == iscsi.LogoutCloseConnection && p.CID != c.session.cid:
		code = iscsi.LogoutCIDNotFound
	default:
		c.session.end()
	}
	r := iscsi.LogoutResponse{
		Response: code, InitiatorTaskTag: p.InitiatorTaskTag, StatSN: c.nextStatSN(),
		Time2Wait: uint16(c.session.params.DefaultTime2Wait), Time2Retain: uint16(c.session.params.DefaultTime2Retain),
	}
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Encode(&c.h)
	c.send(nil, false)
	if code != iscsi.LogoutSuccess {
		return nil
	}
	if c.silent {
		return nil
	}
	return errDone
}
