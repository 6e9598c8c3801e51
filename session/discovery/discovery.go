// Package discovery asks a target for the targets that it knows and for their
// portals: SendTargets (RFC 7143 §4.3 and appendix C) as a state machine without
// I/O, for use in the full-feature phase of a discovery session.
//
// An answer may come in many PDUs and be of any size up to a bound; names and
// addresses that cannot be used are skipped with a warning.
package discovery

import (
	"errors"
	"fmt"

	"iscsictl/iscsi"
)

const (
	// maxAnswer bounds a whole answer, in bytes.
	maxAnswer = 16 << 20
	// maxPDUs bounds the PDUs of an answer, in whatever pieces it comes.
	maxPDUs = 1 << 16
	// maxEmpty bounds those, one after the other, that bring nothing.
	maxEmpty = 8
)

// Config has the numbers of the text request.
type Config struct {
	InitiatorTaskTag uint32
	CmdSN            uint32 // of the next command; the request is immediate and does not use it up
	ExpStatSN        uint32
}

// Result is what a target has said.
type Result struct {
	Targets            []Target // in the order of the answer
	Warnings           []string // to be logged; texts of the target are quoted in them
	ExpStatSN          uint32   // of the next PDU that we send
	ExpCmdSN, MaxCmdSN uint32   // the command window
}

// Machine is one SendTargets request with its answer. Its methods must not be
// called concurrently.
type Machine struct {
	cfg      Config
	started  bool
	done     bool
	err      error // ends the discovery; given again to every later call
	received int
	pdus     int
	empty    int // of these, the last ones without text
	list     list
	result   Result
}

// New returns a request that has not been sent.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, result: Result{ExpStatSN: cfg.ExpStatSN, ExpCmdSN: cfg.CmdSN, MaxCmdSN: cfg.CmdSN}}
}

// Next takes the target's answer (nil at the start) with its data segment
// without padding, and returns the next request with its data segment; or done,
// when the answer is complete. After an error, the session is to be closed.
func (m *Machine) Next(resp *iscsi.BHS, data []byte) (req iscsi.BHS, out []byte, done bool, err error) {
	if m.err == nil && !m.done {
		req, out, m.done, m.err = m.step(resp, data)
	}
	if m.err != nil {
		return iscsi.BHS{}, nil, false, fmt.Errorf("discovery: %w", m.err)
	}
	return req, out, m.done, nil
}

// Result returns what was learnt, which is complete after Next has said done.
func (m *Machine) Result() Result { return m.result }

func (m *Machine) step(resp *iscsi.BHS, data []byte) (req iscsi.BHS, out []byte, done bool, err error) {
	if !m.started {
		if resp != nil {
			return req, nil, false, errors.New("an answer came before the request")
		}
		m.started = true
		out = iscsi.AppendKey(nil, iscsi.KeySendTargets, iscsi.ValueAll)
		return m.request(iscsi.ReservedTag, 0, len(out)), out, false, nil
	}
	if resp == nil {
		return req, nil, false, errors.New("no answer")
	}
	r, err := m.check(resp, data)
	if err != nil {
		return req, nil, false, err
	}
	if err := m.list.add(data); err != nil {
		return req, nil, false, err
	}
	if !r.Final {
		// An empty request with the target's tag fetches the rest (§11.10.4).
		return m.request(r.TargetTransferTag, r.LUN, 0), nil, false, nil
	}
	if err := m.list.end(); err != nil {
		return req, nil, false, err
	}
	m.result.Targets, m.result.Warnings = m.list.targets, m.list.warnings
	return req, nil, true, nil
}

// check decodes an answer and follows its numbers.
func (m *Machine) check(h *iscsi.BHS, data []byte) (r iscsi.TextResponse, err error) {
	m.pdus++
	m.received += len(data)
	if m.empty++; len(data) > 0 {
		m.empty = 0
	}
	switch {
	case m.empty > maxEmpty:
		return r, errors.New("the target announces more text again and again, and sends none")
	case m.received > maxAnswer:
		return r, fmt.Errorf("the target's answer is longer than %d bytes", maxAnswer)
	case m.pdus > maxPDUs:
		return r, fmt.Errorf("the target's answer has no end after %d PDUs", maxPDUs)
	case h.Opcode() == iscsi.OpReject:
		return r, rejected(h)
	}
	if err := r.Decode(h); err != nil {
		return r, err
	}
	switch {
	case r.InitiatorTaskTag != m.cfg.InitiatorTaskTag:
		return r, fmt.Errorf("initiator task tag 0x%08x was answered with 0x%08x", m.cfg.InitiatorTaskTag, r.InitiatorTaskTag)
	case r.DataSegmentLength != len(data):
		return r, fmt.Errorf("%d bytes of text were announced, %d came", r.DataSegmentLength, len(data))
	}
	m.result.ExpStatSN = r.StatSN + 1
	// RFC 7143 §4.2.2.1: of an impossible pair, neither is to be used.
	if !iscsi.SerialLess(r.MaxCmdSN, r.ExpCmdSN-1) {
		m.result.ExpCmdSN, m.result.MaxCmdSN = r.ExpCmdSN, r.MaxCmdSN
	}
	return r, nil
}

func (m *Machine) request(transferTag uint32, lun uint64, length int) (h iscsi.BHS) {
	t := iscsi.TextRequest{
		Immediate:         true,
		Final:             true,
		LUN:               lun,
		InitiatorTaskTag:  m.cfg.InitiatorTaskTag,
		TargetTransferTag: transferTag,
		CmdSN:             m.cfg.CmdSN,
		ExpStatSN:         m.result.ExpStatSN,
		DataSegmentLength: length,
	}
	t.Encode(&h)
	return h
}

func rejected(h *iscsi.BHS) error {
	var r iscsi.Reject
	if err := r.Decode(h); err != nil {
		return err
	}
	return fmt.Errorf("the target rejected SendTargets: %v", r.Reason)
}
