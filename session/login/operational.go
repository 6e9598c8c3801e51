package login

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"iscsictl/iscsi"
	"iscsictl/transport"
)

// offers makes up what is said in the operational stage.
func offers(cfg *Config) ([]negotiation, error) {
	o := &cfg.Offers
	values := map[string]int{
		iscsi.KeyProtocolLevel:            2, // RFC 7144
		iscsi.KeyHeaderDigest:             truth(cfg.HeaderDigest && o.Digests && !cfg.Discovery),
		iscsi.KeyDataDigest:               truth(cfg.DataDigest && o.Digests && !cfg.Discovery),
		iscsi.KeyMaxConnections:           1,
		iscsi.KeyInitialR2T:               truth(o.InitialR2T),
		iscsi.KeyImmediateData:            truth(o.ImmediateData),
		iscsi.KeyMaxRecvDataSegmentLength: o.MaxRecvDataSegmentLength,
		iscsi.KeyMaxBurstLength:           o.MaxBurstLength,
		iscsi.KeyFirstBurstLength:         o.FirstBurstLength,
		iscsi.KeyDefaultTime2Wait:         0,
		iscsi.KeyDefaultTime2Retain:       0,
		iscsi.KeyMaxOutstandingR2T:        o.MaxOutstandingR2T,
		iscsi.KeyDataPDUInOrder:           1,
		iscsi.KeyDataSequenceInOrder:      1,
		iscsi.KeyErrorRecoveryLevel:       0,
	}
	keys := make([]negotiation, len(parameters))
	for i := range parameters {
		n := &keys[i]
		*n = negotiation{parameter: &parameters[i], offer: values[parameters[i].key]}
		n.offered = (!cfg.Discovery || !n.normal) && (n.kind != declared || n.offer != 0)
		n.value = n.unanswered()
		if r := n.bounds(); n.offered && (n.offer < r.Min || n.offer > r.Max) {
			return nil, fmt.Errorf("cannot offer %s=%d; it must be from %d to %d", n.key, n.offer, r.Min, r.Max)
		}
	}
	if !cfg.Discovery && o.FirstBurstLength > o.MaxBurstLength {
		return nil, fmt.Errorf("cannot offer FirstBurstLength=%d above MaxBurstLength=%d", o.FirstBurstLength, o.MaxBurstLength)
	}
	return keys, nil
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// operate enters the operational stage: all keys are offered at once.
func (m *Machine) operate() error {
	m.phase, m.transit = phaseOperational, true
	for i := range m.keys {
		if n := &m.keys[i]; n.offered {
			m.say(n.key, n.text())
		}
	}
	if !m.cfg.Discovery {
		for _, kv := range m.cfg.Offers.Extra {
			m.say(kv.Key, kv.Value)
		}
	}
	return nil
}

// take takes in the keys of one complete answer.
func (m *Machine) take(pairs []iscsi.KeyValue) error {
	for _, kv := range pairs {
		// RFC 7143 §6.3: a key that comes again ends the login.
		if m.seen[kv.Key] {
			return fmt.Errorf("login: protocol error: the target sent %.64q twice", kv.Key)
		}
		m.seen[kv.Key] = true
		if err := m.takeKey(kv); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) takeKey(kv iscsi.KeyValue) error {
	switch kv.Key {
	case iscsi.KeyTargetAlias:
		m.result.TargetAlias = clean(kv.Value, maxText)
		return nil
	case iscsi.KeyTargetPortalGroupTag:
		tag, err := iscsi.ParseNumber(kv.Value, 0, 65535)
		if err != nil {
			return fmt.Errorf("login: the target sent %s: %w", kv.Key, err)
		}
		m.result.TargetPortalGroupTag = tag
		return nil
	case iscsi.KeyInitiatorName, iscsi.KeyInitiatorAlias, iscsi.KeySessionType, iscsi.KeyTargetName:
		return m.takeDeclared(kv)
	case iscsi.KeyAuthMethod, iscsi.KeyCHAPAlgorithm, iscsi.KeyCHAPIdentifier, iscsi.KeyCHAPChallenge,
		iscsi.KeyCHAPName, iscsi.KeyCHAPResponse:
		if !m.expected(kv.Key) {
			return fmt.Errorf("login: protocol error: the target sent %s out of turn", kv.Key)
		}
		m.security[kv.Key] = kv.Value
		return nil
	}
	if i, ok := find(kv.Key); ok {
		return m.takeParameter(&m.keys[i], kv.Value)
	}
	if m.phase == phaseOperational && !m.cfg.Discovery &&
		slices.ContainsFunc(m.cfg.Offers.Extra, func(e iscsi.KeyValue) bool { return e.Key == kv.Key }) {
		m.extra = append(m.extra, kv)
		return nil
	}
	m.reply(kv)
	return nil
}

// takeDeclared takes an answer to what we state about ourselves, which needs
// none but for saying that it was not taken.
func (m *Machine) takeDeclared(kv iscsi.KeyValue) error {
	switch kv.Value {
	case iscsi.ValueNotUnderstood, iscsi.ValueReject:
		if kv.Key != iscsi.KeyInitiatorAlias {
			return fmt.Errorf("login: the target answered %s=%s", kv.Key, kv.Value)
		}
	}
	m.warnf("the target answered %s=%.64q", kv.Key, kv.Value)
	return nil
}

func (m *Machine) takeParameter(n *negotiation, value string) error {
	switch {
	case m.phase != phaseOperational:
		return fmt.Errorf("login: protocol error: the target sent %s outside of the operational stage", n.key)
	case n.offered || n.kind == declared:
		return n.answer(value)
	case reserved(value):
		return fmt.Errorf("login: protocol error: the target answered %s=%s, which was not offered", n.key, value)
	}
	m.say(n.key, iscsi.ValueIrrelevant) // discovery
	return nil
}

// reply answers a key that the target offers by itself and that is not
// negotiated here.
func (m *Machine) reply(kv iscsi.KeyValue) {
	switch {
	case reserved(kv.Value):
		// An answer to nothing. To answer that would go on for ever.
		m.warnf("the target answered %.64q=%s, which was not offered", kv.Key, kv.Value)
	case kv.Key == iscsi.KeyTaskReporting && listed(kv.Value, iscsi.ValueRFC3720):
		m.say(kv.Key, iscsi.ValueRFC3720) // §13.23, the default
	case kv.Key == iscsi.KeyIFMarker, kv.Key == iscsi.KeyOFMarker:
		m.say(kv.Key, iscsi.ValueNo) // §13.25; targets of RFC 3720 would take Reject for a failure
	case kv.Key == iscsi.KeyIFMarkInt, kv.Key == iscsi.KeyOFMarkInt, kv.Key == iscsi.KeyTaskReporting:
		m.say(kv.Key, iscsi.ValueReject) // §13.25
	default:
		m.say(kv.Key, iscsi.ValueNotUnderstood) // §6.2
	}
}

// reserved says that a value is one of the constants that only answer.
func reserved(value string) bool {
	return value == iscsi.ValueNotUnderstood || value == iscsi.ValueIrrelevant || value == iscsi.ValueReject
}

// finish ends the login: the target has entered the full-feature phase.
func (m *Machine) finish() error {
	if m.result.TSIH == 0 {
		return errors.New("login: protocol error: the target began a session without a TSIH")
	}
	if len(m.out) > 0 {
		m.warnf("the target went on before %.64q could be answered", strings.TrimRight(string(m.out), "\x00"))
		m.out = nil
	}
	for i := range m.keys {
		// Linux's target is silent on what is the default already.
		if n := &m.keys[i]; n.offered && !n.settled && n.kind != declared && !n.later && n.value != n.offer {
			m.warnf("the target did not answer %s=%s", n.key, n.text())
		}
	}
	m.warnDigest(iscsi.KeyHeaderDigest, m.cfg.HeaderDigest)
	m.warnDigest(iscsi.KeyDataDigest, m.cfg.DataDigest)
	p := m.params()
	if err := checkBursts(&p); err != nil {
		return err
	}
	if check := m.cfg.Offers.Check; check != nil && !m.cfg.Discovery {
		if err := check(m.extra); err != nil {
			return fmt.Errorf("login: %w", err)
		}
	}
	m.result.Params, m.result.ProtocolLevel = p, m.value(iscsi.KeyProtocolLevel)
	m.phase = phaseDone
	return nil
}

// warnDigest warns where a digest was wanted and is not to be had.
func (m *Machine) warnDigest(key string, wanted bool) {
	if wanted && !m.cfg.Discovery && m.value(key) == 0 {
		m.warnf("%s CRC32C was asked for; the session goes on without", key)
	}
}

func (m *Machine) value(key string) int {
	i, _ := find(key)
	return m.keys[i].value
}

func (m *Machine) params() transport.Params {
	p := transport.Params{
		HeaderDigest:             m.value(iscsi.KeyHeaderDigest) == 1,
		DataDigest:               m.value(iscsi.KeyDataDigest) == 1,
		MaxRecvDataSegmentLength: m.cfg.Offers.MaxRecvDataSegmentLength,
		MaxSendDataSegmentLength: m.value(iscsi.KeyMaxRecvDataSegmentLength),
		MaxBurstLength:           m.value(iscsi.KeyMaxBurstLength),
		FirstBurstLength:         m.value(iscsi.KeyFirstBurstLength),
		ImmediateData:            m.value(iscsi.KeyImmediateData) == 1,
		InitialR2T:               m.value(iscsi.KeyInitialR2T) == 1,
		MaxOutstandingR2T:        m.value(iscsi.KeyMaxOutstandingR2T),
		DataPDUInOrder:           m.value(iscsi.KeyDataPDUInOrder) == 1,
		DataSequenceInOrder:      m.value(iscsi.KeyDataSequenceInOrder) == 1,
		DefaultTime2Wait:         time.Duration(m.value(iscsi.KeyDefaultTime2Wait)) * time.Second,
		DefaultTime2Retain:       time.Duration(m.value(iscsi.KeyDefaultTime2Retain)) * time.Second,
		ErrorRecoveryLevel:       m.value(iscsi.KeyErrorRecoveryLevel),
		MaxTransfer:              m.cfg.Offers.MaxTransfer,
		LooseStatSN:              m.cfg.Offers.LooseStatSN,
		Extra:                    m.extra,
	}
	if p.MaxRecvDataSegmentLength == 0 {
		p.MaxRecvDataSegmentLength = maxSegment
	}
	return p
}

// checkBursts checks that FirstBurstLength does not exceed MaxBurstLength
// (RFC 7143 §13.14). Where no unsolicited data is ever sent, it means nothing.
func checkBursts(p *transport.Params) error {
	if p.FirstBurstLength <= p.MaxBurstLength {
		return nil
	}
	if p.ImmediateData || !p.InitialR2T {
		return fmt.Errorf("login: the target chose FirstBurstLength=%d above MaxBurstLength=%d", p.FirstBurstLength, p.MaxBurstLength)
	}
	p.FirstBurstLength = p.MaxBurstLength
	return nil
}
