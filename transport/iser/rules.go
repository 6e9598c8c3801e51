package iser

import (
	"bytes"
	"errors"
	"fmt"

	"iscsictl/iscsi"
	"iscsictl/transport"
	"iscsictl/transport/rdma"
	"iscsictl/wait"
)

// controlsMax bounds the PDUs that wait for a slot and are not commands: a
// target that asks for answers and takes none must not fill our memory.
const controlsMax = 256

// taskState is what the datamover knows of one task.
type taskState struct {
	task     *transport.Task
	region   rdma.Region // what the command has advertised; Key 0: nothing
	sending  bool        // immediate data, out of the task's extent, are on their way
	granted  bool        // region is with the target, or its end was not confirmed yet
	ended    bool        // response is the target's
	response transport.Result
}

// mover is the datamover in the full-feature phase. It implements
// transport.Mover and rdma.Handler; the lock of both is the session's.
type mover struct {
	conn    rdma.Conn
	session transport.Session
	params  transport.Params
	early   error // the connection had ended before the full-feature phase
	marks   marks

	tasks      []taskState
	commands   int      // that may be with the target at a time
	active     int      // that are
	waiting    []uint16 // tasks that wait for a place, in order
	slots      []uint16 // that are free
	owner      []uint32 // by slot: task whose immediate data it sends, or noTask
	unsignaled int
	controls   []control // that wait for a slot
	failed     error
	result     transport.Result // of the task that ends: in one place, so that none is allocated
}

const noTask = ^uint32(0)

// control is a PDU that waits for a slot.
type control struct {
	h    iscsi.BHS
	data []byte
}

// signalEvery is how many sends may go without asking for their completion,
// which is what gives their slots back.
const signalEvery = 32

func newMover(c rdma.Conn, p transport.Params, s transport.Session, tasks, commands int) *mover {
	m := &mover{
		conn: c, session: s, params: p, commands: commands, marks: newMarks(),
		tasks: make([]taskState, tasks), waiting: make([]uint16, 0, tasks),
		slots: make([]uint16, 0, commands+spareSlots), owner: make([]uint32, commands+spareSlots),
	}
	for i := range m.owner {
		m.owner[i] = noTask
		m.slots = append(m.slots, uint16(i))
	}
	return m
}

// Start implements transport.Mover: events have come since Handover; only the
// end of the connection may have been missed.
func (m *mover) Start() {
	if m.early != nil {
		go m.session.Down(m.early)
	}
}

// Flush implements transport.Mover.
func (m *mover) Flush() { m.conn.Flush() }

// Lend implements wait.Lender, where the connection can be lent.
func (m *mover) Lend(t wait.Thread) {
	if c, ok := m.conn.(wait.Lender); ok {
		c.Lend(t)
	}
}

// Close implements transport.Mover.
func (m *mover) Close(err error) { m.conn.Close(err) }

// Enter implements rdma.Handler.
func (m *mover) Enter() { m.session.Enter() }

// Leave implements rdma.Handler.
func (m *mover) Leave() { m.session.Leave() }

// Closed implements rdma.Handler.
func (m *mover) Closed(err error) { m.session.Down(err) }

// Command implements transport.Mover.
func (m *mover) Command(t *transport.Task) {
	m.tasks[t.Index] = taskState{task: t}
	m.waiting = append(m.waiting, uint16(t.Index))
	m.pump()
}

// pump sends what waits, as far as there are places: PDUs that are not commands
// first, since they are outside of the command window and few. Some slots are
// kept for them.
func (m *mover) pump() {
	for len(m.controls) > 0 && len(m.slots) > 0 {
		c := m.controls[0]
		m.controls = m.controls[1:]
		m.sendControl(&c.h, c.data)
	}
	n := 0
	for n < len(m.waiting) && m.active < m.commands && len(m.slots) > spareSlots/2 {
		st := &m.tasks[m.waiting[n]]
		n++
		m.active++
		if err := m.issue(st); err != nil && m.failed == nil {
			m.failed = err
		}
	}
	m.waiting = m.waiting[:copy(m.waiting, m.waiting[n:])]
}

