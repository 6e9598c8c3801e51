package session

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"iscsictl/iscsi"
)

// control hands the nexus a PDU of the target.
func control(n *nexus, p interface{ Encode(*iscsi.BHS) }, data []byte) error {
	var h iscsi.BHS
	p.Encode(&h)
	h.SetDataSegmentLength(len(data))
	return n.Control(&h, data)
}

// TestSilence: a ping goes out in each silent second, and the connection is
// given up after the ping timeout, but never before a ping had its second.
func TestSilence(t *testing.T) {
	for _, c := range []struct {
		timeout int
		pings   int // until the connection is given up
		after   int // seconds; 0: it never is
	}{{5, 4, 5}, {2, 1, 2}, {1, 1, 2}, {0, 0, 0}} {
		n, w := newWire(3, limits{ping: time.Duration(c.timeout) * time.Second})
		now := n.now
		n.tick(now, n.limits)
		after := 0
		for s := 1; s <= 20 && n.failed == nil; s++ {
			n.tick(now+time.Duration(s)*time.Second, n.limits)
			if n.failed != nil {
				after = s
			}
		}
		if len(w.controls) != c.pings || after != c.after {
			t.Errorf("timeout %d: %d pings and the end after %d s, want %d and %d", c.timeout, len(w.controls), after, c.pings, c.after)
		}
		for _, h := range w.controls {
			var p iscsi.NOPOut
			if err := p.Decode(&h); err != nil || !p.Immediate || p.InitiatorTaskTag == 0xffffffff || p.TargetTransferTag != 0xffffffff || p.CmdSN != n.cmdSN {
				t.Errorf("ping %+v, %v", p, err)
			}
		}
	}
}

