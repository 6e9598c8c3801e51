package target

import (
	"fmt"
	"net"

	"iscsictl/iscsi"
)

// textState is the text negotiation that a session is in.
type textState struct {
	request []byte // of a request that goes on
	answer  []byte // what is left of an answer that goes on
	ttt     uint32 // of the answer that goes on, 0: none
	chunk   int    // most bytes in one answer; 0: what a PDU may have
	endless bool   // by a fault
}

// onText takes a text request (RFC 7143 §11.10).
func (c *conn) onText(h *iscsi.BHS) error {
	var p iscsi.TextRequest
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
	t := &c.session.text
	switch {
	case p.TargetTransferTag == iscsi.ReservedTag: // a new negotiation
		t.request, t.answer, t.ttt = nil, nil, 0
	case t.ttt == 0 || p.TargetTransferTag != t.ttt:
		c.reject(h, iscsi.RejectInvalidPDUField)
		return nil
	}
	if len(t.answer) > 0 || t.endless && t.ttt != 0 {
		c.sendText(&p)
		return nil
	}
	if len(t.request)+len(c.data) > maxText {
		t.request, t.ttt = nil, 0
		c.reject(h, iscsi.RejectOutOfResources)
		return nil
	}
	t.request = append(t.request, c.data...)
	if p.Continue {
		c.sendText(&p)
		return nil
	}
	keys, err := splitKeys(t.request)
	t.request = nil
	if err != nil {
		c.log.Warn("text request rejected", "error", err)
		c.reject(h, iscsi.RejectProtocolError)
		return nil
	}
	for _, kv := range keys {
		t.answer = c.answerText(t.answer, kv)
	}
	c.sendText(&p)
	return nil
}

// answerText answers one key of a text request.
func (c *conn) answerText(text []byte, kv keyValue) []byte {
	if kv.key != "SendTargets" {
		answer := otherKey(kv.key)
		if keyIndex(kv.key) >= 0 {
			answer = answerReject
		}
		if answer == "" {
			return text
		}
		return appendKey(text, kv.key, answer)
	}
	s := c.session
	switch {
	case kv.value == "All" && s.discovery():
		for _, n := range c.server.nodes {
			text = c.appendTarget(text, n)
		}
	case kv.value == "All": // RFC 7143 appendix C: discovery sessions only
		text = appendKey(text, kv.key, answerReject)
	case kv.value == "" && !s.discovery():
		text = c.appendTarget(text, s.node)
	default:
		if n := c.server.node(kv.value); n != nil {
			text = c.appendTarget(text, n)
		}
	}
	return text
}

// appendTarget appends a target and the addresses where it can be reached
// (RFC 7143 appendix C).
func (c *conn) appendTarget(text []byte, n *node) []byte {
	start := len(text)
	text = appendKey(text, "TargetName", n.Name)
	found := false
	for _, p := range c.server.portals(c.iser) {
		if n.reachable(p.Tag) {
			text = appendKey(text, "TargetAddress", fmt.Sprintf("%s,%d", c.visible(p.Address), p.Tag))
			found = true
		}
	}
	if !found {
		return text[:start]
	}
	return text
}

// visible replaces an address that stands for all addresses of the host with
// the one that the initiator has reached.
func (c *conn) visible(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return address
	}
	local, _, err := net.SplitHostPort(c.local)
	if err != nil {
		return address
	}
	return net.JoinHostPort(local, port)
}

// sendText sends the answer, or its next piece. Without an answer it asks the
// initiator to go on.
func (c *conn) sendText(p *iscsi.TextRequest) {
	t := &c.session.text
	most := c.session.params.MaxSend
	if n := c.session.node; n != nil && n.TextChunk > 0 {
		most = min(most, n.TextChunk)
	}
	if t.chunk > 0 {
		most = min(most, t.chunk)
	}
	if t.endless && len(t.answer) == 0 {
		t.answer = append(t.answer, "X-endless=1\x00"...)
	}
	piece := t.answer[:min(len(t.answer), most)]
	t.answer = t.answer[len(piece):]
	r := iscsi.TextResponse{
		LUN: p.LUN, InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: iscsi.ReservedTag,
		StatSN: c.nextStatSN(), DataSegmentLength: len(piece),
	}
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Continue = len(t.answer) > 0 || t.endless
	r.Final = !r.Continue && !p.Continue && p.Final
	if r.Final {
		t.ttt, t.answer = 0, nil
	} else {
		t.ttt = c.nextTTT()
		r.TargetTransferTag = t.ttt
	}
	r.Encode(&c.h)
	c.send(piece, false)
}
