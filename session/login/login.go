// Package login is the initiator's side of the login phase (RFC 7143 §6.3) as a
// state machine without I/O: it is handed the target's answers and hands out
// the requests to be sent, from the first to the transition to the full-feature
// phase. It covers the security stage (AuthMethod None and CHAP, §12), the
// operational stage (§13), text that is spread over several PDUs (§6.2), and
// every status that a target may end a login with (§11.13.5).
//
// Nothing that a target sends is trusted: text is bounded, and every answer is
// held against what was offered, by the rule of its key.
package login

import (
	"errors"
	"fmt"
	"io"

	"iscsictl/iscsi"
	"iscsictl/session/chap"
	"iscsictl/transport"
)

// CHAPConfig is what is known for CHAP.
type CHAPConfig = chap.Config

// Config says who logs in to what, and what is offered.
type Config struct {
	InitiatorName  string
	InitiatorAlias string // empty: not sent
	TargetName     string // not for discovery
	Discovery      bool

	ISID             [6]byte
	TSIH             uint16 // 0: a new session, or the reinstatement of one (RFC 7143 §6.3.5)
	CID              uint16
	CmdSN            uint32 // of the first command after login
	InitiatorTaskTag uint32

	CHAP         *CHAPConfig // nil: AuthMethod None
	HeaderDigest bool        // prefer CRC32C to None
	DataDigest   bool        // likewise
	Offers       transport.Offers
	Rand         io.Reader // of challenges; needed for mutual CHAP
}

// Result is the outcome of a login.
type Result struct {
	Params               transport.Params
	TSIH                 uint16 // of the session, as the target named it
	ExpStatSN            uint32 // of the next PDU that we send
	CmdSN                uint32 // of the next command
	ExpCmdSN, MaxCmdSN   uint32 // the command window
	TargetAlias          string // printable, at most 255 bytes
	TargetPortalGroupTag int    // iscsi.NoPortalGroup: not stated
	AuthMethod           string // None or CHAP
	Algorithm            chap.Algorithm
	Mutual               bool     // the target has authenticated itself
	ProtocolLevel        int      // iSCSIProtocolLevel
	Warnings             []string // to be logged; texts of the target are quoted in them
}

// phase is what the machine waits for.
type phase uint8

const (
	phaseStart       phase = iota
	phaseAuthMethod        // the choice of AuthMethod
	phaseChallenge         // CHAP_A, CHAP_I and CHAP_C
	phaseVerdict           // the end of the security stage, with CHAP_N and CHAP_R where CHAP is mutual
	phaseOperational       // answers to the operational keys
	phaseDone
)

// Machine is one login. Its methods must not be called concurrently.
type Machine struct {
	cfg      Config
	err      error // ends the login; given again to every later call
	phase    phase
	exchange *chap.Exchange // nil: AuthMethod None
	verified bool           // mutual CHAP has succeeded
	keys     []negotiation  // of the operational stage
	extra    []iscsi.KeyValue

	out     []byte // text that is still to be sent
	transit bool   // leave the stage when out has been sent
	sent    iscsi.LoginRequest
	more    bool   // the target's text goes on in its next PDU
	in      []byte // what has come of it

	answers  int               // PDUs received
	received int               // bytes of text received
	seen     map[string]bool   // keys that the target has sent
	security map[string]string // values of the security stage
	result   Result
}

// New returns a login that has not begun. What is wrong with the configuration,
// the first call of Next says.
func New(cfg Config) *Machine {
	return &Machine{
		cfg:      cfg,
		seen:     make(map[string]bool),
		security: make(map[string]string),
		result: Result{
			CmdSN:                cfg.CmdSN,
			ExpCmdSN:             cfg.CmdSN,
			MaxCmdSN:             cfg.CmdSN,
			TargetPortalGroupTag: iscsi.NoPortalGroup,
			AuthMethod:           iscsi.ValueNone,
		},
	}
}

