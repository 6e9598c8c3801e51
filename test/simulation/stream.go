package simulation

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/transport"
	"iscsictl/transport/tcp"
)

var errCut = errors.New("the network was cut")

// link is a connection between the initiator and the target, as the world sees
// it.
type link interface {
	// play lets something happen on the connection, and reports whether
	// anything could.
	play() bool
	// cut loses what is under way, at any byte; the initiator learns of it
	// later, or never.
	cut()
	// lie has the target send what it must not.
	lie()
	// closed reports whether the initiator has given the connection up; end
	// then tells its session that nothing is in use any more.
	closed() bool
	end()
	drop(err error)
	// refers reports whether the connection refers to memory of a request
	// that has been completed.
	refers(e arena.Extent) bool
}

// stream is a TCP connection: two queues of bytes.
type stream struct {
	w        *world
	p        terms
	n        *nexus
	m        *tcp.Stepper
	there    []byte // on the way to the target
	here     []byte // on the way to the initiator
	arrived  []byte // at the target, not yet a whole PDU
	answer   iscsi.BHS
	text     []byte
	answered bool
	broken   bool // nothing is carried any more
}

// dialStream is transport.Dialer.
type dialStream struct{ w *world }

func (d dialStream) Dial(_ context.Context, addr, _ netip.AddrPort, _ transport.DialOptions) (transport.Conn, error) {
	if !d.w.well && (d.w.vanished || d.w.rng.IntN(8) == 0) {
		return nil, errCut
	}
	return &stream{w: d.w, p: d.w.target.newTerms(false)}, nil
}

func (s *stream) LocalAddr() netip.AddrPort   { return netip.AddrPort{} }
func (s *stream) RemoteAddr() netip.AddrPort  { return netip.AddrPort{} }
func (s *stream) SetDeadline(time.Time) error { return nil }
func (s *stream) Offers() transport.Offers    { return (*tcp.Stepper)(nil).Offers() }
func (s *stream) Facts() []transport.Fact     { return nil }
func (s *stream) Close() error                { return nil }

// Send has a login request answered at once.
func (s *stream) Send(h *iscsi.BHS, data []byte) error {
	if !s.w.well && s.w.rng.IntN(40) == 0 {
		return errCut
	}
	var up bool
	s.answer, s.text, up = s.w.target.login(&s.p, h, data)
	s.answered = true
	if up {
		s.n = s.w.target.n
		s.n.wire = s
	}
	return nil
}

func (s *stream) Receive() (iscsi.BHS, []byte, error) {
	if !s.answered || !s.w.well && s.w.rng.IntN(40) == 0 {
		return iscsi.BHS{}, nil, errCut // also where the target has gone on
	}
	return s.answer, s.text, nil
}

func (s *stream) Enable(p transport.Params, session transport.Session) transport.Mover {
	s.m = tcp.NewStepper(p, session, tasks)
	s.w.link = s
	s.n.p = s.p
	return s.m
}

func (s *stream) closed() bool   { return s.m.Closed() }
func (s *stream) end()           { s.m.End(); s.here = nil }
func (s *stream) drop(err error) { s.m.Close(err) }

func (s *stream) refers(e arena.Extent) bool { return s.m.Refers(e.Bytes()) }

func (s *stream) cut() {
	keep := func(b []byte) []byte { return b[:s.w.rng.IntN(len(b)+1)] }
	s.there, s.here, s.broken = keep(s.there), keep(s.here), true
}

func (s *stream) play() bool {
	w := s.w
	switch w.rng.IntN(4) {
	case 0: // the initiator writes
		before := len(s.there)
		s.there = s.m.Output(s.there, 1+w.rng.IntN(4096))
		if len(s.there)-before == 0 {
			return false
		}
		if s.broken {
			s.there = s.there[:before]
		}
	case 1: // bytes arrive at the target
		if len(s.there) == 0 || w.vanished {
			return false
		}
		k := 1 + w.rng.IntN(min(len(s.there), 4096))
		s.arrived = append(s.arrived, s.there[:k]...)
		s.there = s.there[k:]
		for s.receive() {
		}
	case 2: // bytes arrive at the initiator
		if len(s.here) == 0 {
			return false
		}
		k := s.m.Input(s.here[:1+w.rng.IntN(min(len(s.here), 8192))])
		s.here = s.here[k:]
	default:
		return !w.vanished && !s.n.over && s.n.step()
	}
	return true
}

