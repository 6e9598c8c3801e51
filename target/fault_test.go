package target

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// faulty starts a server with one fault and one memory unit.
func faulty(t *testing.T, f ...Fault) string {
	t.Helper()
	conf := oneTarget(LUN{Number: 0, Size: 1 << 20})
	conf.Faults = f
	_, address := serve(t, conf)
	return address
}

func TestFaultDrop(t *testing.T) {
	for _, f := range []Fault{
		{Action: ActionDrop, PDU: "scsi-command", Nth: 3},
		{Action: ActionDrop, PDU: "scsi-response", Nth: 3},
		{Action: ActionDrop, Command: "0x00", Nth: 3, Times: -1},
		{Action: ActionDropAfter, PDU: "scsi-response", Nth: 3, Bytes: 20},
		{Action: ActionSwallow, PDU: "scsi-response", Nth: 3},
		{Action: ActionSilence, PDU: "scsi-command", Nth: 3},
	} {
		c := mustLogin(t, faulty(t, f))
		c.good(0, testUnitReady(), 0, nil)
		c.good(0, testUnitReady(), 0, nil)
		_ = c.nc.SetDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := c.command(0, testUnitReady(), 0, nil)
		var netErr net.Error
		stays := f.Action == ActionSwallow || f.Action == ActionSilence
		if timeout := errors.As(err, &netErr) && netErr.Timeout(); err == nil || timeout != stays {
			t.Errorf("%s at %s: %v", f.Action, f.PDU, err)
		}
		if f.Bytes > 0 && err != io.ErrUnexpectedEOF {
			t.Errorf("dropped within a PDU: %v", err)
		}
	}
}

func TestFaultStatus(t *testing.T) {
	zero, one := 0, 1
	address := faulty(t,
		Fault{Action: ActionStatus, Command: "read", Status: 8, Times: 2},
		Fault{Action: ActionStatus, Command: "write", Status: 0x18, Nth: 2},
		Fault{Action: ActionCheck, Command: "0x35", Sense: Sense{Key: 3, Code: 0x1100, Info: 77}, LUN: &zero},
		Fault{Action: ActionCheck, Command: "0x00", Sense: Sense{Key: 2, Code: 0x0401}, LUN: &one, Times: -1})
	c := mustLogin(t, address)
	c.immediate = 256
	var got []uint8
	for range 3 {
		got = append(got, c.must(0, cdb10(0x28, 0, 1), 512, nil).status)
	}
	for range 3 {
		got = append(got, c.must(0, cdb10(0x2a, 0, 1), 0, make([]byte, 512)).status)
	}
	if want := []uint8{8, 8, 0, 0, 0x18, 0}; !bytes.Equal(got, want) {
		t.Errorf("statuses %x, want %x", got, want)
	}
	r := c.must(0, cdb10(0x35, 0, 0), 0, nil)
	if s, ok := scsi.ParseSense(r.sense); !ok || s.Key != 3 || s.Code != 0x1100 || s.Info != 77 {
		t.Errorf("sense %+v", s)
	}
	c.good(0, testUnitReady(), 0, nil)
}

func TestFaultNumbers(t *testing.T) {
	at := func(h *iscsi.BHS) [3]uint32 { return [3]uint32{h.StatSN(), h.ExpCmdSN(), h.MaxCmdSN()} }
	reference := mustLogin(t, faulty(t))
	reference.begin(0, testUnitReady(), 0, nil)
	q := reference.mustReceive(iscsi.OpSCSIResponse)
	want := at(&q.h)
	for i, action := range []Action{ActionStatSN, ActionExpCmdSN, ActionMaxCmdSN} {
		c := mustLogin(t, faulty(t, Fault{Action: action, PDU: "scsi-response", Delta: -5}))
		c.statSN = 0
		c.begin(0, testUnitReady(), 0, nil)
		p := c.mustReceive(iscsi.OpSCSIResponse)
		expect := want
		expect[i] -= 5
		if got := at(&p.h); got != expect {
			t.Errorf("%s: %v, want %v", action, got, expect)
		}
	}
	c := mustLogin(t, faulty(t, Fault{Action: ActionUnknownITT, PDU: "scsi-response"}, Fault{Action: ActionResidual, Delta: 99, Nth: 2}))
	tag, _ := c.begin(0, testUnitReady(), 0, nil)
	if p := c.mustReceive(iscsi.OpSCSIResponse); p.h.InitiatorTaskTag() == tag {
		t.Error("the task tag is known")
	}
	if r := c.must(0, testUnitReady(), 0, nil); !r.under || r.residual != 99 {
		t.Errorf("%+v", r)
	}
}

