package simulation

import (
	"fmt"
	"strconv"

	"iscsictl/iscsi"
)

// terms are what a login came to, as the target has them.
type terms struct {
	maxRecv, maxBurst, firstBurst, maxR2T int
	immediate, initialR2T                 bool
	headerDigest, dataDigest              bool
	window                                uint32
	initiatorRecv                         int
	redirect, refuse, iser                bool
}

// newTerms makes terms up, which differ from login to login.
func (t *target) newTerms(iser bool) terms {
	w := t.w
	p := terms{
		maxRecv: 512 << w.rng.IntN(4), maxR2T: 1 + w.rng.IntN(3), immediate: w.rng.IntN(2) == 0,
		initialR2T: w.rng.IntN(2) == 0, headerDigest: w.digests[0], dataDigest: w.digests[1],
		window: uint32(1 + w.rng.IntN(8)), initiatorRecv: 8192, iser: iser,
	}
	p.firstBurst = 512 << w.rng.IntN(4)
	p.maxBurst = p.firstBurst << w.rng.IntN(3)
	if iser {
		p.maxRecv, p.headerDigest, p.dataDigest = 8192, false, false
		p.window = 1 // LIO opens it with the first answer
	}
	if !w.well {
		p.redirect, p.refuse = w.rng.IntN(20) == 0, w.rng.IntN(20) == 0
	}
	return p
}

// login answers a login request of a connection; up says that the connection
// is in the full-feature phase with that.
func (t *target) login(p *terms, h *iscsi.BHS, data []byte) (answer iscsi.BHS, text []byte, up bool) {
	w := t.w
	var q iscsi.LoginRequest
	if err := q.Decode(h); err != nil {
		w.violation("login: %v", err)
		return
	}
	if q.TSIH != 0 {
		w.violation("login with TSIH %d: no session is continued", q.TSIH)
	}
	if q.ISID != isid {
		w.violation("login with ISID %x, which is not the session's", q.ISID)
	}
	r := iscsi.LoginResponse{
		Transit: q.Transit, CurrentStage: q.CurrentStage, NextStage: q.NextStage, ISID: q.ISID,
		InitiatorTaskTag: q.InitiatorTaskTag, StatSN: q.ExpStatSN, ExpCmdSN: q.CmdSN, MaxCmdSN: q.CmdSN + p.window - 1,
	}
	keys, err := iscsi.ParseKeys(data)
	if err != nil {
		w.violation("login: %v", err)
	}
	switch {
	case p.refuse:
		r.Status, r.Transit, r.NextStage = iscsi.LoginOutOfResources, false, 0
	case p.redirect:
		r.Status, r.Transit, r.NextStage = iscsi.LoginTargetMovedTemporarily, false, 0
		text = iscsi.AppendKey(text, iscsi.KeyTargetAddress, fmt.Sprintf("127.0.0.1:%d,1", 3261+w.rng.IntN(2)))
		*p = t.newTerms(p.iser)
	default:
		text = p.answer(keys)
		up = q.Transit && q.NextStage == iscsi.StageFullFeature
	}
	if up {
		r.TSIH = uint16(t.logins%1000 + 1)
	}
	r.DataSegmentLength = len(text)
	r.Encode(&answer)
	if up {
		t.enter(p, r.StatSN+1, q.CmdSN, r.MaxCmdSN)
	}
	return answer, text, up
}

// enter begins a session; one that was there with this ISID is over (RFC 7143
// §6.3.5), with all of its tasks.
func (t *target) enter(p *terms, statSN, cmdSN, maxCmdSN uint32) {
	if t.n != nil {
		t.n.over, t.n.tasks = true, nil
	}
	t.logins++
	t.n = &nexus{t: t, p: *p, statSN: statSN, expCmd: cmdSN, maxCmd: maxCmdSN, told: maxCmdSN}
	t.w.logf("target: login %d: %+v", t.logins, *p)
}

// answer negotiates, by the rules of RFC 7143 §13.
func (p *terms) answer(keys []iscsi.KeyValue) []byte {
	var text []byte
	say := func(key, value string) { text = iscsi.AppendKey(text, key, value) }
	both := func(key, theirs string, ours *bool, and bool) {
		yes := theirs == iscsi.ValueYes
		if and {
			*ours = *ours && yes
		} else {
			*ours = *ours || yes
		}
		say(key, iscsi.FormatBoolean(*ours))
	}
	least := func(key, theirs string, ours *int) {
		n, _ := strconv.Atoi(theirs)
		*ours = min(*ours, n)
		say(key, strconv.Itoa(*ours))
	}
	digest := func(key, theirs string, ours *bool) {
		*ours = *ours && len(theirs) >= 6 && theirs[:6] == iscsi.ValueCRC32C
		if *ours {
			say(key, iscsi.ValueCRC32C)
		} else {
			say(key, iscsi.ValueNone)
		}
	}
	for _, kv := range keys {
		switch kv.Key {
		case iscsi.KeyAuthMethod:
			say(kv.Key, iscsi.ValueNone)
		case iscsi.KeyHeaderDigest:
			digest(kv.Key, kv.Value, &p.headerDigest)
		case iscsi.KeyDataDigest:
			digest(kv.Key, kv.Value, &p.dataDigest)
		case iscsi.KeyMaxRecvDataSegmentLength:
			p.initiatorRecv, _ = strconv.Atoi(kv.Value)
			say(kv.Key, strconv.Itoa(p.maxRecv))
		case iscsi.KeyMaxBurstLength:
			least(kv.Key, kv.Value, &p.maxBurst)
		case iscsi.KeyFirstBurstLength:
			least(kv.Key, kv.Value, &p.firstBurst)
		case iscsi.KeyMaxOutstandingR2T:
			least(kv.Key, kv.Value, &p.maxR2T)
		case iscsi.KeyImmediateData:
			both(kv.Key, kv.Value, &p.immediate, true)
		case iscsi.KeyInitialR2T:
			both(kv.Key, kv.Value, &p.initialR2T, false)
		case iscsi.KeyRDMAExtensions, iscsi.KeyDataPDUInOrder, iscsi.KeyDataSequenceInOrder:
			say(kv.Key, iscsi.ValueYes)
		case iscsi.KeyInitiatorRecvDataSegmentLength, iscsi.KeyTargetRecvDataSegmentLength, iscsi.KeyMaxConnections:
			say(kv.Key, kv.Value)
		case iscsi.KeyErrorRecoveryLevel, iscsi.KeyDefaultTime2Wait, iscsi.KeyDefaultTime2Retain:
			say(kv.Key, "0")
		case iscsi.KeyProtocolLevel:
			say(kv.Key, "1")
		}
	}
	return text
}