// issue sends a command. A write that fits goes with it whole, as immediate
// data; of other data the target is told where they are, and moves them itself.
func (m *mover) issue(st *taskState) error {
	t := st.task
	c := &t.Command
	c.ExpStatSN = m.session.ExpStatSN()
	c.Final, c.AHSLength, c.DataSegmentLength = true, 0, 0
	w := rdma.WorkRequest{Op: rdma.OpSend}
	var r iscsi.ISERHeader
	var err error
	switch out, in := t.Out.Len(), t.In.Len(); {
	case out > 0 && m.immediate(out):
		c.DataSegmentLength = out
		w.Data, w.Signal, st.sending = t.Out, true, true
	case out > 0:
		if st.region, err = m.conn.Grant(uint64(t.Index), t.Out, rdma.RemoteRead); err != nil {
			return err
		}
		st.granted = true
		r.HasWrite, r.WriteSTag, r.WriteBase = true, uint32(st.region.Key), st.region.Addr
	case in > 0:
		m.marks.leave(t.In.Bytes())
		if st.region, err = m.conn.Grant(uint64(t.Index), t.In, rdma.RemoteWrite); err != nil {
			return err
		}
		st.granted = true
		r.HasRead, r.ReadSTag, r.ReadBase = true, uint32(st.region.Key), st.region.Addr
	}
	var h iscsi.BHS
	c.Encode(&h)
	slot := m.slot()
	if st.sending {
		m.owner[slot] = uint32(t.Index)
	}
	w.Head = put(m.conn.SendSlot(slot), &r, &h)
	return m.post(slot, w)
}

// immediate reports whether a write goes with its command. Its length must need
// no padding, which there is no place for behind the data.
func (m *mover) immediate(n int) bool {
	return m.params.ImmediateData && n%4 == 0 && n <= min(m.params.FirstBurstLength, m.params.MaxSendDataSegmentLength)
}

// slot takes a send slot; there is one.
func (m *mover) slot() int {
	i := m.slots[len(m.slots)-1]
	m.slots = m.slots[:len(m.slots)-1]
	return int(i)
}

func (m *mover) post(slot int, w rdma.WorkRequest) error {
	w.ID, w.Slot = uint64(slot), slot
	m.unsignaled++
	if m.unsignaled >= signalEvery || len(m.slots) <= spareSlots {
		w.Signal = true
	}
	if w.Signal {
		m.unsignaled = 0
	}
	return m.conn.Post(w)
}

// Control implements transport.Mover.
func (m *mover) Control(h *iscsi.BHS, data []byte) {
	h.SetExpStatSN(m.session.ExpStatSN())
	if len(data) > m.params.MaxSendDataSegmentLength {
		m.failed = fmt.Errorf("%v with %d bytes of data, over the %d that the target takes", h.Opcode(), len(data), m.params.MaxSendDataSegmentLength)
		return
	}
	if len(m.slots) > 0 && len(m.controls) == 0 {
		m.sendControl(h, data)
		return
	}
	if len(m.controls) == controlsMax {
		m.failed = errors.New("the target asks for answers and does not take them")
		return
	}
	m.controls = append(m.controls, control{*h, bytes.Clone(data)})
}

func (m *mover) sendControl(h *iscsi.BHS, data []byte) {
	slot := m.slot()
	buf := m.conn.SendSlot(slot)
	n := put(buf, &iscsi.ISERHeader{}, h)
	n += copy(buf[n:], data)
	n += copy(buf[n:], []byte{0, 0, 0}[:iscsi.Pad(len(data))])
	if err := m.post(slot, rdma.WorkRequest{Op: rdma.OpSend, Signal: true, Head: n}); err != nil && m.failed == nil {
		m.failed = err
	}
}

