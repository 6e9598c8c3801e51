package conformance

import (
	"testing"
	"time"

	"iscsictl/target"
)

const fullFeatureSuite = "Full-feature phase"

// lun returns a target of one logical unit with some keys of the negotiation.
func keys(pairs ...string) target.Target {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return target.Target{Keys: m}
}

func fullFeature() []group {
	return []group{
		{fullFeatureSuite, "CmdSN", []item{
			{"FFP 1.1", "counts up by one from the login's", "§4.2.2.1", commandNumbers, ""},
		}},
		{fullFeatureSuite, "immediate delivery", []item{
			{"FFP 2.1", "an immediate request does not advance CmdSN", "§4.2.2.1", immediateDelivery, ""},
		}},
		{fullFeatureSuite, "MaxCmdSN", []item{
			{"FFP 3.1", "nothing is sent into a closed window", "§4.2.2.1", closedWindow, ""},
			{"FFP 3.2", "a window of one command", "§4.2.2.1", windowOf(1), ""},
			{"FFP 3.3", "a large window", "§4.2.2.1", windowOf(4096), ""},
			{"FFP 3.4", "a MaxCmdSN below ExpCmdSN-1 is ignored", "§4.2.2.1", backwardWindow, ""},
		}},
		{fullFeatureSuite, "command retry", []item{
			{"FFP 4.1", "a command that was lost is not sent again on the connection", "§7.2.1", lostCommand, ""},
			{"FFP 4.2", "retry with the same CmdSN and tag", "§7.2.1", nil, "ErrorRecoveryLevel 0 is offered"},
		}},
		{fullFeatureSuite, "ExpStatSN", []item{
			{"FFP 5.1", "status is acknowledged", "§4.2.2.2", acknowledged, ""},
			{"FFP 5.2", "a StatSN that is left out ends the session, which is then reinstated", "§7.9", statusGap, ""},
		}},
		{fullFeatureSuite, "DataSN", []item{
			{"FFP 6.1", "a gap in the DataSN of Data-In is not taken for data", "§4.2.2.3", dataGap, ""},
			{"FFP 6.2", "Data-Out count from 0 in each sequence", "§11.7.5", dataOutNumbers, ""},
		}},
		{fullFeatureSuite, "connection reassignment", []item{
			{"FFP 7.1", "TASK REASSIGN", "§7.2.2", nil, "ErrorRecoveryLevel 0 is offered"},
		}},
		{fullFeatureSuite, "solicited and unsolicited data", []item{
			{"FFP 8.1", "InitialR2T=Yes, ImmediateData=No: none is unsolicited", "§13.10, §13.11", unsolicited("Yes", "No"), ""},
			{"FFP 8.2", "InitialR2T=Yes, ImmediateData=Yes: immediate data alone", "§13.10, §13.11", unsolicited("Yes", "Yes"), ""},
			{"FFP 8.3", "InitialR2T=No, ImmediateData=No: up to FirstBurstLength in Data-Out", "§13.10, §13.14", unsolicited("No", "No"), ""},
			{"FFP 8.4", "InitialR2T=No, ImmediateData=Yes: both, up to FirstBurstLength", "§13.10, §13.14", unsolicited("No", "Yes"), ""},
		}},
		{fullFeatureSuite, "target transfer tag", []item{
			{"FFP 9.1", "Data-Out bear the tag and the LUN of their R2T", "§11.7.4", transferTags, ""},
			{"FFP 9.2", "unsolicited Data-Out bear the reserved tag", "§11.7.4", unsolicited("No", "No"), ""},
		}},
		{fullFeatureSuite, "Data-In", []item{
			{"FFP 10.1", "status in the last Data-In ends the command", "§11.7.3", statusInData(false), ""},
			{"FFP 10.2", "status in a SCSI Response after the data ends it", "§11.4", statusInData(true), ""},
			{"FFP 10.3", "A bit: DataACK", "§11.7.2", nil, "ErrorRecoveryLevel 0 is offered"},
		}},
		{fullFeatureSuite, "Data-Out", []item{
			{"FFP 11.1", "segments keep to the target's MaxRecvDataSegmentLength", "§13.12", outSegments, ""},
			{"FFP 11.2", "the F bit is in the last of a sequence and in no other", "§11.7.1", outSegments, ""},
			{"FFP 11.3", "offsets follow each other", "§11.7.5, §13.18", outSegments, ""},
		}},
		{fullFeatureSuite, "R2T", []item{
			{"FFP 12.1", "an R2T is answered with just what it asks for", "§11.8.4", outSegments, ""},
			{"FFP 12.2", "several R2Ts at a time are answered in their order", "§13.17", severalR2Ts, ""},
			{"FFP 12.3", "an R2T beyond the data is not answered", "§11.8.4", beyondR2T, ""},
			{"FFP 12.4", "an R2T for a read ends the session", "§11.8", readR2T, ""},
		}},
		{fullFeatureSuite, "SNACK", []item{
			{"FFP 13.1", "none at ErrorRecoveryLevel 0, whatever is missing", "§11.16", dataGap, ""},
			{"FFP 13.2", "Status, Data and R2T SNACK", "§11.16", nil, "ErrorRecoveryLevel 0 is offered"},
		}},
	}
}

