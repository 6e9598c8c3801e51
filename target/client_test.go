package target

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"iscsictl/iscsi"
)

const (
	testTarget    = "iqn.2024-01.example:disk"
	testInitiator = "iqn.2024-01.example:host"
)

// serve starts a server with conf on a port of its own and returns its address.
func serve(t testing.TB, conf Config) (*Server, string) {
	t.Helper()
	s, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

// oneTarget is a configuration with one target.
func oneTarget(luns ...LUN) Config {
	return Config{Targets: []Target{{Name: testTarget, LUNs: luns, NoPowerOn: true}}}
}

// pdu is a PDU as it came.
type pdu struct {
	h    iscsi.BHS
	data []byte
}

// client is an initiator made of the wire format and nothing else, one PDU
// after another, so that tests can do what no initiator would.
type client struct {
	t             testing.TB
	nc            net.Conn
	rdma          *rdmaEnd // instead of nc: iSER
	isid          [6]byte
	cid           uint16
	tsih          uint16
	cmdSN, statSN uint32
	maxCmdSN      uint32
	itt           uint32
	headerDigest  bool
	dataDigest    bool
	immediate     int    // most bytes of immediate data
	unsolicited   int    // most bytes of unsolicited Data-Out after it
	segment       int    // most bytes in one Data-Out
	r2ts          []span // R2Ts of the last command
	dataIn        []iscsi.DataIn
	answers       map[string]string // of the login
	status        iscsi.LoginStatus
	pieces        int // of the last login answer
}

func dial(t testing.TB, address string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{t: t, nc: nc, isid: [6]byte{0x80, 1, 2, 3, 4, 5}, cmdSN: 7, itt: 100, segment: 8192}
}

// send writes a PDU with pad and digests.
func (c *client) send(h *iscsi.BHS, data []byte) error {
	h.SetDataSegmentLength(len(data))
	if c.rdma != nil {
		return c.rdma.send(h, data)
	}
	b := append([]byte(nil), h[:]...)
	if c.headerDigest {
		b = append(b, 0, 0, 0, 0)
		iscsi.PutDigest(b[48:], iscsi.DigestUpdate(0, h[:]))
	}
	if len(data) > 0 {
		padded := append(append([]byte(nil), data...), make([]byte, iscsi.Pad(len(data)))...)
		b = append(b, padded...)
		if c.dataDigest {
			b = append(b, 0, 0, 0, 0)
			iscsi.PutDigest(b[len(b)-4:], iscsi.DigestUpdate(0, padded))
		}
	}
	_, err := c.nc.Write(b)
	return err
}

func (c *client) mustSend(h *iscsi.BHS, data []byte) {
	c.t.Helper()
	if err := c.send(h, data); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// receive reads a PDU and checks its digests.
func (c *client) receive() (pdu, error) {
	var p pdu
	if c.rdma != nil {
		p, err := c.rdma.receive()
		if err != nil {
			return p, err
		}
		return p, c.track(&p.h)
	}
	if _, err := io.ReadFull(c.nc, p.h[:]); err != nil {
		return p, err
	}
	var digest [4]byte
	if c.headerDigest {
		if _, err := io.ReadFull(c.nc, digest[:]); err != nil {
			return p, err
		}
		if !iscsi.CheckDigest(digest[:], iscsi.DigestUpdate(0, p.h[:])) {
			return p, fmt.Errorf("%v: wrong header digest", p.h.Opcode())
		}
	}
	n := p.h.DataSegmentLength()
	if n > 0 {
		p.data = make([]byte, n+iscsi.Pad(n))
		if _, err := io.ReadFull(c.nc, p.data); err != nil {
			return p, err
		}
		if c.dataDigest {
			if _, err := io.ReadFull(c.nc, digest[:]); err != nil {
				return p, err
			}
			if !iscsi.CheckDigest(digest[:], iscsi.DigestUpdate(0, p.data)) {
				return p, fmt.Errorf("%v: wrong data digest", p.h.Opcode())
			}
		}
		p.data = p.data[:n]
	}
	return p, c.track(&p.h)
}

// track checks StatSN and follows the window.
func (c *client) track(h *iscsi.BHS) error {
	c.maxCmdSN = h.MaxCmdSN()
	consumes := true
	switch h.Opcode() {
	case iscsi.OpR2T:
		consumes = false
	case iscsi.OpDataIn:
		consumes = h[1]&1 != 0
		if !consumes {
			return nil
		}
	case iscsi.OpNOPIn:
		consumes = h.InitiatorTaskTag() != iscsi.ReservedTag
	}
	if c.statSN != 0 && h.StatSN() != c.statSN {
		return fmt.Errorf("%v: StatSN %d instead of %d", h.Opcode(), h.StatSN(), c.statSN)
	}
	c.statSN = h.StatSN()
	if consumes {
		c.statSN++
	}
	return nil
}

func (c *client) mustReceive(want iscsi.Opcode) pdu {
	c.t.Helper()
	p, err := c.receive()
	if err != nil {
		c.t.Fatalf("waiting for %v: %v", want, err)
	}
	if p.h.Opcode() != want {
		c.t.Fatalf("got %v instead of %v", p.h.Opcode(), want)
	}
	return p
}

// pairs builds text from key=value strings.
func pairs(list ...string) []byte {
	var b []byte
	for _, s := range list {
		b = append(append(b, s...), 0)
	}
	return b
}

// loginStep sends one complete login request and collects the whole answer.
func (c *client) loginStep(stage, next iscsi.Stage, text []byte) (transit bool, err error) {
	r := iscsi.LoginRequest{
		Transit: true, CurrentStage: stage, NextStage: next, ISID: c.isid, TSIH: c.tsih,
		InitiatorTaskTag: 1, CID: c.cid, CmdSN: c.cmdSN, ExpStatSN: c.statSN,
	}
	c.pieces = 0
	var all []byte
	for {
		var h iscsi.BHS
		r.Encode(&h)
		if err := c.send(&h, text); err != nil {
			return false, err
		}
		p, err := c.receive()
		if err != nil {
			return false, err
		}
		var a iscsi.LoginResponse
		if err := a.Decode(&p.h); err != nil {
			return false, err
		}
		c.status, c.pieces = a.Status, c.pieces+1
		all = append(all, p.data...)
		if a.Status != iscsi.LoginSuccess {
			c.keep(all)
			return false, fmt.Errorf("login: %v", a.Status)
		}
		if a.Continue && c.pieces < 10000 {
			text, r.ExpStatSN = nil, c.statSN
			continue
		}
		if a.Transit && a.NextStage == iscsi.StageFullFeature {
			c.tsih = a.TSIH
		}
		c.keep(all)
		return a.Transit, nil
	}
}

func (c *client) keep(text []byte) {
	if c.answers == nil {
		c.answers = make(map[string]string)
	}
	list, err := iscsi.ParseKeys(text)
	if err != nil {
		c.t.Fatalf("login answer: %v", err)
	}
	for _, kv := range list {
		c.answers[kv.Key] = kv.Value
	}
}

func normal(keys ...string) []byte {
	return pairs(append([]string{"InitiatorName=" + testInitiator, "SessionType=Normal", "TargetName=" + testTarget}, keys...)...)
}

// login logs in to the operational stage without authentication.
func (c *client) login(keys ...string) error {
	if c.rdma != nil {
		keys = append([]string{"RDMAExtensions=Yes", "InitiatorRecvDataSegmentLength=8192", "TargetRecvDataSegmentLength=8192"}, keys...)
	}
	if _, err := c.loginStep(iscsi.StageOperational, iscsi.StageFullFeature, normal(keys...)); err != nil {
		return err
	}
	c.headerDigest = c.answers["HeaderDigest"] == "CRC32C"
	c.dataDigest = c.answers["DataDigest"] == "CRC32C"
	return nil
}

func mustLogin(t testing.TB, address string, keys ...string) *client {
	t.Helper()
	c := dial(t, address)
	if err := c.login(keys...); err != nil {
		t.Fatal(err)
	}
	return c
}

// in logs a client in.
func (c *client) in(keys ...string) *client {
	c.t.Helper()
	if err := c.login(keys...); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// chapResponse is RFC 1994's, written apart from the target's.
func chapResponse(id byte, secret string, challenge []byte) []byte {
	sum := md5.Sum(append(append([]byte{id}, secret...), challenge...))
	return sum[:]
}

// result is how a command ended.
type result struct {
	status      uint8
	sense       []byte
	data        []byte
	over, under bool
	residual    uint32
	invalidated bool // iSER: the target has invalidated the memory
}

func (r result) code() string {
	if len(r.sense) < 14 {
		return ""
	}
	return fmt.Sprintf("%x/%02x/%02x", r.sense[2]&15, r.sense[12], r.sense[13])
}

// begin sends a command with immediate and unsolicited data, and returns its
// tag and how much data went.
func (c *client) begin(lun uint64, cdb [16]byte, read uint32, out []byte) (tag uint32, sent int) {
	c.t.Helper()
	c.itt++
	now := min(len(out), c.immediate)
	more := min(len(out)-now, c.unsolicited)
	cmd := iscsi.SCSICommand{
		Final: more == 0, Read: read > 0, Write: len(out) > 0, Attribute: iscsi.Simple, LUN: lun,
		InitiatorTaskTag: c.itt, ExpectedDataTransferLength: read + uint32(len(out)),
		CmdSN: c.cmdSN, ExpStatSN: c.statSN, CDB: cdb,
	}
	c.cmdSN++
	var h iscsi.BHS
	cmd.Encode(&h)
	if c.rdma != nil {
		c.rdma.lend(&cmd, read, out, now+more)
	}
	c.mustSend(&h, out[:now])
	if more > 0 {
		c.dataOut(c.itt, iscsi.ReservedTag, out, span{uint32(now), uint32(more)})
	}
	return c.itt, now + more
}

func (c *client) dataOut(itt, ttt uint32, out []byte, s span) {
	c.t.Helper()
	for sn := uint32(0); s.size > 0; sn++ {
		n := min(s.size, uint32(c.segment))
		d := iscsi.DataOut{
			Final: n == s.size, InitiatorTaskTag: itt, TargetTransferTag: ttt,
			ExpStatSN: c.statSN, DataSN: sn, BufferOffset: s.offset,
		}
		var h iscsi.BHS
		d.Encode(&h)
		c.mustSend(&h, out[s.offset:s.offset+n])
		s.offset, s.size = s.offset+n, s.size-n
	}
}

// command carries out one command.
func (c *client) command(lun uint64, cdb [16]byte, read uint32, out []byte) (result, error) {
	c.t.Helper()
	tag, _ := c.begin(lun, cdb, read, out)
	return c.finish(tag, read, out)
}

// finish answers R2Ts and takes data until the command with tag has ended.
func (c *client) finish(tag, read uint32, out []byte) (result, error) {
	c.t.Helper()
	r := result{data: make([]byte, read)}
	c.r2ts, c.dataIn = nil, nil
	got := uint32(0)
	for {
		p, err := c.receive()
		if err != nil {
			return r, err
		}
		switch p.h.Opcode() {
		case iscsi.OpR2T:
			var q iscsi.R2T
			if err := q.Decode(&p.h); err != nil {
				return r, err
			}
			s := span{q.BufferOffset, q.DesiredLength}
			c.r2ts = append(c.r2ts, s)
			if uint64(s.offset)+uint64(s.size) > uint64(len(out)) {
				return r, fmt.Errorf("R2T for %d at %d of %d bytes", s.size, s.offset, len(out))
			}
			c.dataOut(tag, q.TargetTransferTag, out, s)
		case iscsi.OpDataIn:
			var q iscsi.DataIn
			if err := q.Decode(&p.h); err != nil {
				return r, err
			}
			c.dataIn = append(c.dataIn, q)
			if q.InitiatorTaskTag != tag || int(q.BufferOffset)+len(p.data) > len(r.data) {
				return r, fmt.Errorf("Data-In for task %d, %d bytes at %d", q.InitiatorTaskTag, len(p.data), q.BufferOffset)
			}
			got += uint32(copy(r.data[q.BufferOffset:], p.data))
			if q.HasStatus {
				r.status, r.over, r.under, r.residual = q.Status, q.Overflow, q.Underflow, q.Residual
				r.data = r.data[:got]
				return r, nil
			}
		case iscsi.OpSCSIResponse:
			var q iscsi.SCSIResponse
			if err := q.Decode(&p.h); err != nil {
				return r, err
			}
			if q.InitiatorTaskTag != tag {
				return r, fmt.Errorf("response for task %#x", q.InitiatorTaskTag)
			}
			r.status, r.over, r.under, r.residual = q.Status, q.Overflow, q.Underflow, q.Residual
			r.data = r.data[:got]
			if c.rdma != nil {
				r.data, r.invalidated = c.rdma.taken(tag, &q)
			}
			r.sense, err = iscsi.ResponseSense(p.data)
			return r, err
		default:
			return r, fmt.Errorf("unexpected %v", p.h.Opcode())
		}
	}
}

func (c *client) must(lun uint64, cdb [16]byte, read uint32, out []byte) result {
	c.t.Helper()
	r, err := c.command(lun, cdb, read, out)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// good is must for a command that has to end with GOOD.
func (c *client) good(lun uint64, cdb [16]byte, read uint32, out []byte) []byte {
	c.t.Helper()
	r := c.must(lun, cdb, read, out)
	if r.status != 0 {
		c.t.Fatalf("CDB %x: status %#x %s", cdb, r.status, r.code())
	}
	return r.data
}

// gone checks that the target closes the connection.
func (c *client) gone() {
	c.t.Helper()
	for {
		if _, err := c.receive(); err != nil {
			var timeout net.Error
			if e, ok := err.(net.Error); ok {
				timeout = e
			}
			if timeout != nil && timeout.Timeout() {
				c.t.Fatal("the connection is still open")
			}
			return
		}
	}
}

// pattern is n bytes that differ from place to place.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	x := uint32(seed) + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func equal(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		t.Fatalf("%s: %d bytes, want %d; they differ from byte %d on", what, len(got), len(want), i)
	}
}
