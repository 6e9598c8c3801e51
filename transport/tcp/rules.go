package tcp

import (
	"bytes"
	"errors"
	"fmt"

	"iscsictl/iscsi"
	"iscsictl/transport"
)

// taskState is what the datamover knows of one task.
type taskState struct {
	task     *transport.Task
	dataSN   uint32 // of the next Data-In (RFC 7143 §11.7.5)
	received int    // bytes of Data-In, without a gap from the start
	r2tSN    uint32 // of the next R2T (§11.8.1)
	sent     int    // where the next R2T may begin

	status   iscsi.DataIn     // of a Data-In whose payload is under way
	response transport.Result // the target's, while payloads are still queued
}

// rules are those of RFC 7143 for the data of tasks: a state machine between
// the session, the receiver and the send queue. The session's lock is held.
type rules struct {
	session transport.Session
	params  transport.Params
	tasks   []taskState
	send    sendQueue
	reading int   // bytes that the tasks on the wire ask for
	failed  error // why the connection is to be given up

	// What is being encoded, and the result of the task that ends: in one
	// place each, so that none is allocated.
	header iscsi.BHS
	result transport.Result
}

func (m *rules) init(p transport.Params, s transport.Session, tasks int) {
	m.session, m.params = s, p
	m.tasks = make([]taskState, tasks)
	m.send.init(tasks, p.HeaderDigest, p.DataDigest)
}

// Command implements transport.Mover: the command, its immediate data, and
// unsolicited data where they may be sent (§4.2.5.2, §13.10, §13.11, §13.14).
func (m *rules) Command(t *transport.Task) {
	c := &t.Command
	limit := min(t.Out.Len(), m.params.FirstBurstLength)
	immediate := 0
	if m.params.ImmediateData {
		immediate = min(limit, m.params.MaxSendDataSegmentLength)
	}
	unsolicited := immediate
	if !m.params.InitialR2T {
		unsolicited = limit
	}
	c.ExpStatSN = m.session.ExpStatSN()
	c.Final = unsolicited == immediate
	c.AHSLength, c.DataSegmentLength = 0, immediate
	m.tasks[t.Index] = taskState{task: t, sent: unsolicited}
	m.reading += t.In.Len()
	c.Encode(&m.header)
	m.send.put(&m.header, t.Out.Bytes()[:immediate], uint32(t.Index))
	if unsolicited > immediate {
		m.dataOut(t, iscsi.ReservedTag, immediate, unsolicited)
	}
}

// dataOut queues a sequence of Data-Out PDUs for bytes [from:to) of a task.
func (m *rules) dataOut(t *transport.Task, targetTransferTag uint32, from, to int) {
	out := t.Out.Bytes()
	d := iscsi.DataOut{
		InitiatorTaskTag:  t.Command.InitiatorTaskTag,
		TargetTransferTag: targetTransferTag,
		ExpStatSN:         m.session.ExpStatSN(),
	}
	if targetTransferTag != iscsi.ReservedTag {
		d.LUN = t.Command.LUN
	}
	for from < to {
		n := min(to-from, m.params.MaxSendDataSegmentLength)
		d.BufferOffset, d.DataSegmentLength = uint32(from), n
		d.Final = from+n == to
		d.Encode(&m.header)
		m.send.put(&m.header, out[from:from+n], uint32(t.Index))
		from += n
		d.DataSN++
	}
}

// Control implements transport.Mover.
func (m *rules) Control(h *iscsi.BHS, data []byte) {
	h.SetExpStatSN(m.session.ExpStatSN())
	if !m.send.putControl(h, data) {
		m.failed = errors.New("the target asks for answers and does not read them")
	}
}

// Abort implements transport.Mover.
func (m *rules) Abort(t *transport.Task) {
	// The lock is held and the task is known: Done cannot fail.
	m.result = transport.Result{Aborted: true}
	_ = m.end(t)
}

// end tells the session of a task's end, which is in m.result: at once, or when
// the last of the task's payloads has left the queue.
func (m *rules) end(t *transport.Task) error {
	if m.send.hold(uint32(t.Index)) {
		st := &m.tasks[t.Index]
		st.response = m.result
		st.response.Sense = bytes.Clone(m.result.Sense)
		return nil
	}
	m.tasks[t.Index].task = nil
	m.reading -= t.In.Len()
	return m.session.Done(t, &m.result)
}

// released ends a task whose end has waited for its payloads.
func (m *rules) released(index uint32) error {
	st := &m.tasks[index]
	t := st.task
	m.result = st.response
	st.task, st.response = nil, transport.Result{}
	if t == nil {
		return nil
	}
	m.reading -= t.In.Len()
	return m.session.Done(t, &m.result)
}

// lookup finds the task that a PDU of the target belongs to.
func (m *rules) lookup(itt uint32, op iscsi.Opcode) (*taskState, error) {
	t := m.session.Task(itt)
	if t == nil || m.tasks[t.Index].task != t {
		return nil, fmt.Errorf("%v for the unknown initiator task tag %#x", op, itt)
	}
	return &m.tasks[t.Index], nil
}

