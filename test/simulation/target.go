package simulation

import (
	"slices"

	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// target is the model of a target with one logical unit: what it holds, and the
// session that it has with the initiator.
type target struct {
	w      *world
	blocks []byte
	n      *nexus // nil: nobody is logged in
	logins int
	ua     []scsi.Code // unit attentions that are due
}

// nexus is the target's side of a session (one connection).
type nexus struct {
	t      *target
	p      terms
	wire   wire
	statSN uint32
	expCmd uint32
	maxCmd uint32
	told   uint32 // MaxCmdSN that was sent last
	tasks  []*task
	number uint64 // of the initiator's count
	over   bool   // reinstated, logged out or dropped: nothing of it acts any more
	pings  uint32
}

// wire is how a nexus sends: PDUs on a stream, or messages and RDMA.
type wire interface {
	send(h *iscsi.BHS, data []byte)
	// fetch moves some of a write's data here, or asks for them; deliver
	// some of a read's. They report whether there was anything to be done.
	fetch(k *task) bool
	deliver(k *task) (moved int)
}

// phase is how far a task is.
type phase uint8

const (
	collecting phase = iota // its data is on the way
	answering               // executed; data may still have to be sent
)

// task is a command that was received.
type task struct {
	c       iscsi.SCSICommand
	r       scsi.Range
	op      scsi.Opcode
	data    []byte // of a write, as it comes; of a read, as it was when executed
	got     int    // bytes of data that came, without a gap
	phase   phase
	sent    int
	dataSN  uint32
	r2tSN   uint32
	asked   int // bytes that were sent unasked or asked for
	r2ts    []r2t
	unasked bool // unsolicited Data-Out is still coming
	header  iscsi.ISERHeader
	short   int  // bytes that a read leaves out, at its end
	stuck   bool // nothing is done about it for now
}

type r2t struct {
	tag           uint32
	off, len, got int
	dataSN        uint32
}

// accept takes in a command.
func (n *nexus) accept(c iscsi.SCSICommand, immediate []byte) *task {
	w := n.t.w
	if c.Immediate {
		w.violation("a SCSI command is immediate")
	}
	if c.CmdSN != n.expCmd {
		w.violation("CmdSN %d where %d is due", c.CmdSN, n.expCmd)
	}
	if !iscsi.SerialLessEq(c.CmdSN, n.told) {
		w.violation("CmdSN %d is beyond MaxCmdSN %d", c.CmdSN, n.told)
	}
	n.expCmd++
	if n.number != w.looked {
		w.violation("a command came on a nexus on which the disk was not looked at")
	}
	if n.find(c.InitiatorTaskTag) != nil || c.InitiatorTaskTag == iscsi.ReservedTag {
		w.violation("initiator task tag %#x is in use", c.InitiatorTaskTag)
	}
	k := &task{c: c}
	cdb := scsi.CDB(c.CDB)
	k.op = cdb.Opcode()
	k.r, _ = cdb.Range()
	if c.Write {
		k.data = make([]byte, c.ExpectedDataTransferLength)
		k.got = copy(k.data, immediate)
		k.asked = k.got
	}
	n.tasks = append(n.tasks, k)
	w.logf("target: command %v lba %d+%d itt %#x, %d bytes with it", &cdb, k.r.LBA, k.r.Blocks, c.InitiatorTaskTag, len(immediate))
	return k
}

func (n *nexus) find(itt uint32) *task {
	for _, k := range n.tasks {
		if k.c.InitiatorTaskTag == itt {
			return k
		}
	}
	return nil
}

func (n *nexus) drop(k *task) {
	n.tasks = slices.DeleteFunc(n.tasks, func(x *task) bool { return x == k })
}

// step does something for one of the tasks; it reports false where none has
// anything to be done.
func (n *nexus) step() bool {
	if len(n.tasks) == 0 {
		return false
	}
	w := n.t.w
	k := n.tasks[w.rng.IntN(len(n.tasks))]
	if k.stuck = !w.well && (k.stuck && w.rng.IntN(20) > 0 || w.faults.stalls && w.rng.IntN(40) == 0); k.stuck {
		return false
	}
	if k.phase == answering {
		n.answer(k)
		return true
	}
	if n.refuses(k) {
		return true
	}
	if k.got < len(k.data) {
		return n.wire.fetch(k)
	}
	if k.unasked {
		return false
	}
	n.execute(k)
	return true
}

// execute does what a command asks for.
func (n *nexus) execute(k *task) {
	w := n.t.w
	blocks := n.t.blocks
	switch k.op {
	case scsi.OpRead10, scsi.OpRead16:
		from := int(k.r.LBA) * blockSize
		k.data = slices.Clone(blocks[from : from+int(k.r.Blocks)*blockSize])
		if w.faults.errors && !w.well && w.rng.IntN(20) == 0 {
			k.short = 1 + w.rng.IntN(len(k.data))
		}
	case scsi.OpWrite10, scsi.OpWrite16:
		copy(blocks[int(k.r.LBA)*blockSize:], k.data)
		if value, err := valueOf(k.data[:blockSize], int(k.r.LBA)); err != nil {
			w.violation("write: %v", err)
		} else if slices.Contains(w.history.acked, value) {
			w.violation("the write of value %d is executed after it was acknowledged: it may undo a later one", value)
		}
	case scsi.OpWriteSame16:
		for b := range int(k.r.Blocks) {
			copy(blocks[(int(k.r.LBA)+b)*blockSize:], k.data[:blockSize])
		}
	case scsi.OpUnmap:
		list, err := scsi.ParseUnmap(k.data)
		if err != nil || len(list) != 1 {
			w.violation("UNMAP with %d extents (%v)", len(list), err)
		}
		for _, e := range list {
			clear(blocks[int(e.LBA)*blockSize:][:int(e.Blocks)*blockSize])
		}
	}
	k.phase = answering
	w.logf("target: itt %#x is executed", k.c.InitiatorTaskTag)
}

// answer sends some of a read's data, or the status.
func (n *nexus) answer(k *task) {
	if k.c.Read && k.sent < len(k.data)-k.short {
		k.sent += n.wire.deliver(k)
		return
	}
	if n.find(k.c.InitiatorTaskTag) == k {
		n.respond(k, scsi.Good, nil)
	}
}

// respond ends a task with a status.
func (n *nexus) respond(k *task, s scsi.Status, sense []byte) {
	p := iscsi.SCSIResponse{Response: iscsi.ResponseCompleted, Status: uint8(s), InitiatorTaskTag: k.c.InitiatorTaskTag, ExpDataSN: k.dataSN}
	if left := int(k.c.ExpectedDataTransferLength) - k.sent; k.c.Read && left > 0 {
		p.Underflow, p.Residual = true, uint32(left)
	}
	if k.c.Write && s != scsi.Good && k.c.ExpectedDataTransferLength > 0 {
		p.Underflow, p.Residual = true, k.c.ExpectedDataTransferLength
	}
	var data []byte
	if sense != nil {
		data = append([]byte{0, byte(len(sense))}, sense...)
	}
	p.DataSegmentLength = len(data)
	n.drop(k)
	n.status(&p.StatSN, &p.ExpCmdSN, &p.MaxCmdSN)
	n.put(&p, data)
	n.t.w.logf("target: itt %#x is answered with %v", k.c.InitiatorTaskTag, s)
}

// refuses ends a task that is not to be executed, at times.
func (n *nexus) refuses(k *task) bool {
	w := n.t.w
	if len(n.t.ua) > 0 {
		code := n.t.ua[0]
		n.t.ua = n.t.ua[1:]
		n.respond(k, scsi.CheckCondition, scsi.Sense{Key: scsi.UnitAttention, Code: code}.AppendFixed(nil))
		return true
	}
	if w.well || w.rng.IntN(12) != 0 {
		return false
	}
	switch x := w.rng.IntN(10); {
	case x < 2:
		n.respond(k, scsi.Busy, nil)
	case x < 3:
		n.respond(k, scsi.TaskSetFull, nil)
	case x < 4:
		n.respond(k, scsi.CheckCondition, scsi.Sense{Key: scsi.NotReady, Code: scsi.CodeBecomingReady}.AppendFixed(nil))
	case x < 6 && w.faults.errors:
		n.respond(k, scsi.CheckCondition, scsi.Sense{Key: scsi.AbortedCommand}.AppendDescriptor(nil))
	case x < 7 && w.faults.errors:
		n.respond(k, scsi.CheckCondition, scsi.Sense{Key: scsi.MediumError, Code: scsi.CodeWriteError}.AppendFixed(nil))
	case x < 8 && w.faults.errors:
		n.reject(k)
	default:
		return false
	}
	return true
}

// reject refuses a command as a PDU.
func (n *nexus) reject(k *task) {
	var bad iscsi.BHS
	k.c.Encode(&bad)
	p := iscsi.Reject{Reason: iscsi.RejectCommandNotSupported, DataSegmentLength: len(bad)}
	n.drop(k)
	n.status(&p.StatSN, &p.ExpCmdSN, &p.MaxCmdSN)
	n.put(&p, bad[:])
}

// reset ends all tasks without an answer, as another initiator's LOGICAL UNIT
// RESET does, and has every nexus told.
func (t *target) reset(code scsi.Code) {
	if t.n != nil {
		t.n.tasks = nil
	}
	t.ua = append(t.ua, code)
	t.w.logf("target: reset (%v)", code)
}

// status numbers a PDU that has a status.
func (n *nexus) status(statSN, expCmd, maxCmd *uint32) {
	*statSN = n.statSN
	n.statSN++
	n.window(expCmd, maxCmd)
}

// window fills in the command window, which opens and closes as the target likes.
func (n *nexus) window(expCmd, maxCmd *uint32) {
	w := n.t.w
	next := n.expCmd - 1 + uint32(w.rng.IntN(8))
	if w.well {
		next = n.expCmd + 7
	}
	if iscsi.SerialLess(n.maxCmd, next) {
		n.maxCmd = next
	}
	*expCmd, *maxCmd = n.expCmd, n.maxCmd
	n.told = n.maxCmd
}

// put sends a PDU.
func (n *nexus) put(p interface{ Encode(*iscsi.BHS) }, data []byte) {
	var h iscsi.BHS
	p.Encode(&h)
	n.t.w.bend(&h)
	n.wire.send(&h, data)
}

// say sends something that was not asked for.
func (n *nexus) say() {
	w := n.t.w
	switch w.rng.IntN(4) {
	case 0: // a ping of ours
		n.pings++
		p := iscsi.NOPIn{InitiatorTaskTag: iscsi.ReservedTag, TargetTransferTag: n.pings, StatSN: n.statSN}
		n.window(&p.ExpCmdSN, &p.MaxCmdSN)
		n.put(&p, nil)
	case 1: // opens the window
		n.open()
	case 2:
		if w.well || !w.faults.drops {
			return
		}
		event := []iscsi.AsyncEvent{iscsi.AsyncLogoutRequest, iscsi.AsyncDropConnection, iscsi.AsyncDropSession, iscsi.AsyncNegotiate}[w.rng.IntN(4)]
		p := iscsi.AsyncMessage{Event: event}
		n.status(&p.StatSN, &p.ExpCmdSN, &p.MaxCmdSN)
		n.put(&p, nil)
	case 3:
		if w.well {
			return
		}
		sense := scsi.Sense{Key: scsi.UnitAttention, Code: scsi.CodeLUNsChanged}.AppendFixed(nil)
		data := append([]byte{0, byte(len(sense))}, sense...)
		p := iscsi.AsyncMessage{Event: iscsi.AsyncSCSIEvent, DataSegmentLength: len(data)}
		n.status(&p.StatSN, &p.ExpCmdSN, &p.MaxCmdSN)
		n.put(&p, data)
	}
}

// open tells the initiator of the window.
func (n *nexus) open() {
	p := iscsi.NOPIn{InitiatorTaskTag: iscsi.ReservedTag, TargetTransferTag: iscsi.ReservedTag, StatSN: n.statSN}
	n.window(&p.ExpCmdSN, &p.MaxCmdSN)
	n.put(&p, nil)
}

// control takes in a PDU that is not of a task.
func (n *nexus) control(h *iscsi.BHS, data []byte) {
	w := n.t.w
	switch h.Opcode() {
	case iscsi.OpNOPOut:
		n.nopOut(h, data)
	case iscsi.OpTaskManagementRequest:
		n.manage(h)
	case iscsi.OpLogoutRequest:
		var q iscsi.LogoutRequest
		if err := q.Decode(h); err != nil {
			w.violation("logout request: %v", err)
			return
		}
		p := iscsi.LogoutResponse{InitiatorTaskTag: q.InitiatorTaskTag}
		n.status(&p.StatSN, &p.ExpCmdSN, &p.MaxCmdSN)
		n.put(&p, nil)
		n.over, n.tasks = true, nil
	default:
		w.violation("the initiator sent %v", h.Opcode())
	}
}

func (n *nexus) nopOut(h *iscsi.BHS, data []byte) {
	w := n.t.w
	var q iscsi.NOPOut
	if err := q.Decode(h); err != nil {
		w.violation("NOP-Out: %v", err)
		return
	}
	if q.InitiatorTaskTag == iscsi.ReservedTag {
		if q.TargetTransferTag == 0 || q.TargetTransferTag > n.pings {
			w.violation("NOP-Out answers the ping %d, which was not sent", q.TargetTransferTag)
		}
		return
	}
	p := iscsi.NOPIn{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: iscsi.ReservedTag, DataSegmentLength: len(data)}
	n.status(&p.StatSN, &p.ExpCmdSN, &p.MaxCmdSN)
	n.put(&p, data)
}

func (n *nexus) manage(h *iscsi.BHS) {
	w := n.t.w
	var q iscsi.TaskManagementRequest
	if err := q.Decode(h); err != nil {
		w.violation("task management request: %v", err)
		return
	}
	p := iscsi.TaskManagementResponse{InitiatorTaskTag: q.InitiatorTaskTag, Response: iscsi.TaskFunctionComplete}
	switch {
	case !w.well && w.rng.IntN(4) == 0, !w.well && w.faults.stalls && w.rng.IntN(2) == 0:
		p.Response = iscsi.TaskFunctionNotSupported
	case !w.well && w.rng.IntN(8) == 0:
		return // no answer
	case q.Function == iscsi.AbortTask:
		if k := n.find(q.ReferencedTaskTag); k != nil {
			n.drop(k)
		} else {
			p.Response = iscsi.TaskDoesNotExist
		}
	default:
		n.tasks = nil
		n.t.ua = append(n.t.ua, scsi.CodeDeviceReset)
	}
	w.logf("target: %v: %v", q.Function, p.Response)
	n.status(&p.StatSN, &p.ExpCmdSN, &p.MaxCmdSN)
	n.put(&p, nil)
}