// commandNumbers: §4.2.2.1: the first command has the CmdSN of the login, and
// each one that is not immediate the next.
func commandNumbers(t *testing.T) {
	g := newRig(t, target.Target{})
	c := g.up()
	for i := range 20 {
		g.same(c, int64(i)*4096, 4096)
	}
	list := g.trace()
	login, cmds := all(list, loginRequest), all(list, scsiCommand)
	if len(cmds) < 40 {
		t.Fatalf("%d commands", len(cmds))
	}
	if first := login[0].cmdSN(); cmds[0].cmdSN() != first {
		t.Errorf("the first command has CmdSN %d; login had %d", cmds[0].cmdSN(), first)
	}
	for i, p := range cmds {
		if p.immediate() {
			t.Errorf("a SCSI command is immediate: %v", p)
		}
		if want := cmds[0].cmdSN() + uint32(i); p.cmdSN() != want {
			t.Fatalf("command %d has CmdSN %d, not %d", i, p.cmdSN(), want)
		}
	}
}

// immediateDelivery: a ping is immediate, bears the next CmdSN, and the command
// after it bears the same.
func immediateDelivery(t *testing.T) {
	g := newRig(t, target.Target{})
	c := g.up("PingTimeout = 30")
	ping := g.first("a ping", func(p *pdu) bool { return p.sent && p.opcode() == nopOut })
	g.same(c, 0, 512)
	if !ping.immediate() {
		t.Errorf("the ping is not immediate: %v", ping)
	}
	for _, p := range all(g.trace(), scsiCommand) {
		if p.at.After(ping.at) {
			if p.cmdSN() != ping.cmdSN() {
				t.Errorf("CmdSN %d after an immediate request with %d", p.cmdSN(), ping.cmdSN())
			}
			return
		}
	}
	t.Error("no command came after the ping")
}

// closedWindow closes the window for a while in the middle of I/O. That nothing
// comes into it is what always judges.
func closedWindow(t *testing.T) {
	g := newRig(t, target.Target{Window: 4}, target.Fault{PDU: "scsi-command", Command: "write", Nth: 3, Action: target.ActionCloseWindow, Delay: target.Duration(300 * time.Millisecond)})
	c := g.up()
	for i := range 12 {
		g.same(c, int64(i)*512, 512)
	}
	var gap time.Duration
	cmds := all(g.trace(), scsiCommand)
	for i := 1; i < len(cmds); i++ {
		gap = max(gap, cmds[i].at.Sub(cmds[i-1].at))
	}
	if gap < 200*time.Millisecond {
		t.Errorf("no command was held back: the longest gap is %v", gap)
	}
}