// dataIn implements sink (§11.7): it finds the place of a payload.
func (m *rules) dataIn(h *iscsi.BHS) ([]byte, error) {
	var d iscsi.DataIn
	if err := d.Decode(h); err != nil {
		return nil, err
	}
	if err := m.session.Numbers(d.HasStatus, d.StatSN, d.ExpCmdSN, d.MaxCmdSN); err != nil {
		return nil, err
	}
	st, err := m.lookup(d.InitiatorTaskTag, iscsi.OpDataIn)
	if err != nil {
		return nil, err
	}
	in := st.task.In
	switch n := d.DataSegmentLength; {
	case in.Len() == 0 && n > 0:
		return nil, fmt.Errorf("%d bytes of Data-In for a command that reads nothing", n)
	case d.DataSN != st.dataSN:
		return nil, fmt.Errorf("Data-In with DataSN %d where %d is due", d.DataSN, st.dataSN)
	case n > 0 && int64(d.BufferOffset) != int64(st.received):
		return nil, fmt.Errorf("Data-In at offset %d where %d is due", d.BufferOffset, st.received)
	case n > in.Len()-st.received:
		return nil, fmt.Errorf("Data-In of %d bytes at offset %d of a buffer of %d", n, st.received, in.Len())
	default:
		st.dataSN++
		st.status = d
		return in.Bytes()[st.received : st.received+n], nil
	}
}

// dataInDone implements sink.
func (m *rules) dataInDone(h *iscsi.BHS) error {
	st, err := m.lookup(h.InitiatorTaskTag(), iscsi.OpDataIn)
	if err != nil {
		return err
	}
	d := &st.status
	st.received += d.DataSegmentLength
	if !d.HasStatus {
		return nil
	}
	m.result = transport.Result{
		Response: iscsi.ResponseCompleted,
		Status:   d.Status,
		Overflow: d.Overflow, Underflow: d.Underflow, Residual: d.Residual,
		Received: st.received,
	}
	return m.end(st.task)
}

// pdu implements sink.
func (m *rules) pdu(h *iscsi.BHS, data []byte) error {
	switch h.Opcode() {
	case iscsi.OpSCSIResponse:
		return m.scsiResponse(h, data)
	case iscsi.OpR2T:
		return m.r2t(h)
	}
	return m.session.Control(h, data)
}

// scsiResponse takes in a SCSI Response (§11.4).
func (m *rules) scsiResponse(h *iscsi.BHS, data []byte) error {
	var p iscsi.SCSIResponse
	if err := p.Decode(h); err != nil {
		return err
	}
	if err := m.session.Numbers(true, p.StatSN, p.ExpCmdSN, p.MaxCmdSN); err != nil {
		return err
	}
	st, err := m.lookup(p.InitiatorTaskTag, iscsi.OpSCSIResponse)
	if err != nil {
		return err
	}
	// §11.4.8: the number of Data-In that were sent. Some targets leave it 0.
	if st.task.In.Len() > 0 && p.Response == iscsi.ResponseCompleted && iscsi.SerialLess(st.dataSN, p.ExpDataSN) {
		return fmt.Errorf("SCSI Response after %d Data-In PDUs, of which %d came", p.ExpDataSN, st.dataSN)
	}
	sense, err := iscsi.ResponseSense(data)
	if err != nil {
		return err
	}
	m.result = transport.Result{
		Response: p.Response,
		Status:   p.Status,
		Overflow: p.Overflow, Underflow: p.Underflow, Residual: p.Residual,
		Received: st.received,
		Sense:    sense,
	}
	return m.end(st.task)
}

// r2t answers a Ready To Transfer (§11.8) with the data that it asks for. With
// DataSequenceInOrder=Yes no byte is asked for twice, which bounds what a
// target can make us queue.
func (m *rules) r2t(h *iscsi.BHS) error {
	var p iscsi.R2T
	if err := p.Decode(h); err != nil {
		return err
	}
	if err := m.session.Numbers(false, p.StatSN, p.ExpCmdSN, p.MaxCmdSN); err != nil {
		return err
	}
	st, err := m.lookup(p.InitiatorTaskTag, iscsi.OpR2T)
	if err != nil {
		return err
	}
	from, n, size := int64(p.BufferOffset), int64(p.DesiredLength), int64(st.task.Out.Len())
	switch {
	case size == 0:
		return errors.New("R2T for a command that writes nothing")
	case p.TargetTransferTag == iscsi.ReservedTag:
		return errors.New("R2T with the reserved target transfer tag")
	case p.R2TSN != st.r2tSN:
		return fmt.Errorf("R2T with R2TSN %d where %d is due", p.R2TSN, st.r2tSN)
	case n == 0 || n > int64(m.params.MaxBurstLength):
		return fmt.Errorf("R2T for %d bytes with MaxBurstLength %d", n, m.params.MaxBurstLength)
	case from+n > size:
		return fmt.Errorf("R2T for %d bytes at offset %d of a buffer of %d", n, from, size)
	case from < int64(st.sent):
		return fmt.Errorf("R2T at offset %d, out of order: %d is due", from, st.sent)
	}
	st.r2tSN++
	st.sent = int(from + n)
	m.dataOut(st.task, p.TargetTransferTag, int(from), int(from+n))
	return nil
}
