package login

import (
	"fmt"
	"strconv"
	"strings"

	"iscsictl/iscsi"
)

// kind is how the value of an operational key is written.
type kind uint8

const (
	number   kind = iota
	boolean       // Yes 1, No 0
	digest        // a list of CRC32C and None: 1 and 0
	declared      // a number that each side states for itself
)

// parameter is an operational key and its rule (RFC 7143 §13). With Yes, and
// CRC32C, as 1, all result functions are minima and maxima: AND is the minimum
// of two booleans, OR the maximum.
type parameter struct {
	key    string
	kind   kind
	result func(a, b int) int
	normal bool // irrelevant to discovery
	later  bool // younger than RFC 3720: a target may not know it
}

func minimum(a, b int) int { return min(a, b) }
func maximum(a, b int) int { return max(a, b) }

// parameters are in the order in which they are sent.
var parameters = [...]parameter{
	{iscsi.KeyProtocolLevel, number, minimum, true, true},            // §13.24
	{iscsi.KeyHeaderDigest, digest, minimum, false, false},           // §13.1
	{iscsi.KeyDataDigest, digest, minimum, false, false},             // §13.1
	{iscsi.KeyMaxConnections, number, minimum, true, false},          // §13.2
	{iscsi.KeyInitialR2T, boolean, maximum, true, false},             // §13.10
	{iscsi.KeyImmediateData, boolean, minimum, true, false},          // §13.11
	{iscsi.KeyMaxRecvDataSegmentLength, declared, nil, false, false}, // §13.12
	{iscsi.KeyMaxBurstLength, number, minimum, true, false},          // §13.13
	{iscsi.KeyFirstBurstLength, number, minimum, true, false},        // §13.14
	{iscsi.KeyDefaultTime2Wait, number, maximum, false, false},       // §13.15
	{iscsi.KeyDefaultTime2Retain, number, minimum, false, false},     // §13.16
	{iscsi.KeyMaxOutstandingR2T, number, minimum, true, false},       // §13.17
	{iscsi.KeyDataPDUInOrder, boolean, maximum, true, false},         // §13.18
	{iscsi.KeyDataSequenceInOrder, boolean, maximum, true, false},    // §13.19
	{iscsi.KeyErrorRecoveryLevel, number, minimum, false, false},     // §13.20
}

// bounds returns the range of the key's values, and what holds where nothing
// was negotiated.
func (p *parameter) bounds() iscsi.NumericRange {
	switch p.kind {
	case boolean:
		return iscsi.NumericRange{Min: 0, Max: 1, Default: 1} // Yes, for all four
	case digest:
		return iscsi.NumericRange{Min: 0, Max: 1, Default: 0}
	}
	r, _ := iscsi.RangeOf(p.key)
	return r
}

// find returns the place of a key in parameters.
func find(key string) (int, bool) {
	for i := range parameters {
		if parameters[i].key == key {
			return i, true
		}
	}
	return 0, false
}

// negotiation is what becomes of a parameter.
type negotiation struct {
	*parameter
	offer   int
	offered bool
	settled bool // the target has answered
	value   int
}

// text writes an offer.
func (n *negotiation) text() string {
	switch n.kind {
	case boolean:
		return iscsi.FormatBoolean(n.offer == 1)
	case digest:
		if n.offer == 1 {
			return iscsi.ValueCRC32C + "," + iscsi.ValueNone
		}
		return iscsi.ValueNone
	}
	return strconv.Itoa(n.offer)
}

// parse reads one value, which must be in range.
func (n *negotiation) parse(text string) (int, error) {
	switch {
	case n.kind == boolean && text == iscsi.ValueYes, n.kind == digest && text == iscsi.ValueCRC32C:
		return 1, nil
	case n.kind == boolean && text == iscsi.ValueNo, n.kind == digest && text == iscsi.ValueNone:
		return 0, nil
	case n.kind == number || n.kind == declared:
		r := n.bounds()
		v, err := iscsi.ParseNumber(text, r.Min, r.Max)
		if err != nil {
			return 0, fmt.Errorf("login: the target sent %s: %w", n.key, err)
		}
		return v, nil
	}
	return 0, fmt.Errorf("login: the target sent %s=%.64q, which is not a value of that key", n.key, text)
}

// unanswered is what holds where the target does not choose: the rule, with the
// default in place of an answer.
func (n *negotiation) unanswered() int {
	if !n.offered || n.kind == declared {
		return n.bounds().Default
	}
	return n.result(n.offer, n.bounds().Default)
}

// answer takes the target's answer to an offer (RFC 7143 §6.2), or what it
// declares.
func (n *negotiation) answer(text string) error {
	n.settled = true
	switch text {
	case iscsi.ValueIrrelevant:
		n.value = n.unanswered()
		return nil
	case iscsi.ValueNotUnderstood:
		// §6.2: every initiator and target understands the keys of the RFC.
		if !n.later {
			return fmt.Errorf("login: the target does not understand %s, which every target must", n.key)
		}
		n.value = n.unanswered()
		return nil
	case iscsi.ValueReject:
		if n.later {
			n.value = n.unanswered()
			return nil
		}
		return fmt.Errorf("login: the target rejected %s=%s", n.key, n.text())
	}
	v, err := n.parse(text)
	if err != nil {
		return err
	}
	if n.kind != declared && n.result(n.offer, v) != v {
		return fmt.Errorf("login: the target answered %s=%s to the offer %s", n.key, text, n.text())
	}
	n.value = v
	return nil
}

// listed says whether a list has a value.
func listed(list, value string) bool {
	for v := range strings.SplitSeq(list, ",") {
		if v == value {
			return true
		}
	}
	return false
}
