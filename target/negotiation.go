package target

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// keyRule is how the outcome of a key follows from the two offers
// (RFC 7143 §6.2, §13).
type keyRule uint8

const (
	ruleMin     keyRule = iota // the smaller number
	ruleMax                    // the greater number
	ruleAnd                    // Yes if both say Yes
	ruleOr                     // Yes if one says Yes
	ruleDigest                 // the first digest in the initiator's list that is allowed here
	ruleDeclare                // each side's own number
)

// keySpec is an operational key.
type keySpec struct {
	name      string
	rule      keyRule
	low, high int
	initial   int    // without negotiation (RFC 7143 §13); Yes and CRC32C are 1
	own       string // this target's side if it is not configured
	anySide   bool   // means something in discovery sessions too
	iser      bool   // means something with iSER only (RFC 7145 §6)
}

// Indices of the keys in operationalKeys.
const (
	keyHeaderDigest = iota
	keyDataDigest
	keyMaxConnections
	keyInitialR2T
	keyImmediateData
	keyMaxRecv
	keyMaxBurst
	keyFirstBurst
	keyTime2Wait
	keyTime2Retain
	keyMaxOutstandingR2T
	keyPDUInOrder
	keySequenceInOrder
	keyRecoveryLevel
	keyProtocolLevel
	keyRDMAExtensions
	keyInitiatorRecv
	keyTargetRecv
	numKeys
)

const maxSegment = 1<<24 - 1

var operationalKeys = [numKeys]keySpec{
	keyHeaderDigest:      {"HeaderDigest", ruleDigest, 0, 1, 0, "CRC32C,None", true, false},
	keyDataDigest:        {"DataDigest", ruleDigest, 0, 1, 0, "CRC32C,None", true, false},
	keyMaxConnections:    {"MaxConnections", ruleMin, 1, 65535, 1, "1", false, false},
	keyInitialR2T:        {"InitialR2T", ruleOr, 0, 1, 1, "No", false, false},
	keyImmediateData:     {"ImmediateData", ruleAnd, 0, 1, 1, "Yes", false, false},
	keyMaxRecv:           {"MaxRecvDataSegmentLength", ruleDeclare, 512, maxSegment, 8192, "262144", true, false},
	keyMaxBurst:          {"MaxBurstLength", ruleMin, 512, maxSegment, 262144, "1048576", false, false},
	keyFirstBurst:        {"FirstBurstLength", ruleMin, 512, maxSegment, 65536, "262144", false, false},
	keyTime2Wait:         {"DefaultTime2Wait", ruleMax, 0, 3600, 2, "0", true, false},
	keyTime2Retain:       {"DefaultTime2Retain", ruleMin, 0, 3600, 20, "0", true, false},
	keyMaxOutstandingR2T: {"MaxOutstandingR2T", ruleMin, 1, 65535, 1, "16", false, false},
	keyPDUInOrder:        {"DataPDUInOrder", ruleOr, 0, 1, 1, "Yes", false, false},
	keySequenceInOrder:   {"DataSequenceInOrder", ruleOr, 0, 1, 1, "Yes", false, false},
	keyRecoveryLevel:     {"ErrorRecoveryLevel", ruleMin, 0, 2, 0, "0", true, false},
	keyProtocolLevel:     {"iSCSIProtocolLevel", ruleMin, 0, 31, 1, "1", true, false},
	keyRDMAExtensions:    {"RDMAExtensions", ruleAnd, 0, 1, 0, "Yes", false, true},
	keyInitiatorRecv:     {"InitiatorRecvDataSegmentLength", ruleMin, 512, maxSegment, 8192, "8192", false, true},
	keyTargetRecv:        {"TargetRecvDataSegmentLength", ruleMin, 512, maxSegment, 8192, "8192", false, true},
}

// Answers that are no values (RFC 7143 §6.2).
const (
	answerNotUnderstood = "NotUnderstood"
	answerIrrelevant    = "Irrelevant"
	answerReject        = "Reject"
)

// DefaultKeys returns this target's side of the negotiation where nothing is
// configured.
func DefaultKeys() map[string]string {
	m := make(map[string]string, numKeys)
	for _, k := range operationalKeys {
		m[k.name] = k.own
	}
	return m
}

// ownKeys is a target's side of the negotiation.
type ownKeys struct {
	value  [numKeys]int // ruleDigest: unused
	digest [numKeys][2]bool
	text   [numKeys]string
	offer  [numKeys]bool
}