func windowOf(n int) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, target.Target{Window: n})
		c := g.up()
		// One request of several commands' size, so that there is more to be
		// sent than a window of one takes.
		g.same(c, 0, 4<<20)
		g.same(c, 4<<20, 512)
	}
}

// backwardWindow: §4.2.2.1: "MaxCmdSN less than ExpCmdSN-1 ... ignored".
func backwardWindow(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "scsi-response", Action: target.ActionMaxCmdSN, Delta: -1000, Times: -1})
	c := g.up()
	for i := range 8 {
		g.same(c, int64(i)*4096, 4096)
	}
	if n := len(all(g.trace(), loginRequest)); n > 3 {
		t.Errorf("the session was made anew (%d login requests)", n)
	}
}

// lostCommand: the target loses a write. With ErrorRecoveryLevel 0 its tag and
// CmdSN are not used for it a second time on the connection; the session's time
// limit sees to it.
func lostCommand(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "scsi-command", Command: "write", Action: target.ActionSwallow})
	c := g.up("CommandTimeout = 1")
	g.same(c, 0, 4096)
	seen := map[[2]uint32]bool{}
	for _, p := range all(g.trace(), scsiCommand) {
		key := [2]uint32{uint32(p.conn), p.cmdSN()}
		if seen[key] {
			t.Errorf("CmdSN %d was used twice on connection %d", p.cmdSN(), p.conn)
		}
		seen[key] = true
	}
	if n := len(commands(g.trace(), writes...)); n < 2 {
		t.Errorf("the write was sent %d times", n)
	}
}

// acknowledged: §4.2.2.2: ExpStatSN follows StatSN; what is not acknowledged by a
// command is by the ping of a silent second.
func acknowledged(t *testing.T) {
	g := newRig(t, target.Target{})
	c := g.up("PingTimeout = 30")
	for i := range 8 {
		g.same(c, int64(i)*512, 512)
	}
	answer := g.trace()
	last := answer[len(answer)-1].at
	ping := g.first("a ping after the last command", func(p *pdu) bool {
		return p.sent && p.opcode() == nopOut && p.itt() != reserved && p.at.After(last)
	})
	if ping.expStatSN() != ping.statSN+1 {
		t.Errorf("ExpStatSN %d after StatSN %d", ping.expStatSN(), ping.statSN)
	}
}

// reinstated judges that a new connection was made for the session as §6.3.5
// has it: the same ISID, and TSIH 0.
func (g *rig) reinstated() {
	g.Helper()
	again := g.first("a login on a second connection", func(p *pdu) bool { return p.conn == 2 && p.opcode() == loginRequest })
	first := all(g.trace(), loginRequest)[0]
	if string(again.h[8:14]) != string(first.h[8:14]) {
		g.Errorf("ISID % x, then % x", first.h[8:14], again.h[8:14])
	}
	if again.h[14] != 0 || again.h[15] != 0 {
		g.Errorf("TSIH 0x%x in a reinstatement", again.h[14:16])
	}
}

// statusGap: §7.9: a hole in StatSN is a sequence error, which at level 0 ends
// the session. The write in question is repeated by the next.
func statusGap(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{PDU: "scsi-response", Command: "", Nth: 2, Phase: "full-feature", Action: target.ActionStatSN, Delta: 1})
	c := g.up()
	g.same(c, 0, 4096)
	g.reinstated()
}

// dataGap: a Data-In is missing by its number. What came is not given out.
func dataGap(t *testing.T) {
	g := newRig(t, keys("MaxRecvDataSegmentLength", "8192"), target.Fault{Command: "read", PDU: "scsi-command", Nth: 1, Action: target.ActionDataGap})
	c := g.up()
	g.must(c.WriteAt(pattern(0, 1<<20), 0))
	g.reads(c, 0, 1<<20)
	g.reinstated()
}

