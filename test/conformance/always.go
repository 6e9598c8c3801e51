package conformance

import (
	"bytes"
	"fmt"
)

// always judges what holds for every initiator at any time. It returns what is
// wrong, a line each.
func always(pdus []*pdu) (wrong []string) {
	bad := func(p *pdu, format string, args ...any) {
		if len(wrong) < 10 {
			wrong = append(wrong, fmt.Sprintf(format, args...)+"\n    "+p.String())
		}
	}
	type numbers struct {
		next    uint32 // CmdSN
		begun   bool
		pending map[uint32]byte // ITT: opcode
		limit   int             // what the target takes (§13.12)
		expStat uint32
		heard   bool
	}
	conns := map[int]*numbers{}
	for _, p := range pdus {
		c := conns[p.conn]
		if c == nil {
			c = &numbers{pending: map[uint32]byte{}, limit: 8192}
			conns[p.conn] = c
		}
		if !p.sent {
			if v, ok := p.text("MaxRecvDataSegmentLength"); ok && p.opcode() == loginResponse {
				fmt.Sscan(v, &c.limit)
			}
			switch p.opcode() {
			case scsiResponse, taskResponse, logoutResponse:
				delete(c.pending, p.itt())
			case dataIn:
				if p.h[1]&1 != 0 {
					delete(c.pending, p.itt())
				}
			case nopIn, textResponse:
				delete(c.pending, p.itt())
			}
			continue
		}
		for i, what := range []string{"header", "data"} {
			if p.digest[i] != "" {
				bad(p, "§7.8: %s %s", what, p.digest[i])
			}
		}
		if !bytes.Equal(p.pad, make([]byte, len(p.pad))) {
			bad(p, "§11.1: padding should be sent as 0: % x", p.pad)
		}
		if len(p.data) > c.limit {
			bad(p, "§13.12: %d bytes of data, the target takes %d", len(p.data), c.limit)
		}
		switch p.opcode() {
		case nopOut, scsiCommand, taskManagement, loginRequest, textRequest, dataOut, logoutRequest:
		case snackRequest:
			bad(p, "§11.16: SNACK at ErrorRecoveryLevel 0")
		default:
			bad(p, "§11.2.1.2: operation code 0x%02x is not an initiator's", p.opcode())
		}
		if p.opcode() == loginRequest {
			if !p.immediate() {
				bad(p, "§11.12: a login request is immediate")
			}
			c.next, c.begun = p.cmdSN(), true
			continue
		}
		// §4.2.2.2: StatSN is acknowledged by its successor, and never one
		// that was not sent.
		if before(p.statSN+1, p.expStatSN()) {
			bad(p, "§4.2.2.2: ExpStatSN %d, but the last StatSN was %d", p.expStatSN(), p.statSN)
		}
		if c.heard && before(p.expStatSN(), c.expStat) {
			bad(p, "§4.2.2.2: ExpStatSN %d after %d", p.expStatSN(), c.expStat)
		}
		c.expStat, c.heard = p.expStatSN(), true
		if p.opcode() == dataOut { // it has no CmdSN
			continue
		}
		if p.cmdSN() != c.next {
			bad(p, "§4.2.2.1: CmdSN %d where %d is next", p.cmdSN(), c.next)
		}
		if !p.immediate() {
			if p.known && before(p.maxCmdSN, p.cmdSN()) {
				bad(p, "§4.2.2.1: CmdSN %d beyond MaxCmdSN %d", p.cmdSN(), p.maxCmdSN)
			}
			c.next = p.cmdSN() + 1
		}
		if p.itt() != reserved {
			if _, used := c.pending[p.itt()]; used && p.opcode() != textRequest {
				bad(p, "§11.2.1.8: initiator task tag 0x%08x is in use", p.itt())
			}
			c.pending[p.itt()] = p.opcode()
		} else if p.opcode() != nopOut {
			bad(p, "§11.2.1.8: the initiator task tag is the reserved one")
		}
	}
	return wrong
}