// Next takes the target's answer (nil at the start) with its data segment
// without padding, and returns the next request with its data segment, which is
// valid until the next call; or done, when the full-feature phase has begun. An
// error ends the login: the connection is to be dropped (RFC 7143 §7.10).
func (m *Machine) Next(resp *iscsi.BHS, data []byte) (req iscsi.BHS, out []byte, done bool, err error) {
	if m.err == nil {
		m.err = m.step(resp, data)
	}
	if m.err != nil {
		return req, nil, false, m.err
	}
	if m.phase == phaseDone {
		return req, nil, true, nil
	}
	req, out = m.request()
	return req, out, false, nil
}

// Result returns the outcome, which is complete after Next has said done.
func (m *Machine) Result() Result { return m.result }

// Lost says what the loss of the connection means: err; an *AlgorithmRefused where
// it was the target's answer to a list of CHAP algorithms; or ErrNoVerdict and err
// where it may have been the answer to our credentials.
func (m *Machine) Lost(err error) error {
	switch {
	case m.err != nil:
	case m.phase == phaseChallenge:
		return m.refusedAlgorithms(err)
	case m.phase == phaseVerdict && m.result.AuthMethod == iscsi.ValueCHAP:
		return fmt.Errorf("%w: %w", ErrNoVerdict, err)
	}
	return err
}

// step takes in one answer.
func (m *Machine) step(resp *iscsi.BHS, data []byte) error {
	if m.phase == phaseStart {
		if resp != nil {
			return errors.New("login: an answer came before the first request")
		}
		return m.start()
	}
	if m.phase == phaseDone {
		return errors.New("login: the login phase is over")
	}
	if resp == nil {
		return errors.New("login: no answer")
	}
	r, err := m.check(resp, data)
	if err != nil {
		return err
	}
	if len(m.out) > 0 {
		// RFC 7143 §6.2: a PDU whose text goes on is answered without text.
		if r.Continue || len(data) > 0 {
			return errors.New("login: the target sent keys before it had all of ours")
		}
		return nil
	}
	m.in = append(m.in, data...)
	if m.more = r.Continue; m.more {
		return nil
	}
	pairs, err := iscsi.ParseKeys(m.in)
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	m.in = m.in[:0]
	if err := m.take(pairs); err != nil {
		return err
	}
	return m.advance(r.Transit)
}

// advance goes on after a complete answer. transit says that the target has
// left the stage.
func (m *Machine) advance(transit bool) error {
	switch m.phase {
	case phaseAuthMethod:
		return m.chosen(transit)
	case phaseChallenge:
		return m.challenged(transit)
	case phaseVerdict:
		return m.judged(transit)
	default:
		if transit {
			return m.finish()
		}
		m.transit = true
		return nil
	}
}

// start queues the first request.
func (m *Machine) start() error {
	if err := m.cfg.check(); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	if c := m.cfg.CHAP; c != nil {
		var err error
		if m.exchange, err = chap.New(*c, m.cfg.Rand); err != nil {
			return fmt.Errorf("login: %w", err)
		}
		for _, w := range c.Warnings() {
			m.warnf("%s", w)
		}
	}
	var err error
	if m.keys, err = offers(&m.cfg); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	m.say(iscsi.KeyInitiatorName, m.cfg.InitiatorName)
	if m.cfg.InitiatorAlias != "" {
		m.say(iscsi.KeyInitiatorAlias, m.cfg.InitiatorAlias)
	}
	if m.cfg.Discovery {
		m.say(iscsi.KeySessionType, iscsi.ValueDiscovery)
	} else {
		m.say(iscsi.KeySessionType, iscsi.ValueNormal)
		m.say(iscsi.KeyTargetName, m.cfg.TargetName)
	}
	m.offerAuthMethod()
	return nil
}

// say queues a key.
func (m *Machine) say(key, value string) { m.out = iscsi.AppendKey(m.out, key, value) }

// maxWarnings bounds Result.Warnings.
const maxWarnings = 32

func (m *Machine) warnf(format string, args ...any) {
	if len(m.result.Warnings) < maxWarnings {
		m.result.Warnings = append(m.result.Warnings, fmt.Sprintf(format, args...))
	}
}