// sequences splits the Data-Out of a task by their target transfer tags, in the
// order of their beginnings.
func sequences(list []*pdu, itt uint32) (found [][]*pdu) {
	at := map[uint32]int{}
	for _, p := range of(list, dataOut, itt) {
		i, ok := at[p.ttt()]
		if !ok {
			i = len(found)
			at[p.ttt()] = i
			found = append(found, nil)
		}
		found[i] = append(found[i], p)
	}
	return found
}

// longWrite writes 200,704 bytes and returns its command and what was said.
func longWrite(g *rig) (*pdu, []*pdu) {
	g.Helper()
	c := g.up()
	g.same(c, 4096, 196<<10)
	list := g.trace()
	for _, p := range commands(list, writes...) {
		if p.edtl() == 196<<10 {
			return p, list
		}
	}
	g.Fatal("no write of 200704 bytes")
	return nil, nil
}

func dataOutNumbers(t *testing.T) {
	g := newRig(t, keys("MaxRecvDataSegmentLength", "8192", "MaxBurstLength", "65536", "FirstBurstLength", "16384", "InitialR2T", "No", "ImmediateData", "No"))
	w, list := longWrite(g)
	seqs := sequences(list, w.itt())
	if len(seqs) < 3 {
		t.Fatalf("%d sequences", len(seqs))
	}
	for _, s := range seqs {
		for i, p := range s {
			if p.dataSN() != uint32(i) {
				t.Errorf("DataSN %d in place %d of the sequence of tag 0x%x", p.dataSN(), i, p.ttt())
			}
		}
	}
}

// unsolicited judges how much of a write comes without having been asked for.
func unsolicited(initialR2T, immediate string) func(*testing.T) {
	return func(t *testing.T) {
		const firstBurst = 16384
		g := newRig(t, keys("MaxRecvDataSegmentLength", "8192", "MaxBurstLength", "65536", "FirstBurstLength", "16384", "InitialR2T", initialR2T, "ImmediateData", immediate))
		w, list := longWrite(g)
		n := len(w.data)
		if immediate == "No" && n > 0 {
			t.Errorf("%d bytes of immediate data with ImmediateData=No", n)
		}
		var loose []*pdu
		for _, p := range of(list, dataOut, w.itt()) {
			if p.ttt() == reserved {
				loose = append(loose, p)
				n += len(p.data)
			}
		}
		if initialR2T == "Yes" && len(loose) > 0 {
			t.Errorf("%d unsolicited Data-Out with InitialR2T=Yes", len(loose))
		}
		if n > firstBurst {
			t.Errorf("%d unsolicited bytes, over FirstBurstLength %d", n, firstBurst)
		}
		if initialR2T == "No" && n != firstBurst {
			t.Errorf("%d unsolicited bytes, where %d may be sent", n, firstBurst)
		}
		// §11.3.1: F in the command says that no unsolicited data follow.
		if w.final() != (len(loose) == 0) {
			t.Errorf("the F bit of the command is %v with %d unsolicited Data-Out", w.final(), len(loose))
		}
		for i, p := range loose {
			if p.final() != (i == len(loose)-1) {
				t.Errorf("F bit %v in unsolicited Data-Out %d of %d", p.final(), i, len(loose))
			}
		}
	}
}

// transferTags: §11.7.4: the tag is copied, and then the LUN as well.
func transferTags(t *testing.T) {
	g := newRig(t, keys("MaxRecvDataSegmentLength", "8192", "MaxBurstLength", "65536", "InitialR2T", "Yes", "ImmediateData", "No"))
	w, list := longWrite(g)
	tags := map[uint32]bool{}
	for _, r := range of(list, readyToTransfer, w.itt()) {
		tags[r.ttt()] = true
	}
	for _, p := range of(list, dataOut, w.itt()) {
		if !tags[p.ttt()] || p.lun() != w.lun() {
			t.Errorf("Data-Out with tag 0x%x, LUN %x", p.ttt(), p.lun())
		}
	}
}