// send implements wire.
func (s *stream) send(h *iscsi.BHS, data []byte) {
	if s.broken {
		return
	}
	if len(data) > s.n.p.initiatorRecv {
		panic("the model sends more than it may")
	}
	s.here = append(s.here, h[:]...)
	if s.n.p.headerDigest {
		s.here = appendDigest(s.here, h[:])
	}
	if len(data) > 0 {
		from := len(s.here)
		s.here = append(s.here, data...)
		s.here = append(s.here, make([]byte, iscsi.Pad(len(data)))...)
		if s.n.p.dataDigest {
			s.here = appendDigest(s.here, s.here[from:])
		}
	}
}

func appendDigest(b, of []byte) []byte {
	var crc [iscsi.DigestLen]byte
	iscsi.PutDigest(crc[:], iscsi.DigestUpdate(0, of))
	return append(b, crc[:]...)
}

// receive takes a PDU out of what has arrived, if it is whole.
func (s *stream) receive() bool {
	n, w := s.n, s.w
	if len(s.arrived) < iscsi.BHSLen {
		return false
	}
	h := iscsi.BHS(s.arrived)
	head, size := iscsi.BHSLen+h.TotalAHSLength(), h.DataSegmentLength()
	if n.p.headerDigest {
		head += iscsi.DigestLen
	}
	whole := head + size + iscsi.Pad(size)
	if size > 0 && n.p.dataDigest {
		whole += iscsi.DigestLen
	}
	if len(s.arrived) < whole {
		return false
	}
	if n.p.headerDigest && !iscsi.CheckDigest(s.arrived[head-iscsi.DigestLen:], iscsi.DigestUpdate(0, s.arrived[:head-iscsi.DigestLen])) {
		w.violation("header digest of %v is wrong", h.Opcode())
	}
	if size > 0 && n.p.dataDigest && !iscsi.CheckDigest(s.arrived[whole-iscsi.DigestLen:], iscsi.DigestUpdate(0, s.arrived[head:whole-iscsi.DigestLen])) {
		w.violation("data digest of %v is wrong", h.Opcode())
	}
	if size > n.p.maxRecv {
		w.violation("%v with %d bytes, over MaxRecvDataSegmentLength %d", h.Opcode(), size, n.p.maxRecv)
	}
	data := s.arrived[head : head+size]
	if !n.over {
		s.pdu(&h, data)
	}
	s.arrived = s.arrived[whole:]
	return true
}

func (s *stream) pdu(h *iscsi.BHS, data []byte) {
	n, w := s.n, s.w
	if iscsi.SerialLess(n.statSN, h.ExpStatSN()) {
		w.violation("ExpStatSN %d acknowledges what was not sent (next: %d)", h.ExpStatSN(), n.statSN)
	}
	switch h.Opcode() {
	case iscsi.OpSCSICommand:
		var c iscsi.SCSICommand
		if err := c.Decode(h); err != nil {
			w.violation("%v", err)
			return
		}
		if len(data) > 0 && (!n.p.immediate || len(data) > n.p.firstBurst) {
			w.violation("%d bytes of immediate data (ImmediateData %v, FirstBurstLength %d)", len(data), n.p.immediate, n.p.firstBurst)
		}
		k := n.accept(c, data)
		k.unasked = !c.Final
		if k.unasked && n.p.initialR2T {
			w.violation("unsolicited data with InitialR2T=Yes")
		}
		if k.unasked {
			k.asked = min(len(k.data), n.p.firstBurst)
		}
	case iscsi.OpDataOut:
		var d iscsi.DataOut
		if err := d.Decode(h); err != nil {
			w.violation("%v", err)
			return
		}
		if k := n.find(d.InitiatorTaskTag); k != nil && k.phase == collecting {
			s.dataOut(k, &d, data)
		}
	default:
		n.control(h, data)
	}
}