func TestFaultDigest(t *testing.T) {
	for _, action := range []Action{ActionHeaderDigest, ActionDataDigest} {
		c := mustLogin(t, faulty(t, Fault{Action: action, PDU: "data-in"}), "HeaderDigest=CRC32C", "DataDigest=CRC32C")
		c.good(0, testUnitReady(), 0, nil)
		if _, err := c.command(0, cdb10(0x28, 0, 1), 512, nil); err == nil {
			t.Errorf("%s: the digest is right", action)
		}
	}
}

// TestDigestErrors sends wrong digests to the target.
func TestDigestErrors(t *testing.T) {
	address := faulty(t)
	c := mustLogin(t, address, "HeaderDigest=CRC32C")
	c.headerDigest = false
	var h iscsi.BHS
	(&iscsi.SCSICommand{Final: true, InitiatorTaskTag: 9, CmdSN: c.cmdSN, ExpStatSN: c.statSN}).Encode(&h)
	if _, err := c.nc.Write(append(h[:], 1, 2, 3, 4)); err != nil {
		t.Fatal(err)
	}
	c.gone()

	c = mustLogin(t, address, "DataDigest=CRC32C")
	tag, _ := c.begin(0, cdb10(0x2a, 0, 2), 0, make([]byte, 1024))
	q := c.mustReceive(iscsi.OpR2T)
	d := iscsi.DataOut{Final: true, InitiatorTaskTag: tag, TargetTransferTag: q.h.TargetTransferTag(), DataSegmentLength: 1024}
	d.Encode(&h)
	if _, err := c.nc.Write(append(append(h[:], make([]byte, 1024)...), 1, 2, 3, 4)); err != nil {
		t.Fatal(err)
	}
	if p := c.mustReceive(iscsi.OpReject); p.h[2] != byte(iscsi.RejectDataDigestError) {
		t.Errorf("reject with reason %d", p.h[2])
	}
	r, err := c.finish(tag, 0, nil)
	if err != nil || r.code() != "b/47/05" {
		t.Errorf("%v, %#x %s", err, r.status, r.code())
	}
	c.good(0, testUnitReady(), 0, nil)
}

func TestFaultMessages(t *testing.T) {
	address := faulty(t,
		Fault{Action: ActionReject, PDU: "scsi-command", Reason: 4, Nth: 2},
		Fault{Action: ActionAsync, PDU: "scsi-command", Event: 1, Parameters: [3]uint16{0, 0, 9}, Nth: 3},
		Fault{Action: ActionPing, PDU: "scsi-command", Nth: 4},
		Fault{Action: ActionOversize, PDU: "scsi-response", Bytes: 1 << 20, Nth: 4})
	c := mustLogin(t, address)
	c.good(0, testUnitReady(), 0, nil)
	c.begin(0, testUnitReady(), 0, nil)
	p := c.mustReceive(iscsi.OpReject)
	if h, ok := iscsi.RejectedHeader(p.data); !ok || h.Opcode() != iscsi.OpSCSICommand || p.h[2] != 4 {
		t.Errorf("reject %x", p.data)
	}
	c.begin(0, testUnitReady(), 0, nil)
	p = c.mustReceive(iscsi.OpAsyncMessage)
	var a iscsi.AsyncMessage
	if err := a.Decode(&p.h); err != nil || a.Event != 1 || a.Parameter3 != 9 {
		t.Errorf("%v, %+v", err, a)
	}
	c.mustReceive(iscsi.OpSCSIResponse)
	c.begin(0, testUnitReady(), 0, nil)
	if p = c.mustReceive(iscsi.OpNOPIn); p.h.TargetTransferTag() == iscsi.ReservedTag {
		t.Error("a ping without tag")
	}
	c.mustReceive(iscsi.OpSCSIResponse)
	c.begin(0, testUnitReady(), 0, nil)
	var h iscsi.BHS
	if _, err := io.ReadFull(c.nc, h[:]); err != nil || h.DataSegmentLength() != 1<<20 {
		t.Errorf("%v, %d bytes announced", err, h.DataSegmentLength())
	}
}