func newOwnKeys(set map[string]string, offer []string) (*ownKeys, error) {
	o := &ownKeys{}
	left := maps.Clone(set)
	for i, k := range operationalKeys {
		text, ok := set[k.name]
		if !ok {
			text = k.own
		}
		delete(left, k.name)
		if err := o.set(i, text); err != nil {
			return nil, err
		}
		o.offer[i] = slices.Contains(offer, k.name)
	}
	for name := range left {
		return nil, fmt.Errorf("key %s: not an operational key of a target", name)
	}
	for _, name := range offer {
		if keyIndex(name) < 0 {
			return nil, fmt.Errorf("key %s cannot be offered", name)
		}
	}
	switch {
	case o.value[keyMaxConnections] != 1:
		return nil, fmt.Errorf("MaxConnections=%s: only 1 is served", o.text[keyMaxConnections])
	case o.value[keyInitiatorRecv] > iserSegment, o.value[keyTargetRecv] > iserSegment:
		return nil, fmt.Errorf("data segments on iSER have at most %d bytes here", iserSegment)
	case o.value[keyRecoveryLevel] != 0:
		return nil, fmt.Errorf("ErrorRecoveryLevel=%s: only 0 is served", o.text[keyRecoveryLevel])
	}
	return o, nil
}

func (o *ownKeys) set(i int, text string) error {
	k := &operationalKeys[i]
	o.text[i] = text
	if k.rule != ruleDigest {
		v, err := k.parse(text)
		o.value[i] = v
		return err
	}
	for _, d := range strings.Split(text, ",") {
		switch d {
		case "None":
			o.digest[i][0] = true
		case "CRC32C":
			o.digest[i][1] = true
		default:
			return fmt.Errorf("key %s=%s: want None, CRC32C or both with a comma", k.name, text)
		}
	}
	return nil
}

func keyIndex(name string) int {
	for i := range operationalKeys {
		if operationalKeys[i].name == name {
			return i
		}
	}
	return -1
}

// parse reads a value of the key, which is not a list.
func (k *keySpec) parse(text string) (int, error) {
	switch k.rule {
	case ruleAnd, ruleOr:
		switch text {
		case "Yes":
			return 1, nil
		case "No":
			return 0, nil
		}
		return 0, fmt.Errorf("key %s=%.40s: want Yes or No", k.name, text)
	}
	n, err := parseNumber(text)
	if err != nil || n < k.low || n > k.high {
		return 0, fmt.Errorf("key %s=%.40s: want a number from %d to %d", k.name, text, k.low, k.high)
	}
	return n, nil
}

// parseNumber reads a numerical value in decimal or 0x hexadecimal
// (RFC 7143 §6.1), without leading signs or spaces.
func parseNumber(text string) (int, error) {
	base := 10
	if len(text) > 2 && text[0] == '0' && text[1]|0x20 == 'x' {
		text, base = text[2:], 16
	}
	n, err := strconv.ParseUint(text, base, 32)
	return int(n), err
}

// format writes a value of the key.
func (k *keySpec) format(v int) string {
	switch k.rule {
	case ruleAnd, ruleOr:
		return [2]string{"No", "Yes"}[v]
	case ruleDigest:
		return [2]string{"None", "CRC32C"}[v]
	}
	return strconv.Itoa(v)
}

// negotiation is the state of the operational keys of one login.
type negotiation struct {
	own       *ownKeys
	discovery bool
	iser      bool
	value     [numKeys]int
	seen      [numKeys]bool // the initiator has spoken
	offered   [numKeys]bool // proposed by us, not answered yet
	declared  bool          // our MaxRecvDataSegmentLength is told
}

func newNegotiation(own *ownKeys, discovery, iser bool) *negotiation {
	n := &negotiation{own: own, discovery: discovery, iser: iser}
	for i := range operationalKeys {
		n.value[i] = operationalKeys[i].initial
	}
	return n
}

// take takes a key of the initiator and returns the answer, "" for none.
// An error ends the login (RFC 7143 §7.12).
func (n *negotiation) take(name, value string) (answer string, err error) {
	i := keyIndex(name)
	if i < 0 || operationalKeys[i].iser && !n.iser {
		return otherKey(name), nil
	}
	k := &operationalKeys[i]
	if n.seen[i] {
		return "", fmt.Errorf("key %s: negotiated twice", name)
	}
	n.seen[i] = true
	if n.offered[i] {
		n.offered[i] = false
		return "", n.answered(i, value)
	}
	if n.discovery && !k.anySide {
		return answerIrrelevant, nil
	}
	if k.rule == ruleDigest {
		v, err := n.chooseDigest(i, value)
		n.value[i] = v
		return k.format(v), err
	}
	v, err := k.parse(value)
	if err != nil {
		return "", err
	}
	if k.rule == ruleDeclare {
		n.value[i] = v
		return "", nil
	}
	n.value[i] = k.outcome(v, n.own.value[i])
	return k.format(n.value[i]), nil
}

func (k *keySpec) outcome(a, b int) int {
	switch k.rule {
	case ruleMax, ruleOr:
		return max(a, b)
	}
	return min(a, b)
}

func (n *negotiation) chooseDigest(i int, list string) (int, error) {
	for _, d := range strings.Split(list, ",") {
		switch {
		case d == "None" && (n.own.digest[i][0] || n.iser):
			return 0, nil
		case d == "CRC32C" && n.own.digest[i][1] && !n.iser:
			return 1, nil
		}
	}
	return 0, fmt.Errorf("key %s=%.80s: nothing in it is among %s", operationalKeys[i].name, list, n.own.text[i])
}