// dataOut takes in data of a write.
func (s *stream) dataOut(k *task, d *iscsi.DataOut, data []byte) {
	w := s.w
	if d.TargetTransferTag == iscsi.ReservedTag {
		if !k.unasked || int(d.BufferOffset) != k.got || d.DataSN != k.dataSN || k.got+len(data) > k.asked {
			w.violation("unsolicited Data-Out %d at %d+%d; %d came, %d are allowed, DataSN %d is due", d.DataSN, d.BufferOffset, len(data), k.got, k.asked, k.dataSN)
			return
		}
		k.dataSN++
		k.got += copy(k.data[k.got:], data)
		if k.unasked = !d.Final; !k.unasked {
			k.asked, k.dataSN = k.got, 0
		}
		return
	}
	for i := range k.r2ts {
		r := &k.r2ts[i]
		if r.tag != d.TargetTransferTag {
			continue
		}
		if int(d.BufferOffset) != r.off+r.got || d.DataSN != r.dataSN || len(data) > r.len-r.got || d.Final != (r.got+len(data) == r.len) {
			w.violation("Data-Out %d at %d+%d (final %v) for an R2T of %d+%d, of which %d came", d.DataSN, d.BufferOffset, len(data), d.Final, r.off, r.len, r.got)
			return
		}
		copy(k.data[r.off+r.got:], data)
		r.dataSN++
		r.got += len(data)
		k.got += len(data)
		if r.got == r.len {
			k.r2ts = append(k.r2ts[:i], k.r2ts[i+1:]...)
		}
		return
	}
	w.violation("Data-Out for the unknown target transfer tag %#x", d.TargetTransferTag)
}

// fetch implements wire: it sends an R2T, if one more is allowed.
func (s *stream) fetch(k *task) bool {
	n := s.n
	if k.unasked || k.asked == len(k.data) || len(k.r2ts) >= n.p.maxR2T {
		return false
	}
	r := r2t{tag: 1 + s.w.rng.Uint32N(1<<30), off: k.asked}
	r.len = 1 + s.w.rng.IntN(min(len(k.data)-k.asked, n.p.maxBurst))
	p := iscsi.R2T{InitiatorTaskTag: k.c.InitiatorTaskTag, TargetTransferTag: r.tag, StatSN: n.statSN, R2TSN: k.r2tSN, BufferOffset: uint32(r.off), DesiredLength: uint32(r.len)}
	k.r2tSN++
	k.asked += r.len
	k.r2ts = append(k.r2ts, r)
	n.window(&p.ExpCmdSN, &p.MaxCmdSN)
	n.put(&p, nil)
	return true
}

// deliver implements wire: it sends a Data-In, with the status at times.
func (s *stream) deliver(k *task) int {
	n := s.n
	left := len(k.data) - k.short - k.sent
	size := 1 + s.w.rng.IntN(min(left, n.p.initiatorRecv))
	d := iscsi.DataIn{InitiatorTaskTag: k.c.InitiatorTaskTag, TargetTransferTag: iscsi.ReservedTag, DataSN: k.dataSN, BufferOffset: uint32(k.sent), DataSegmentLength: size, Final: size == left || s.w.rng.IntN(4) == 0}
	data := k.data[k.sent : k.sent+size]
	k.dataSN++
	if d.HasStatus = size == left && s.w.rng.IntN(2) == 0; d.HasStatus {
		if k.short > 0 {
			d.Underflow, d.Residual = true, uint32(k.short)
		}
		n.drop(k)
		n.status(&d.StatSN, &d.ExpCmdSN, &d.MaxCmdSN)
	} else {
		d.StatSN = n.statSN
		n.window(&d.ExpCmdSN, &d.MaxCmdSN)
	}
	n.put(&d, data)
	return size
}

