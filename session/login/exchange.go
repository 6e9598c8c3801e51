package login

import (
	"errors"
	"fmt"

	"iscsictl/iscsi"
)

const (
	// maxSegment is the longest data segment of a login PDU in bytes: the
	// default of MaxRecvDataSegmentLength (RFC 7143 §13.12), which holds for
	// both sides until the login phase is over.
	maxSegment = 8192
	// maxReceived bounds all text that a target sends during one login, in bytes.
	maxReceived = 64 << 10
	// maxAnswers bounds the answers of one login. Four do for most targets.
	maxAnswers = 256
)

// request returns the next piece of what is to be sent.
func (m *Machine) request() (h iscsi.BHS, data []byte) {
	if !m.more {
		n := min(len(m.out), maxSegment)
		data, m.out = m.out[:n:n], m.out[n:]
	}
	// Where the target's text goes on, an empty request fetches the rest. It
	// repeats that we are ready, so that the target may leave the stage with
	// the last piece.
	m.sent = iscsi.LoginRequest{
		Continue:          len(m.out) > 0,
		Transit:           len(m.out) == 0 && m.transit,
		CurrentStage:      m.stage(),
		VersionMax:        iscsi.Version,
		VersionMin:        iscsi.Version,
		ISID:              m.cfg.ISID,
		TSIH:              m.cfg.TSIH,
		InitiatorTaskTag:  m.cfg.InitiatorTaskTag,
		CID:               m.cfg.CID,
		CmdSN:             m.cfg.CmdSN,
		ExpStatSN:         m.result.ExpStatSN,
		DataSegmentLength: len(data),
	}
	if m.sent.Transit {
		m.sent.NextStage = iscsi.StageOperational
		if m.phase == phaseOperational {
			m.sent.NextStage = iscsi.StageFullFeature
		}
	}
	m.sent.Encode(&h)
	return h, data
}

func (m *Machine) stage() iscsi.Stage {
	if m.phase == phaseOperational {
		return iscsi.StageOperational
	}
	return iscsi.StageSecurity
}

// check decodes an answer and holds it against the request (RFC 7143 §11.13).
func (m *Machine) check(h *iscsi.BHS, data []byte) (r iscsi.LoginResponse, err error) {
	m.answers++
	m.received += len(data)
	switch {
	case m.answers > maxAnswers:
		return r, fmt.Errorf("login: no end after %d answers", maxAnswers)
	case m.received > maxReceived || len(data) > maxSegment:
		return r, fmt.Errorf("login: the target sent more than %d bytes of keys, or more than %d at once", maxReceived, maxSegment)
	case h.Opcode() == iscsi.OpReject:
		return r, rejected(h)
	}
	if err := r.Decode(h); err != nil {
		return r, fmt.Errorf("login: %w", err)
	}
	if r.DataSegmentLength != len(data) {
		return r, fmt.Errorf("login: %d bytes of keys were announced, %d came", r.DataSegmentLength, len(data))
	}
	if r.Status != iscsi.LoginSuccess {
		return r, m.refused(r.Status, data)
	}
	if err := m.match(&r); err != nil {
		return r, fmt.Errorf("login: protocol error: %w", err)
	}
	m.number(&r)
	return r, nil
}

// match checks the fields that a target copies or must choose from ours.
func (m *Machine) match(r *iscsi.LoginResponse) error {
	switch {
	case r.VersionActive != iscsi.Version:
		return fmt.Errorf("the target chose protocol version 0x%02x; only 0x%02x exists", r.VersionActive, iscsi.Version)
	case r.InitiatorTaskTag != m.cfg.InitiatorTaskTag:
		return fmt.Errorf("initiator task tag 0x%08x was answered with 0x%08x", m.cfg.InitiatorTaskTag, r.InitiatorTaskTag)
	case r.ISID != m.cfg.ISID:
		return fmt.Errorf("ISID %x was answered with %x", m.cfg.ISID, r.ISID)
	case m.cfg.TSIH != 0 && r.TSIH != m.cfg.TSIH:
		return fmt.Errorf("TSIH 0x%04x was answered with 0x%04x", m.cfg.TSIH, r.TSIH)
	case r.CurrentStage != m.sent.CurrentStage:
		return fmt.Errorf("a request of %v was answered as %v", m.sent.CurrentStage, r.CurrentStage)
	case r.Transit && !m.sent.Transit:
		return errors.New("the target left the stage before we were ready")
	case r.Transit && r.NextStage != m.sent.NextStage:
		return fmt.Errorf("the target goes to %v where %v was agreed", r.NextStage, m.sent.NextStage)
	}
	return nil
}

// number follows StatSN and the command window. A wrong StatSN is a warning:
// targets in use number login answers wrongly, and no harm comes of it.
func (m *Machine) number(r *iscsi.LoginResponse) {
	if m.answers > 1 && r.StatSN != m.result.ExpStatSN {
		m.warnf("a login answer has StatSN %d where %d was expected", r.StatSN, m.result.ExpStatSN)
	}
	m.result.ExpStatSN = r.StatSN + 1
	m.result.TSIH = r.TSIH
	// RFC 7143 §4.2.2.1: of an impossible pair, neither is to be used.
	if iscsi.SerialLess(r.MaxCmdSN, r.ExpCmdSN-1) {
		m.warnf("a login answer has MaxCmdSN %d before ExpCmdSN %d", r.MaxCmdSN, r.ExpCmdSN)
		return
	}
	m.result.ExpCmdSN, m.result.MaxCmdSN = r.ExpCmdSN, r.MaxCmdSN
}

func rejected(h *iscsi.BHS) error {
	var r iscsi.Reject
	if err := r.Decode(h); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	return fmt.Errorf("login: the target rejected a login request: %v", r.Reason)
}