// answered takes the initiator's answer to what we proposed.
func (n *negotiation) answered(i int, value string) error {
	k := &operationalKeys[i]
	switch value {
	case answerNotUnderstood, answerIrrelevant, answerReject:
		return nil
	}
	if k.rule == ruleDigest {
		v, err := n.chooseDigest(i, value)
		n.value[i] = v
		return err
	}
	v, err := k.parse(value)
	if err == nil && k.outcome(v, n.own.value[i]) != v {
		err = fmt.Errorf("key %s: answer %s does not follow from our %s", k.name, value, n.own.text[i])
	}
	n.value[i] = v
	return err
}

// otherKey answers keys that need no negotiation here.
func otherKey(name string) string {
	switch name {
	case "IFMarker", "OFMarker": // obsolete: RFC 7143 §13.25
		return "No"
	case "IFMarkInt", "OFMarkInt":
		return answerReject
	case "RDMAExtensions":
		return "No"
	case "TaskReporting":
		return "RFC3720"
	case "InitiatorAlias":
		return ""
	}
	return answerNotUnderstood
}

// proposals appends what the target says of its own accord in the operational
// stage: its MaxRecvDataSegmentLength, which iSER has no use for, and what it
// was told to offer.
func (n *negotiation) proposals(text []byte) []byte {
	if !n.declared && !n.iser {
		n.declared = true
		text = appendKey(text, operationalKeys[keyMaxRecv].name, n.own.text[keyMaxRecv])
	}
	for i := range operationalKeys {
		if n.own.offer[i] && i != keyMaxRecv && (n.iser || !operationalKeys[i].iser) && !n.seen[i] && !n.offered[i] && (!n.discovery || operationalKeys[i].anySide) {
			n.offered[i] = true
			text = appendKey(text, operationalKeys[i].name, n.own.text[i])
		}
	}
	return text
}

// open tells that an answer to a proposal is still to come.
func (n *negotiation) open() bool { return slices.Contains(n.offered[:], true) }

// Params are the operational parameters of a session as negotiated.
type Params struct {
	HeaderDigest, DataDigest bool
	InitialR2T               bool
	ImmediateData            bool
	DataPDUInOrder           bool
	DataSequenceInOrder      bool
	MaxSend                  int // bytes in a data segment to the initiator: its MaxRecvDataSegmentLength
	MaxRecv                  int // bytes in a data segment to the target
	MaxBurstLength           int // bytes
	FirstBurstLength         int // bytes
	MaxOutstandingR2T        int
	DefaultTime2Wait         int // seconds
	DefaultTime2Retain       int // seconds
	RDMAExtensions           bool
}

func (n *negotiation) params() Params {
	v := &n.value
	p := Params{
		HeaderDigest:        v[keyHeaderDigest] == 1,
		DataDigest:          v[keyDataDigest] == 1,
		InitialR2T:          v[keyInitialR2T] == 1,
		ImmediateData:       v[keyImmediateData] == 1,
		DataPDUInOrder:      v[keyPDUInOrder] == 1,
		DataSequenceInOrder: v[keySequenceInOrder] == 1,
		MaxSend:             v[keyMaxRecv],
		MaxRecv:             operationalKeys[keyMaxRecv].initial,
		MaxBurstLength:      v[keyMaxBurst],
		FirstBurstLength:    min(v[keyFirstBurst], v[keyMaxBurst]),
		MaxOutstandingR2T:   v[keyMaxOutstandingR2T],
		DefaultTime2Wait:    v[keyTime2Wait],
		DefaultTime2Retain:  v[keyTime2Retain],
		RDMAExtensions:      v[keyRDMAExtensions] == 1,
	}
	if n.iser { // RFC 7145 §6.4, §6.5
		p.MaxSend, p.MaxRecv = v[keyInitiatorRecv], v[keyTargetRecv]
		return p
	}
	if n.declared {
		p.MaxRecv = n.own.value[keyMaxRecv]
	}
	return p
}

// appendKey appends key=value and its terminating zero byte.
func appendKey(text []byte, key, value string) []byte {
	text = append(text, key...)
	text = append(text, '=')
	text = append(text, value...)
	return append(text, 0)
}

// keyValue is one key=value pair.
type keyValue struct{ key, value string }

// maxText is the most text in one negotiation step, in bytes.
const maxText = 64 << 10

// splitKeys takes text apart (RFC 7143 §6.1).
func splitKeys(text []byte) ([]keyValue, error) {
	var list []keyValue
	if len(text) > 0 && text[len(text)-1] != 0 {
		return nil, fmt.Errorf("text of %d bytes does not end in a zero byte", len(text))
	}
	for _, pair := range strings.Split(string(text), "\x00") {
		if pair == "" { // zero bytes as padding are not forbidden
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" || len(key) > 63 {
			return nil, fmt.Errorf("text %.70q is not key=value", pair)
		}
		if len(list) == 1024 {
			return nil, fmt.Errorf("more than %d keys", len(list))
		}
		list = append(list, keyValue{key, value})
	}
	return list, nil
}