func TestFaultWindow(t *testing.T) {
	c := mustLogin(t, faulty(t, Fault{Action: ActionCloseWindow, PDU: "scsi-command", Delay: Duration(30 * time.Millisecond)}))
	c.good(0, testUnitReady(), 0, nil)
	if c.maxCmdSN != c.cmdSN-1 {
		t.Errorf("MaxCmdSN %d, want the window closed at %d", c.maxCmdSN, c.cmdSN)
	}
	if p := c.mustReceive(iscsi.OpNOPIn); p.h.TargetTransferTag() != iscsi.ReservedTag || c.maxCmdSN != c.cmdSN+defaultWindow-1 {
		t.Errorf("MaxCmdSN %d after the window opened", c.maxCmdSN)
	}
	c.good(0, testUnitReady(), 0, nil)
}

func TestFaultR2T(t *testing.T) {
	const n = 16384
	for _, tt := range []struct {
		shape R2TShape
		want  []span
	}{
		{R2TShape{Burst: 4096}, []span{{0, 4096}, {4096, 4096}, {8192, 4096}, {12288, 4096}}},
		{R2TShape{Burst: 8192, Reverse: true, Outstanding: 2}, []span{{8192, 8192}, {0, 8192}}},
		{R2TShape{Burst: 8192, Overlap: 512}, []span{{0, 8192}, {7680, 8192}, {15360, 1024}}},
	} {
		c := mustLogin(t, faulty(t, Fault{Action: ActionR2T, R2T: tt.shape}))
		out := pattern(n, 6)
		c.good(0, cdb10(0x2a, 0, n/512), 0, out)
		if !slices.Equal(c.r2ts, tt.want) {
			t.Errorf("%+v: R2Ts %v", tt.shape, c.r2ts)
		}
		equal(t, "data", c.good(0, cdb10(0x28, 0, n/512), n, nil), out)
	}
	c := mustLogin(t, faulty(t, Fault{Action: ActionR2T, R2T: R2TShape{Beyond: 100}}))
	if _, err := c.command(0, cdb10(0x2a, 0, 1), 0, make([]byte, 512)); err == nil {
		t.Error("no R2T beyond the buffer")
	}
	c = mustLogin(t, faulty(t, Fault{Action: ActionR2T, Command: "read", R2T: R2TShape{ForRead: true}}))
	c.begin(0, cdb10(0x28, 0, 1), 512, nil)
	c.mustReceive(iscsi.OpR2T)
}

func TestFaultDataIn(t *testing.T) {
	order := func(action Action) (sn, offsets []uint32, r result) {
		c := mustLogin(t, faulty(t, Fault{Action: action}), "MaxRecvDataSegmentLength=4096")
		tag, _ := c.begin(0, cdb10(0x28, 0, 32), 16384, nil)
		r, err := c.finish(tag, 1<<20, nil)
		if err != nil {
			t.Fatalf("%s: %v", action, err)
		}
		for _, d := range c.dataIn {
			sn, offsets = append(sn, d.DataSN), append(offsets, d.BufferOffset)
		}
		return sn, offsets, r
	}
	if sn, offsets, _ := order(ActionDataReverse); !slices.Equal(sn, []uint32{0, 1, 2, 3}) || !slices.Equal(offsets, []uint32{12288, 8192, 4096, 0}) {
		t.Error("reverse", sn, offsets)
	}
	if sn, _, _ := order(ActionDataGap); !slices.Equal(sn, []uint32{0, 2, 3, 4}) {
		t.Error("gap", sn)
	}
	if _, offsets, _ := order(ActionDataBeyond); offsets[3] != 16384 {
		t.Error("beyond", offsets)
	}
	if sn, _, r := order(ActionDataShort); len(sn) != 2 || r.status != 0 || r.residual != 0 || r.under || len(r.data) != 8192 {
		t.Error("short", sn, r.status, r.residual)
	}
}