// Done implements rdma.Handler: a send slot is free again.
func (m *mover) Done(id uint64) error {
	m.slots = append(m.slots, uint16(id))
	if i := m.owner[id]; i != noTask {
		m.owner[id] = noTask
		st := &m.tasks[i]
		st.sending = false
		if err := m.settle(st); err != nil {
			return err
		}
	}
	m.pump()
	return m.failed
}

// Received implements rdma.Handler.
func (m *mover) Received(slot int, message []byte, invalidated rdma.Key) error {
	h, data, err := split(message)
	if err != nil {
		return err
	}
	switch h.Opcode() {
	case iscsi.OpSCSIResponse:
		err = m.scsiResponse(&h, data, invalidated)
	case iscsi.OpDataIn, iscsi.OpR2T:
		err = fmt.Errorf("%v, which iSER does not have", h.Opcode())
	default:
		kept := h // which is allocated, as h then need not be for each response
		err = m.session.Control(&kept, data)
	}
	if err != nil {
		return err
	}
	m.conn.Repost(slot)
	return m.failed
}

// scsiResponse takes in a SCSI Response. With it, the target is done with the
// data of the command: RDMA Writes were placed before it was delivered.
func (m *mover) scsiResponse(h *iscsi.BHS, data []byte, invalidated rdma.Key) error {
	var p iscsi.SCSIResponse
	if err := p.Decode(h); err != nil {
		return err
	}
	if err := m.session.Numbers(true, p.StatSN, p.ExpCmdSN, p.MaxCmdSN); err != nil {
		return err
	}
	t := m.session.Task(p.InitiatorTaskTag)
	if t == nil || m.tasks[t.Index].task != t || m.tasks[t.Index].ended {
		return fmt.Errorf("%v for the unknown initiator task tag %#x", h.Opcode(), p.InitiatorTaskTag)
	}
	st := &m.tasks[t.Index]
	if invalidated != 0 && invalidated != st.region.Key {
		return fmt.Errorf("%v that invalidates the memory of another command", h.Opcode())
	}
	sense, err := iscsi.ResponseSense(data)
	if err != nil {
		return err
	}
	received := t.In.Len()
	if p.Underflow {
		received -= int(min(int64(p.Residual), int64(received)))
	}
	received = m.marks.written(t.In.Bytes(), received)
	return m.end(st, &transport.Result{
		Response: p.Response, Status: p.Status,
		Overflow: p.Overflow, Underflow: p.Underflow, Residual: p.Residual,
		Received: received, Sense: sense,
	})
}

// Abort implements transport.Mover.
func (m *mover) Abort(t *transport.Task) {
	// The lock is held and the task is known: this does not fail.
	_ = m.end(&m.tasks[t.Index], &transport.Result{Aborted: true})
}

// end notes how the target has ended a task, and takes back what it was lent.
func (m *mover) end(st *taskState, r *transport.Result) error {
	if i := m.queued(st); i >= 0 { // it was aborted before it was sent
		m.waiting = append(m.waiting[:i], m.waiting[i+1:]...)
		m.active++ // settle takes it off again
	}
	if st.granted {
		st.granted = !m.conn.Revoke(st.region)
	}
	st.ended, st.response = true, *r
	if st.sending || st.granted {
		st.response.Sense = bytes.Clone(r.Sense)
	}
	return m.settle(st)
}

// queued returns where a task waits to be sent, or -1. Only an abort asks.
func (m *mover) queued(st *taskState) int {
	for i, w := range m.waiting {
		if &m.tasks[w] == st {
			return i
		}
	}
	return -1
}

// Revoked implements rdma.Handler.
func (m *mover) Revoked(id uint64) error {
	st := &m.tasks[id]
	st.granted = false
	return m.settle(st)
}

// settle tells the session of a task's end when nothing refers to its extents.
func (m *mover) settle(st *taskState) error {
	if !st.ended || st.sending || st.granted {
		return nil
	}
	t := st.task
	m.result = st.response
	*st = taskState{}
	m.active--
	if err := m.session.Done(t, &m.result); err != nil {
		return err
	}
	m.pump()
	return nil
}