func TestPing(t *testing.T) {
	n, w := newWire(3, limits{ping: 5 * time.Second})
	now := n.now
	for s := 1; s <= 100; s++ { // answered each time: it goes on for ever
		n.tick(now+time.Duration(2*s-1)*time.Second, n.limits)
		n.tick(now+time.Duration(2*s)*time.Second, n.limits)
		h := w.take(t, iscsi.OpNOPOut)
		if err := control(n, &iscsi.NOPIn{InitiatorTaskTag: h.InitiatorTaskTag(), TargetTransferTag: 0xffffffff, StatSN: n.expStatSN}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n.failed != nil {
		t.Fatal(n.failed)
	}
	// The target's ping: its data comes back, up to what it takes, its tag
	// and LUN too; StatSN does not advance.
	sn := n.expStatSN
	big := bytes.Repeat([]byte{1, 2, 3}, 4000)
	if err := control(n, &iscsi.NOPIn{LUN: 5, InitiatorTaskTag: 0xffffffff, TargetTransferTag: 0x1234, StatSN: sn}, big); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.data[0], big[:8192]) || n.expStatSN != sn {
		t.Errorf("%d bytes came back, ExpStatSN %d", len(w.data[0]), n.expStatSN)
	}
	var p iscsi.NOPOut
	h := w.take(t, iscsi.OpNOPOut)
	if err := p.Decode(&h); err != nil || p.TargetTransferTag != 0x1234 || p.LUN != 5 || p.InitiatorTaskTag != 0xffffffff || !p.Immediate {
		t.Errorf("pong %+v, %v", p, err)
	}
	if err := control(n, &iscsi.NOPIn{InitiatorTaskTag: 3, TargetTransferTag: 0xffffffff, StatSN: sn}, nil); err == nil {
		t.Error("an answer to no ping was accepted")
	}
}

func TestLogout(t *testing.T) {
	n, w := newWire(10, limits{})
	n.logout()
	n.logout()
	h := w.take(t, iscsi.OpLogoutRequest)
	var p iscsi.LogoutRequest
	if err := p.Decode(&h); err != nil || !p.Immediate || p.Reason != 0 || p.CmdSN != n.cmdSN {
		t.Fatalf("%+v: %v", p, err)
	}
	n.submit(commands(1))
	if len(w.commands) != 0 {
		t.Error("a command was sent after the logout")
	}
	if err := control(n, &iscsi.LogoutResponse{InitiatorTaskTag: p.InitiatorTaskTag + 1, StatSN: n.expStatSN}, nil); err == nil || errors.Is(err, errLoggedOut) {
		t.Errorf("the answer to another logout gave %v", err)
	}
	if err := control(n, &iscsi.LogoutResponse{InitiatorTaskTag: p.InitiatorTaskTag, StatSN: n.expStatSN, Time2Wait: 3}, nil); err != nil || n.bye.wait != 3*time.Second {
		t.Errorf("%v, wait %v", err, n.bye.wait)
	}
	// The target closes the connection, and if not, we do, without another word.
	n.tick(n.now+tickEvery, limits{ping: time.Nanosecond})
	if n.failed != nil || len(w.controls) != 0 {
		t.Errorf("%v and %d PDUs before the target had a second to close the connection", n.failed, len(w.controls))
	}
	n.tick(n.now+tickEvery, limits{})
	if !errors.Is(n.failed, errLoggedOut) {
		t.Errorf("the connection goes on after a logout: %v", n.failed)
	}
}

// TestAsync: RFC 7143 §11.9.1.
func TestAsync(t *testing.T) {
	n, _ := newWire(10, limits{})
	async := func(p iscsi.AsyncMessage, data []byte) error {
		p.StatSN = n.expStatSN
		return control(n, &p, data)
	}
	if err := async(iscsi.AsyncMessage{Event: 0, LUN: 4}, []byte{0, 3, 0x70, 0, 6}); err != nil {
		t.Fatal(err)
	}
	if len(n.async) != 1 || n.async[0].lun != 4 || !bytes.Equal(n.async[0].sense, []byte{0x70, 0, 6}) {
		t.Errorf("sense %+v", n.async)
	}
	for range 1000 {
		if err := async(iscsi.AsyncMessage{Event: 0}, []byte{0, 1, 0x70}); err != nil {
			t.Fatal(err)
		}
	}
	if len(n.async) > pendingMax {
		t.Errorf("%d messages are kept", len(n.async))
	}
	if err := async(iscsi.AsyncMessage{Event: 255, VendorCode: 9}, nil); err != nil {
		t.Errorf("a vendor's event: %v", err)
	}
	for _, e := range []iscsi.AsyncEvent{2, 3} {
		if err := async(iscsi.AsyncMessage{Event: e, Parameter2: 7}, nil); err == nil || n.bye.wait != 7*time.Second {
			t.Errorf("event %d: %v, wait %v", e, err, n.bye.wait)
		}
	}
	for _, e := range []iscsi.AsyncEvent{1, 4} {
		n, w := newWire(10, limits{})
		if err := control(n, &iscsi.AsyncMessage{Event: e, Parameter3: 10, StatSN: n.expStatSN}, nil); err != nil {
			t.Fatal(err)
		}
		w.take(t, iscsi.OpLogoutRequest)
	}
}

func TestReject(t *testing.T) {
	n, w := newWire(10, limits{command: 30 * time.Second, ping: 5 * time.Second})
	list := commands(2)
	n.submit(list)
	reject := func(bad iscsi.BHS, reason iscsi.RejectReason) error {
		return control(n, &iscsi.Reject{Reason: reason, StatSN: n.expStatSN}, bad[:])
	}
	var h iscsi.BHS
	w.commands[0].Command.Encode(&h)
	if err := reject(h, 2); err != nil || len(n.done) != 0 {
		t.Errorf("a data digest error: %v, %d done; the target ends the command with a status", err, len(n.done))
	}
	if err := reject(h, 9); err != nil || len(n.done) != 1 || list[0].Err != ErrRejected {
		t.Errorf("%v, %d done, error %v", err, len(n.done), list[0].Err)
	}
	now := n.now
	n.tick(now, n.limits)
	n.tick(now+time.Second, n.limits)
	ping := w.take(t, iscsi.OpNOPOut)
	if err := reject(ping, 6); err != nil || n.ping.outstanding != 0 {
		t.Errorf("a rejected ping: %v, %d outstanding", err, n.ping.outstanding)
	}
	(&iscsi.LogoutRequest{Immediate: true, InitiatorTaskTag: 1}).Encode(&h)
	if err := reject(h, 4); err == nil || !strings.Contains(err.Error(), "Logout") {
		t.Errorf("a rejected logout: %v", err)
	}
	if err := control(n, &iscsi.Reject{Reason: 4, StatSN: n.expStatSN}, []byte{1}); err == nil {
		t.Error("a Reject without the header was accepted")
	}
}

func TestUnexpectedPDU(t *testing.T) {
	n, _ := newWire(10, limits{})
	var h iscsi.BHS
	for op := range 64 {
		switch iscsi.Opcode(op) {
		case iscsi.OpNOPIn, iscsi.OpTaskManagementResponse, iscsi.OpLogoutResponse, iscsi.OpAsyncMessage, iscsi.OpReject:
		default:
			h[0] = byte(op)
			if err := n.Control(&h, nil); err == nil {
				t.Errorf("opcode %#x was accepted", op)
			}
		}
	}
}