func TestFaultLogin(t *testing.T) {
	attempt := func(f Fault) *client {
		c := dial(t, faulty(t, f))
		if err := c.login(); err != nil && c.status == 0 {
			t.Log(f.Action, err)
		}
		return c
	}
	if c := attempt(Fault{Action: ActionLoginStatus, Status: 0x0301}); c.status != iscsi.LoginServiceUnavailable {
		t.Error(c.status)
	}
	c := attempt(Fault{Action: ActionRedirect, Address: "192.0.2.7:1,5"})
	if c.status != iscsi.LoginTargetMovedTemporarily || c.answers["TargetAddress"] != "192.0.2.7:1,5" {
		t.Error(c.status, c.answers)
	}
	if c = attempt(Fault{Action: ActionSplitText, Bytes: 7}); c.status != 0 || c.pieces < 5 || c.tsih == 0 {
		t.Error(c.status, c.pieces)
	}
	c = dial(t, faulty(t, Fault{Action: ActionEndlessText}))
	r := iscsi.LoginRequest{Transit: true, CurrentStage: 1, NextStage: 3, ISID: c.isid, InitiatorTaskTag: 1, CmdSN: c.cmdSN}
	for text := normal(); ; text = nil {
		var h iscsi.BHS
		r.Encode(&h)
		c.mustSend(&h, text)
		if p := c.mustReceive(iscsi.OpLoginResponse); p.h[1]&0x40 == 0 || len(p.data) == 0 {
			t.Error("the answer ends")
		}
		r.ExpStatSN = c.statSN
		if c.statSN > 20 {
			break
		}
	}
}

func TestFaultGarbage(t *testing.T) {
	c := mustLogin(t, faulty(t, Fault{Action: ActionGarbage, PDU: "scsi-command", Bytes: 48}))
	c.begin(0, testUnitReady(), 0, nil)
	b := make([]byte, 96)
	if _, err := io.ReadFull(c.nc, b); err != nil || b[47] != 0xdb || b[48] != byte(iscsi.OpSCSIResponse) {
		t.Errorf("%v, %x", err, b)
	}
}

func TestFaultConnection(t *testing.T) {
	address := faulty(t, Fault{Action: ActionDrop, PDU: "scsi-command", Connection: 2}, Fault{Action: ActionDrop, PDU: "scsi-command", Target: "iqn.x"})
	first, second := mustLogin(t, address), dial(t, address)
	second.isid[0]++
	if err := second.login(); err != nil {
		t.Fatal(err)
	}
	first.good(0, testUnitReady(), 0, nil)
	if _, err := second.command(0, testUnitReady(), 0, nil); err == nil {
		t.Error("the second connection was not dropped")
	}
}

func TestFaultChecks(t *testing.T) {
	for _, f := range []Fault{
		{},
		{Action: "explode"},
		{Action: ActionDrop, PDU: "post-card"},
		{Action: ActionRedirect, PDU: "scsi-command"},
		{Action: ActionStatSN, PDU: "scsi-command"},
		{Action: ActionReject, PDU: "r2t"},
		{Action: ActionDrop, Phase: "lunch"},
		{Action: ActionDrop, Nth: -1},
		{Action: ActionStatus, Command: "reed"},
		{Action: ActionDrop, PDU: "r2t", Command: "read"},
		{Action: ActionSplitText},
		{Action: ActionAnswer, Text: "Yes"},
		{Action: ActionR2T, R2T: R2TShape{Burst: 10, Overlap: 10}},
		{Action: ActionReject, Sent: true},
	} {
		if _, err := newFault(f); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
	for action := range faultPlaces {
		if _, err := newFault(Fault{Action: action, Bytes: 1, Text: "a=b"}); err != nil {
			t.Errorf("%s: %v", action, err)
		}
	}
}