// dataIn sends part of a read's data, wherever it is due.
func (n *nexus) dataIn(k *task, from, size int) {
	if size > n.p.initiatorRecv {
		return
	}
	d := iscsi.DataIn{InitiatorTaskTag: k.c.InitiatorTaskTag, TargetTransferTag: iscsi.ReservedTag, DataSN: k.dataSN, BufferOffset: uint32(from), DataSegmentLength: size, StatSN: n.statSN}
	k.dataSN++
	n.window(&d.ExpCmdSN, &d.MaxCmdSN)
	n.put(&d, k.data[from:from+size])
}

// lie implements link.
func (s *stream) lie() {
	n, w := s.n, s.w
	itt := w.rng.Uint32()
	var k *task
	if len(n.tasks) > 0 {
		k = n.tasks[w.rng.IntN(len(n.tasks))]
		itt = k.c.InitiatorTaskTag
	}
	what := w.rng.IntN(9)
	w.logf("target: lies (%d) about itt %#x", what, itt)
	junk := make([]byte, 1+w.rng.IntN(700))
	for i := range junk {
		junk[i] = 0x5c
	}
	switch what {
	case 0: // a StatSN that is not due
		n.statSN += 1 + w.rng.Uint32N(3)
		n.open()
		p := iscsi.NOPIn{InitiatorTaskTag: itt, TargetTransferTag: iscsi.ReservedTag, StatSN: n.statSN}
		n.put(&p, nil)
	case 1: // data that nobody asked for, or at a wrong place
		p := iscsi.DataIn{InitiatorTaskTag: itt, TargetTransferTag: iscsi.ReservedTag, DataSN: w.rng.Uint32N(3), BufferOffset: 1 + w.rng.Uint32N(9000), DataSegmentLength: len(junk), StatSN: n.statSN, ExpCmdSN: n.expCmd, MaxCmdSN: n.maxCmd}
		n.put(&p, junk)
	case 2: // more than the buffer holds
		p := iscsi.DataIn{InitiatorTaskTag: itt, TargetTransferTag: iscsi.ReservedTag, DataSegmentLength: 8000, StatSN: n.statSN, ExpCmdSN: n.expCmd, MaxCmdSN: n.maxCmd}
		n.put(&p, make([]byte, 8000))
	case 3: // an R2T beyond the end, or of nothing
		p := iscsi.R2T{InitiatorTaskTag: itt, TargetTransferTag: 7, R2TSN: w.rng.Uint32N(2), BufferOffset: w.rng.Uint32N(10000), DesiredLength: w.rng.Uint32N(100000), StatSN: n.statSN, ExpCmdSN: n.expCmd, MaxCmdSN: n.maxCmd}
		n.put(&p, nil)
	case 4: // an answer to what was never asked
		p := iscsi.SCSIResponse{InitiatorTaskTag: itt ^ 0x10000, StatSN: n.statSN, ExpCmdSN: n.expCmd, MaxCmdSN: n.maxCmd}
		n.put(&p, nil)
	case 5: // a good end of a read whose data did not come
		if k == nil || !k.c.Read {
			return
		}
		p := iscsi.SCSIResponse{InitiatorTaskTag: itt, StatSN: n.statSN, ExpCmdSN: n.expCmd, MaxCmdSN: n.maxCmd}
		n.statSN++
		n.drop(k)
		n.put(&p, nil)
	case 8: // a read that leaves a part out and goes on behind it
		if k == nil || k.phase != answering || !k.c.Read || len(k.data)-k.short-k.sent < 2 {
			return
		}
		first := 1 + w.rng.IntN(len(k.data)-k.short-k.sent-1)
		from := k.sent
		if w.rng.IntN(2) == 0 { // and comes back to it
			n.dataIn(k, from+first, len(k.data)-k.short-from-first)
			n.dataIn(k, from, first)
			k.sent = len(k.data) - k.short
			return
		}
		k.sent += first
	case 6: // bytes
		s.here = append(s.here, junk...)
	case 7: // a window from nowhere
		p := iscsi.NOPIn{InitiatorTaskTag: iscsi.ReservedTag, TargetTransferTag: iscsi.ReservedTag, StatSN: n.statSN, ExpCmdSN: n.expCmd + 1<<31, MaxCmdSN: n.maxCmd - 1<<20}
		n.put(&p, nil)
	}
}
