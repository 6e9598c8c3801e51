package login

import (
	"errors"
	"fmt"

	"iscsictl/iscsi"
	"iscsictl/session/chap"
)

// offerAuthMethod queues AuthMethod. With one-way CHAP the target may do
// without, and None comes first: there are targets that choose CHAP from
// CHAP,None where they want none, and then fail. With mutual CHAP, None is never
// offered, since that would let anyone pass for the target.
func (m *Machine) offerAuthMethod() {
	m.phase = phaseAuthMethod
	switch {
	case m.exchange == nil:
		m.say(iscsi.KeyAuthMethod, iscsi.ValueNone)
	case m.cfg.CHAP.Mutual():
		m.say(iscsi.KeyAuthMethod, iscsi.ValueCHAP)
	default:
		m.say(iscsi.KeyAuthMethod, iscsi.ValueNone+","+iscsi.ValueCHAP)
	}
	m.transit = m.exchange == nil || !m.cfg.CHAP.Mutual()
}

// expected says whether a key of the security stage has its place now.
func (m *Machine) expected(key string) bool {
	switch key {
	case iscsi.KeyAuthMethod:
		return m.phase == phaseAuthMethod
	case iscsi.KeyCHAPAlgorithm, iscsi.KeyCHAPIdentifier, iscsi.KeyCHAPChallenge:
		return m.phase == phaseChallenge
	case iscsi.KeyCHAPName, iscsi.KeyCHAPResponse:
		return m.phase == phaseVerdict && m.result.AuthMethod == iscsi.ValueCHAP && m.cfg.CHAP.Mutual()
	}
	return false
}

// chosen goes on when the target has had AuthMethod.
func (m *Machine) chosen(transit bool) error {
	method, ok := m.security[iscsi.KeyAuthMethod]
	switch {
	case !ok && !transit:
		return nil // an empty answer; ask again
	case !ok:
		m.warnf("the target did not answer AuthMethod and went on without authentication")
		return m.operate()
	case method == iscsi.ValueNone && m.exchange != nil && m.cfg.CHAP.Mutual():
		return fmt.Errorf("login: %w: the target answered AuthMethod=None", ErrMutualCHAPFailed)
	case method == iscsi.ValueNone:
		m.phase = phaseVerdict
		return m.judged(transit)
	case m.exchange == nil && (method == iscsi.ValueCHAP || method == iscsi.ValueReject):
		return fmt.Errorf("login: %w: the target answered AuthMethod=%s; set chapIName and chapSecret", ErrAuthenticationRequired, method)
	case method != iscsi.ValueCHAP:
		return fmt.Errorf("login: %w: the target answered AuthMethod=%.64q", ErrUnsupportedAuthMethod, method)
	case transit:
		return errors.New("login: protocol error: the target chose CHAP, and left the stage without it")
	}
	m.result.AuthMethod = iscsi.ValueCHAP
	m.phase, m.transit = phaseChallenge, false
	m.say(iscsi.KeyCHAPAlgorithm, m.exchange.Offer())
	return nil
}

// challenged goes on when the target has had CHAP_A. It may send its three keys
// one after another.
func (m *Machine) challenged(bool) error {
	a, okA := m.security[iscsi.KeyCHAPAlgorithm]
	if okA && a == iscsi.ValueReject {
		return m.refusedAlgorithms(fmt.Errorf("login: the target takes none of the CHAP algorithms %v", m.exchange.Algorithms()))
	}
	i, okI := m.security[iscsi.KeyCHAPIdentifier]
	c, okC := m.security[iscsi.KeyCHAPChallenge]
	if !okA || !okI || !okC {
		return nil
	}
	answer, err := m.exchange.Answer(a, i, c)
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	m.result.Algorithm = m.exchange.Algorithm()
	m.phase, m.transit = phaseVerdict, true
	m.say(iscsi.KeyCHAPName, answer.Name)
	m.say(iscsi.KeyCHAPResponse, answer.Response)
	if answer.Challenge != "" {
		m.say(iscsi.KeyCHAPIdentifier, answer.Identifier)
		m.say(iscsi.KeyCHAPChallenge, answer.Challenge)
	}
	return nil
}

// judged goes on when the target has had all that it needs to let us in.
func (m *Machine) judged(transit bool) error {
	mutual := m.result.AuthMethod == iscsi.ValueCHAP && m.cfg.CHAP.Mutual()
	if mutual && !m.verified {
		n, okN := m.security[iscsi.KeyCHAPName]
		r, okR := m.security[iscsi.KeyCHAPResponse]
		switch {
		case okN && okR:
			if err := m.exchange.Verify(n, r); err != nil {
				return fmt.Errorf("login: %w: %w", ErrMutualCHAPFailed, err)
			}
			m.verified, m.result.Mutual = true, true
		case transit:
			return fmt.Errorf("login: %w: the target did not authenticate itself", ErrMutualCHAPFailed)
		}
	}
	if transit {
		return m.operate()
	}
	m.transit = true
	return nil
}

// refusedAlgorithms wraps err where something less may do.
func (m *Machine) refusedAlgorithms(err error) error {
	offered := m.exchange.Algorithms()
	if len(offered) == 1 && offered[0] == chap.MD5 {
		return err
	}
	return &AlgorithmRefused{Offered: offered, Err: err}
}