func statusInData(separate bool) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, target.Target{SeparateStatus: separate})
		c := g.up()
		g.same(c, 0, 64<<10)
		for _, r := range commands(g.trace(), reads...) {
			if n := len(of(g.trace(), scsiResponse, r.itt())); (n > 0) != separate && r.conn == 1 && r.edtl() == 64<<10 {
				t.Errorf("%d responses to a read (status apart: %v)", n, separate)
			}
		}
		if len(all(g.trace(), loginRequest)) > 3 {
			t.Error("the session was made anew")
		}
	}
}

// outSegments judges all Data-Out of a write that is asked for by R2Ts.
func outSegments(t *testing.T) {
	const limit = 4096
	g := newRig(t, keys("MaxRecvDataSegmentLength", "4096", "MaxBurstLength", "65536", "InitialR2T", "Yes", "ImmediateData", "No", "MaxOutstandingR2T", "1"))
	w, list := longWrite(g)
	r2ts := of(list, readyToTransfer, w.itt())
	seqs := sequences(list, w.itt())
	if len(seqs) != len(r2ts) || len(r2ts) != 4 {
		t.Fatalf("%d R2Ts, %d sequences; want 4", len(r2ts), len(seqs))
	}
	for i, r := range r2ts {
		at, total := r.offset(), uint32(0)
		for j, p := range seqs[i] {
			if len(p.data) > limit {
				t.Errorf("a segment of %d bytes, over %d", len(p.data), limit)
			}
			if p.ttt() != r.ttt() || p.offset() != at {
				t.Errorf("Data-Out of tag 0x%x at %d, where 0x%x at %d is due", p.ttt(), p.offset(), r.ttt(), at)
			}
			if p.final() != (j == len(seqs[i])-1) {
				t.Errorf("F bit %v in Data-Out %d of %d", p.final(), j, len(seqs[i]))
			}
			at += uint32(len(p.data))
			total += uint32(len(p.data))
		}
		if total != r.desired() {
			t.Errorf("%d bytes for an R2T of %d", total, r.desired())
		}
	}
}

// severalR2Ts: §13.17 and §13.19: with DataSequenceInOrder=Yes R2Ts are answered
// in their order.
func severalR2Ts(t *testing.T) {
	g := newRig(t, keys("MaxRecvDataSegmentLength", "8192", "MaxBurstLength", "16384", "InitialR2T", "Yes", "ImmediateData", "No", "MaxOutstandingR2T", "4"))
	w, list := longWrite(g)
	r2ts, seqs := of(list, readyToTransfer, w.itt()), sequences(list, w.itt())
	if len(r2ts) != len(seqs) || len(r2ts) < 12 {
		t.Fatalf("%d R2Ts, %d sequences", len(r2ts), len(seqs))
	}
	for i := range r2ts {
		if r2ts[i].ttt() != seqs[i][0].ttt() {
			t.Errorf("sequence %d is for another R2T", i)
		}
	}
}

// beyondR2T: no byte that is not the command's is sent, and the session goes on
// anew.
func beyondR2T(t *testing.T) {
	g := newRig(t, keys("InitialR2T", "Yes", "ImmediateData", "No"), target.Fault{Command: "write", Action: target.ActionR2T, R2T: target.R2TShape{Beyond: 4096}})
	c := g.up()
	g.same(c, 0, 64<<10)
	for _, p := range all(g.trace(), dataOut) {
		if p.offset()+uint32(len(p.data)) > 64<<10 {
			t.Errorf("data beyond the command's: %v", p)
		}
	}
	g.reinstated()
}

func readR2T(t *testing.T) {
	g := newRig(t, target.Target{}, target.Fault{Command: "read", Action: target.ActionR2T, R2T: target.R2TShape{ForRead: true}})
	c := g.up()
	g.same(c, 0, 4096)
	for _, r := range commands(g.trace(), reads...) {
		if n := len(of(g.trace(), dataOut, r.itt())); n > 0 {
			t.Errorf("%d Data-Out for a read", n)
		}
	}
	g.reinstated()
}
