package target

import (
	"bytes"
	"testing"
	"time"

	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// TestReinstatement logs in again while a write of the old session is held:
// the old session ends first, and its write never reaches the medium.
func TestReinstatement(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.Faults = []Fault{{Action: ActionHold, Command: "write", Delay: Duration(50 * time.Millisecond)}}
	s, address := serve(t, conf)
	old := mustLogin(t, address)
	old.immediate = 512
	old.begin(0, cdb10(0x2a, 0, 1), 0, bytes.Repeat([]byte{1}, 512))
	old.good(0, testUnitReady(), 0, nil) // the write was taken before this
	other := dial(t, address)
	other.isid[5]++
	if err := other.login(); err != nil {
		t.Fatal(err)
	}
	c := mustLogin(t, address)
	old.gone()
	if list := s.Sessions(); len(list) != 2 || list[0].TSIH != other.tsih || list[1].TSIH != c.tsih || c.tsih == old.tsih {
		t.Errorf("sessions %+v", list)
	}
	c.immediate = 512
	c.good(0, cdb10(0x2a, 0, 1), 0, bytes.Repeat([]byte{2}, 512))
	time.Sleep(100 * time.Millisecond) // past the time at which the old write was to happen
	if b := c.good(0, cdb10(0x28, 0, 1), 512, nil); b[0] != 2 {
		t.Errorf("a stale write came through: %d", b[0])
	}
	other.good(0, testUnitReady(), 0, nil)
}

func TestHold(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.Faults = []Fault{
		{Action: ActionHold, Command: "write", Delay: Duration(20 * time.Millisecond)},
		{Action: ActionHold, Command: "read", Delay: Duration(20 * time.Millisecond)},
	}
	_, address := serve(t, conf)
	c := mustLogin(t, address)
	out := pattern(4096, 1)
	c.good(0, cdb10(0x2a, 0, 8), 0, out)
	equal(t, "read", c.good(0, cdb10(0x28, 0, 8), 4096, nil), out)
}

func (c *client) manage(f iscsi.TaskFunction, lun uint64, tag uint32) iscsi.TaskResponse {
	c.t.Helper()
	c.itt++
	q := iscsi.TaskManagementRequest{
		Immediate: true, Function: f, LUN: lun, InitiatorTaskTag: c.itt, ReferencedTaskTag: tag,
		CmdSN: c.cmdSN, ExpStatSN: c.statSN,
	}
	var h iscsi.BHS
	q.Encode(&h)
	c.mustSend(&h, nil)
	p := c.mustReceive(iscsi.OpTaskManagementResponse)
	var r iscsi.TaskManagementResponse
	if err := r.Decode(&p.h); err != nil || r.InitiatorTaskTag != c.itt {
		c.t.Fatal(err, r)
	}
	return r.Response
}

func TestTaskManagement(t *testing.T) {
	conf := oneTarget(LUN{Number: 0, Size: 1 << 20}, LUN{Number: 1, Size: 1 << 20})
	conf.Faults = []Fault{{Action: ActionHold, Command: "0x35", Times: -1}} // SYNCHRONIZE CACHE never ends
	_, address := serve(t, conf)
	c := mustLogin(t, address)
	other := dial(t, address)
	other.isid[5]++
	if err := other.login(); err != nil {
		t.Fatal(err)
	}
	hold := func(c *client, lun uint64) uint32 {
		tag, _ := c.begin(lun<<48, cdb10(0x35, 0, 0), 0, nil)
		c.good(0, testUnitReady(), 0, nil)
		return tag
	}
	expect := func(what string, got, want iscsi.TaskResponse) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	tag := hold(c, 0)
	expect("ABORT TASK", c.manage(iscsi.AbortTask, 0, tag), iscsi.TaskFunctionComplete)
	expect("ABORT TASK again", c.manage(iscsi.AbortTask, 0, tag), iscsi.TaskDoesNotExist)
	expect("RESET of no LUN", c.manage(iscsi.LogicalUnitReset, 9<<48, iscsi.ReservedTag), iscsi.TaskLUNDoesNotExist)
	expect("TASK REASSIGN", c.manage(iscsi.TaskReassign, 0, tag), iscsi.TaskReassignmentNotSupported)

	mine, theirs, elsewhere := hold(c, 0), hold(other, 0), hold(other, 1)
	expect("LUN RESET", c.manage(iscsi.LogicalUnitReset, 0, iscsi.ReservedTag), iscsi.TaskFunctionComplete)
	expect("after LUN RESET", c.manage(iscsi.AbortTask, 0, mine), iscsi.TaskDoesNotExist)
	expect("after LUN RESET, other session", other.manage(iscsi.AbortTask, 0, theirs), iscsi.TaskDoesNotExist)
	expect("after LUN RESET, other LUN", other.manage(iscsi.AbortTask, 1<<48, elsewhere), iscsi.TaskFunctionComplete)
	for _, c := range []*client{c, other} {
		if r := c.must(0, testUnitReady(), 0, nil); r.code() != "6/29/03" {
			t.Errorf("unit attention %q after LUN RESET", r.code())
		}
		c.good(0, testUnitReady(), 0, nil)
		c.good(1<<48, testUnitReady(), 0, nil)
	}

	mine, elsewhere = hold(c, 0), hold(other, 1)
	expect("WARM RESET", c.manage(iscsi.TargetWarmReset, 0, iscsi.ReservedTag), iscsi.TaskFunctionComplete)
	expect("after WARM RESET", c.manage(iscsi.AbortTask, 0, mine), iscsi.TaskDoesNotExist)
	expect("after WARM RESET, other session", other.manage(iscsi.AbortTask, 1<<48, elsewhere), iscsi.TaskDoesNotExist)
	expect("COLD RESET", c.manage(iscsi.TargetColdReset, 0, iscsi.ReservedTag), iscsi.TaskFunctionComplete)
	c.gone()
	other.gone()
}

func TestUnitAttention(t *testing.T) {
	conf := oneTarget(LUN{Number: 0, Size: 1 << 20})
	conf.Targets[0].NoPowerOn = false
	s, address := serve(t, conf)
	c := mustLogin(t, address)
	attention := func(want string) {
		t.Helper()
		c.good(0, [16]byte{0x12, 4: 36}, 36, nil) // INQUIRY does not take it
		if r := c.must(0, testUnitReady(), 0, nil); r.code() != want {
			t.Errorf("unit attention %q, want %s", r.code(), want)
		}
		c.good(0, testUnitReady(), 0, nil)
	}
	attention("6/29/00")
	if err := s.Resize(testTarget, 0, 2<<20); err != nil {
		t.Fatal(err)
	}
	attention("6/2a/09")
	out := pattern(512, 4)
	c.good(0, cdb10(0x2a, 4095, 1), 0, out)
	equal(t, "grown part", c.good(0, cdb10(0x28, 4095, 1), 512, nil), out)
	if err := s.AddLUN(testTarget, LUN{Number: 3, Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	attention("6/3f/0e")
	if err := s.RemoveLUN(testTarget, 3); err != nil {
		t.Fatal(err)
	}
	if b := c.good(0, [16]byte{0xa0, 9: 64}, 64, nil); b[3] != 8 { // REPORT LUNS takes it
		t.Errorf("REPORT LUNS: %x", b)
	}
	c.good(0, testUnitReady(), 0, nil)
	if r := c.must(3<<48, testUnitReady(), 0, nil); r.code() != "5/25/00" {
		t.Errorf("removed LUN: %s", r.code())
	}
	if err := s.Resize(testTarget, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if b := c.good(0, [16]byte{3, 4: 18}, 18, nil); b[2] != 6 || b[12] != 0x2a || b[13] != 9 { // REQUEST SENSE takes it
		t.Errorf("REQUEST SENSE: %x", b)
	}
	if r := c.must(0, cdb10(0x28, 4095, 1), 512, nil); r.code() != "5/21/00" {
		t.Errorf("beyond the new end: %s", r.code())
	}
	for _, err := range []error{
		s.Resize(testTarget, 9, 1<<20), s.Resize(testTarget, 0, 100), s.Resize("iqn.x", 0, 512),
		s.AddLUN(testTarget, LUN{Number: 0, Size: 512}), s.RemoveLUN(testTarget, 3), s.Async("iqn.x", AsyncEvent{}),
	} {
		if err == nil {
			t.Error("no error")
		}
	}
}

func TestBusy(t *testing.T) {
	s, address := serve(t, oneTarget(smallLUN))
	c := mustLogin(t, address)
	if err := s.SetBusy(testTarget, 0, true); err != nil {
		t.Fatal(err)
	}
	if r := c.must(0, cdb10(0x28, 0, 1), 512, nil); r.status != uint8(scsi.Busy) {
		t.Errorf("status %#x", r.status)
	}
	if err := s.SetBusy(testTarget, 0, false); err != nil {
		t.Fatal(err)
	}
	c.good(0, testUnitReady(), 0, nil)
}

func TestNOP(t *testing.T) {
	s, address := serve(t, oneTarget(smallLUN))
	c := mustLogin(t, address, "HeaderDigest=CRC32C", "DataDigest=CRC32C")
	var h iscsi.BHS
	(&iscsi.NOPOut{InitiatorTaskTag: 5, TargetTransferTag: iscsi.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c.statSN}).Encode(&h)
	c.cmdSN++
	c.mustSend(&h, []byte("hello"))
	if p := c.mustReceive(iscsi.OpNOPIn); string(p.data) != "hello" || p.h.InitiatorTaskTag() != 5 {
		t.Errorf("answer %q to %d", p.data, p.h.InitiatorTaskTag())
	}
	if err := s.Ping(testTarget); err != nil {
		t.Fatal(err)
	}
	p := c.mustReceive(iscsi.OpNOPIn)
	(&iscsi.NOPOut{
		Immediate: true, InitiatorTaskTag: iscsi.ReservedTag, TargetTransferTag: p.h.TargetTransferTag(),
		CmdSN: c.cmdSN, ExpStatSN: c.statSN,
	}).Encode(&h)
	c.mustSend(&h, nil)
	c.good(0, testUnitReady(), 0, nil)
}

// TestNOPInterval does not answer the target's ping.
func TestNOPInterval(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.NOPInterval = Duration(10 * time.Millisecond)
	_, address := serve(t, conf)
	c := mustLogin(t, address)
	c.mustReceive(iscsi.OpNOPIn)
	c.gone()
}

func TestAsync(t *testing.T) {
	s, address := serve(t, oneTarget(smallLUN))
	c := mustLogin(t, address)
	sense := Sense{Key: scsi.UnitAttention, Code: scsi.CodeLUNsChanged}
	if err := s.Async(testTarget, AsyncEvent{Event: iscsi.AsyncSCSIEvent, Sense: sense}); err != nil {
		t.Fatal(err)
	}
	p := c.mustReceive(iscsi.OpAsyncMessage)
	raw, _, err := iscsi.ParseAsyncSense(p.data)
	if got, ok := scsi.ParseSense(raw); err != nil || !ok || got.Key != sense.Key || got.Code != sense.Code {
		t.Errorf("%v, %x", err, p.data)
	}
	if err := s.Async(testTarget, AsyncEvent{Event: iscsi.AsyncDropSession, Parameters: [3]uint16{0, 3, 4}}); err != nil {
		t.Fatal(err)
	}
	var a iscsi.AsyncMessage
	p = c.mustReceive(iscsi.OpAsyncMessage)
	if err := a.Decode(&p.h); err != nil || a.Event != iscsi.AsyncDropSession || a.Parameter2 != 3 || a.Parameter3 != 4 {
		t.Errorf("%v, %+v", err, a)
	}
	c.gone()
}

func TestLogout(t *testing.T) {
	s, address := serve(t, oneTarget(smallLUN))
	c := mustLogin(t, address)
	for reason, want := range []iscsi.LogoutResponseCode{
		iscsi.LogoutRemoveForRecovery: iscsi.LogoutRecoveryNotSupported, iscsi.LogoutCloseConnection: iscsi.LogoutCIDNotFound,
	} {
		if reason != 0 {
			c.logout(iscsi.LogoutReason(reason), 9, want)
		}
	}
	c.logout(iscsi.LogoutCloseSession, 0, iscsi.LogoutSuccess)
	c.gone()
	c = mustLogin(t, address)
	if list := s.Sessions(); len(list) != 1 {
		t.Errorf("%d sessions", len(list))
	}
	s.DropAll()
	c.gone()
}

func (c *client) logout(reason iscsi.LogoutReason, cid uint16, want iscsi.LogoutResponseCode) {
	c.t.Helper()
	var h iscsi.BHS
	(&iscsi.LogoutRequest{Reason: reason, CID: cid, InitiatorTaskTag: 3, CmdSN: c.cmdSN, ExpStatSN: c.statSN}).Encode(&h)
	c.cmdSN++
	c.mustSend(&h, nil)
	p := c.mustReceive(iscsi.OpLogoutResponse)
	var r iscsi.LogoutResponse
	if err := r.Decode(&p.h); err != nil || r.Response != want {
		c.t.Errorf("%v: %v, %v; want %v", reason, r.Response, err, want)
	}
}
