package iser

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/transport"
	"iscsictl/transport/rdma"
)

// card is a connection that keeps what is posted, and completes it when told.
type card struct {
	t        *testing.T
	slots    [][]byte
	posted   []rdma.WorkRequest
	done     int // of posted
	granted  map[rdma.Key]grant
	nextKey  rdma.Key
	busy     bool // Revoke reports that something still refers to the extent
	reposted int
	closed   error
}

type grant struct {
	id     uint64
	extent arena.Extent
	access rdma.Access
}

func (c *card) Info() rdma.Info       { return rdma.Info{} }
func (c *card) SendSlot(i int) []byte { return c.slots[i] }
func (c *card) Start(rdma.Handler)    {}
func (c *card) Handover(rdma.Handler) {}
func (c *card) Repost(int)            { c.reposted++ }
func (c *card) Flush()                {}
func (c *card) Close(err error)       { c.closed = err }
func (c *card) Post(w rdma.WorkRequest) error {
	for _, p := range c.posted[c.done:] {
		if p.Slot == w.Slot {
			c.t.Errorf("slot %d was used before its last request was done", w.Slot)
		}
	}
	c.posted = append(c.posted, w)
	return nil
}

func (c *card) Grant(id uint64, e arena.Extent, a rdma.Access) (rdma.Region, error) {
	c.nextKey++
	c.granted[c.nextKey] = grant{id, e, a}
	return rdma.Region{Key: c.nextKey, Addr: 0x7f0000000000 + uint64(e.Offset())}, nil
}

func (c *card) Revoke(r rdma.Region) bool {
	if _, ok := c.granted[r.Key]; !ok {
		c.t.Errorf("region %#x was revoked and is not granted", r.Key)
	}
	delete(c.granted, r.Key)
	return !c.busy
}

// sent returns the headers of the n-th request.
func (c *card) sent(n int) (iscsi.ISERHeader, iscsi.BHS, rdma.WorkRequest) {
	c.t.Helper()
	w := c.posted[n]
	var r iscsi.ISERHeader
	if err := r.Decode((*[iscsi.ISERHeaderLen]byte)(c.slots[w.Slot])); err != nil {
		c.t.Fatal(err)
	}
	return r, iscsi.BHS(c.slots[w.Slot][iscsi.ISERHeaderLen:headersLength]), w
}

// table is a session with a task table and nothing else.
type table struct {
	tasks    map[uint32]*transport.Task
	results  map[uint32]transport.Result
	sense    map[uint32][]byte
	controls []iscsi.Opcode
}

func (s *table) Enter()                                     {}
func (s *table) Leave()                                     {}
func (s *table) Numbers(bool, uint32, uint32, uint32) error { return nil }
func (s *table) ExpStatSN() uint32                          { return 77 }
func (s *table) Task(itt uint32) *transport.Task            { return s.tasks[itt] }
func (s *table) Down(error)                                 {}
func (s *table) Control(h *iscsi.BHS, _ []byte) error {
	s.controls = append(s.controls, h.Opcode())
	return nil
}

func (s *table) Done(t *transport.Task, r *transport.Result) error {
	itt := t.Command.InitiatorTaskTag
	if s.tasks[itt] == nil {
		return fmt.Errorf("task %d has ended twice", itt)
	}
	delete(s.tasks, itt)
	s.results[itt], s.sense[itt] = *r, bytes.Clone(r.Sense)
	return nil
}

type stand struct {
	t     *testing.T
	card  *card
	table *table
	mover *mover
	arena *arena.Arena
}

func newStand(t *testing.T, tasks int) *stand {
	t.Helper()
	a, err := arena.New(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return newStandOn(t, a, tasks)
}

// newStandOn is newStand with the memory of others.
func newStandOn(t *testing.T, a *arena.Arena, tasks int) *stand {
	t.Helper()
	commands := min(tasks, outstandingMax)
	s := &stand{t: t, arena: a, card: &card{t: t, granted: map[rdma.Key]grant{}}}
	for range commands + spareSlots {
		s.card.slots = append(s.card.slots, make([]byte, slotSize))
	}
	s.table = &table{tasks: map[uint32]*transport.Task{}, results: map[uint32]transport.Result{}, sense: map[uint32][]byte{}}
	p := transport.Params{ImmediateData: true, InitialR2T: true, FirstBurstLength: 8192, MaxSendDataSegmentLength: 8192}
	s.mover = newMover(s.card, p, s.table, tasks, commands)
	s.mover.marks = knownMarks
	return s
}

func (s *stand) command(itt uint32, out, in int) *transport.Task {
	s.t.Helper()
	t := &transport.Task{Index: int(itt)}
	if out > 0 {
		t.Out, _ = s.arena.Alloc(out)
	}
	if in > 0 {
		t.In, _ = s.arena.Alloc(in)
		t.In.Bytes()[0] = 0xee // left by an earlier user
	}
	t.Command = iscsi.SCSICommand{InitiatorTaskTag: itt, Write: out > 0, Read: in > 0, ExpectedDataTransferLength: uint32(max(out, in)), CmdSN: itt}
	s.table.tasks[itt] = t
	s.mover.Command(t)
	return t
}

// write does the first n bytes of a read's RDMA Write.
func (s *stand) write(itt uint32, n int) {
	copy(s.table.tasks[itt].In.Bytes(), bytes.Repeat([]byte{0x77}, n))
}

// complete has the n next requests done.
func (s *stand) complete(n int) {
	s.t.Helper()
	for range n {
		w := s.card.posted[s.card.done]
		s.card.done++
		if err := s.mover.Done(w.ID); err != nil {
			s.t.Fatal(err)
		}
	}
}

// receive hands over a PDU of the target.
func (s *stand) receive(p interface{ Encode(*iscsi.BHS) }, data []byte, invalidated rdma.Key) error {
	var h iscsi.BHS
	p.Encode(&h)
	h.SetDataSegmentLength(len(data))
	buf := make([]byte, slotSize)
	n := put(buf, &iscsi.ISERHeader{}, &h)
	n += copy(buf[n:], data)
	return s.mover.Received(0, buf[:n], invalidated)
}

// TestAdvertisement: RFC 7145 §9.2 and §7.3: what the header says of the data.
func TestAdvertisement(t *testing.T) {
	for _, c := range []struct {
		out, in   int
		immediate int
	}{
		{0, 0, 0},
		{512, 0, 512},
		{8192, 0, 8192},
		{8196, 0, 0},
		{1 << 20, 0, 0},
		{510, 0, 0}, // padding has no place behind the data
		{0, 4096, 0},
		{0, 1 << 20, 0},
		{0, 255, 0},
	} {
		s := newStand(t, 8)
		task := s.command(3, c.out, c.in)
		r, h, w := s.card.sent(0)
		var p iscsi.SCSICommand
		if err := p.Decode(&h); err != nil {
			t.Fatal(err)
		}
		if !p.Final || p.DataSegmentLength != c.immediate || p.ExpStatSN != 77 || w.Op != rdma.OpSend || w.Head != 76 {
			t.Errorf("out %d in %d: %+v, head %d", c.out, c.in, p, w.Head)
		}
		if w.Data.Len() != c.immediate || c.immediate > 0 && (w.Data != task.Out || !w.Signal) {
			t.Errorf("out %d: %d bytes of data go along, signal %v", c.out, w.Data.Len(), w.Signal)
		}
		if r.HasWrite != (c.out > c.immediate) || r.HasRead != (c.in > 0) {
			t.Errorf("out %d in %d: header %+v", c.out, c.in, r)
		}
		switch {
		case r.HasWrite:
			g := s.card.granted[rdma.Key(r.WriteSTag)]
			if g.extent != task.Out || g.access != rdma.RemoteRead || r.WriteBase != 0x7f0000000000+uint64(task.Out.Offset()) {
				t.Errorf("out %d: granted %+v, header %+v", c.out, g, r)
			}
		case r.HasRead:
			g := s.card.granted[rdma.Key(r.ReadSTag)]
			if g.extent != task.In || g.access != rdma.RemoteWrite || r.ReadBase != 0x7f0000000000+uint64(task.In.Offset()) {
				t.Errorf("in %d: granted %+v, header %+v", c.in, g, r)
			}
			if task.In.Bytes()[0] == 0xee {
				t.Error("a read begins with what another has left in its buffer")
			}
		case len(s.card.granted) != 0:
			t.Errorf("out %d in %d: %d regions granted", c.out, c.in, len(s.card.granted))
		}
	}
}

func TestRead(t *testing.T) {
	s := newStand(t, 8)
	s.command(1, 0, 4096)
	r, _, _ := s.card.sent(0)
	s.write(1, 4000)
	err := s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 1, Underflow: true, Residual: 96}, nil, rdma.Key(r.ReadSTag))
	if err != nil {
		t.Fatal(err)
	}
	res, ok := s.table.results[1]
	if !ok || res.Received != 4000 || len(s.card.granted) != 0 || s.card.reposted != 1 {
		t.Errorf("%+v, ended %v, %d regions, %d receives given back", res, ok, len(s.card.granted), s.card.reposted)
	}
	s.command(2, 0, 512)
	if err := s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 2, Underflow: true, Residual: 9999}, nil, 0); err != nil {
		t.Fatal(err)
	}
	if res := s.table.results[2]; res.Received != 0 {
		t.Errorf("a residual over the length leaves %d bytes", res.Received)
	}
}

// TestExtentsAreHeld: a task ends when the response is there, nothing refers to
// the region, and its immediate data have left.
func TestExtentsAreHeld(t *testing.T) {
	s := newStand(t, 8)
	s.command(1, 512, 0)
	sense := []byte{0, 3, 0x70, 0, 5}
	if err := s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 1, Status: 2}, sense, 0); err != nil {
		t.Fatal(err)
	}
	if len(s.table.results) != 0 {
		t.Fatal("a task has ended while its data are being sent")
	}
	s.complete(1)
	if r := s.table.results[1]; r.Status != 2 || !bytes.Equal(s.table.sense[1], sense[2:]) {
		t.Errorf("%+v, sense %x", r, s.table.sense[1])
	}

	s.card.busy = true
	s.command(2, 100_000, 0)
	if err := s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 2}, nil, 0); err != nil {
		t.Fatal(err)
	}
	if len(s.table.results) != 1 {
		t.Fatal("a task has ended while its region is in use")
	}
	if err := s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 2}, nil, 0); err == nil {
		t.Error("a second response was accepted")
	}
	if err := s.mover.Revoked(2); err != nil || len(s.table.results) != 2 {
		t.Errorf("%v, %d tasks ended", err, len(s.table.results))
	}
}

func TestAbort(t *testing.T) {
	s := newStand(t, 8)
	task := s.command(1, 0, 4096)
	s.mover.Abort(task)
	if r, ok := s.table.results[1]; !ok || !r.Aborted || len(s.card.granted) != 0 {
		t.Errorf("%+v, %d regions", r, len(s.card.granted))
	}
	if err := s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 1}, nil, 0); err == nil {
		t.Error("a response to an aborted task was accepted")
	}
}

// TestOutstanding: no more commands are with the target than it has receives
// for; the rest go in their order, and one that is aborted meanwhile never.
func TestOutstanding(t *testing.T) {
	s := newStand(t, 255)
	var tasks []*transport.Task
	for i := range uint32(200) {
		tasks = append(tasks, s.command(i, 0, 0))
	}
	if n := len(s.card.posted); n != outstandingMax {
		t.Fatalf("%d commands with the target, want %d", n, outstandingMax)
	}
	s.mover.Abort(tasks[130])
	s.complete(100) // slots are free, but no command has ended
	if n := len(s.card.posted); n != outstandingMax {
		t.Fatalf("%d commands with the target, want %d", n, outstandingMax)
	}
	for i := range uint32(200) {
		if i == 130 {
			continue
		}
		if err := s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: i}, nil, 0); err != nil {
			t.Fatal(err)
		}
		s.complete(len(s.card.posted) - s.card.done)
	}
	if n := len(s.card.posted); n != 199 || len(s.table.results) != 200 {
		t.Fatalf("%d commands sent, %d ended", n, len(s.table.results))
	}
	sn := uint32(0)
	for i := range s.card.posted {
		// Slots are used again: the order is that of posting.
		if i >= 120 {
			break
		}
		_ = i
		sn++
	}
	if sn != 120 || s.mover.active != 0 || len(s.mover.slots) != outstandingMax+spareSlots {
		t.Errorf("%d active, %d slots free", s.mover.active, len(s.mover.slots))
	}
}

// TestSlotsComeBack: completions are asked for often enough for slots never to
// run out, though not for each send.
func TestSlotsComeBack(t *testing.T) {
	s := newStand(t, 4)
	signals := 0
	for i := range 1000 {
		s.command(1, 0, 0)
		w := s.card.posted[i]
		if w.Signal { // a signalled completion ends those before it
			signals++
			s.complete(len(s.card.posted) - s.card.done)
		}
		if err := s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 1}, nil, 0); err != nil {
			t.Fatal(err)
		}
		delete(s.table.results, 1)
	}
	if signals == 0 || signals == 1000 {
		t.Errorf("%d of 1000 sends were signalled", signals)
	}
}

func TestControls(t *testing.T) {
	s := newStand(t, 4)
	var h iscsi.BHS
	(&iscsi.NOPOut{Immediate: true, InitiatorTaskTag: 9, TargetTransferTag: 0xffffffff}).Encode(&h)
	h.SetDataSegmentLength(5)
	s.mover.Control(&h, []byte("hello"))
	r, sent, w := s.card.sent(0)
	if r != (iscsi.ISERHeader{}) || sent.ExpStatSN() != 77 || w.Head != 76+8 || !bytes.Equal(s.card.slots[w.Slot][76:84], []byte("hello\x00\x00\x00")) {
		t.Errorf("%+v, %x", r, s.card.slots[w.Slot][:w.Head])
	}
	for range controlsMax + len(s.card.slots) + 1 {
		s.mover.Control(&h, []byte("hello"))
	}
	if s.mover.failed == nil {
		t.Error("what waits has no bound")
	}
	if n := len(s.card.posted); n != len(s.card.slots) {
		t.Errorf("%d PDUs posted to %d slots", n, len(s.card.slots))
	}
	s.mover.failed = nil
	for s.card.done < controlsMax {
		s.complete(1)
	}
	if err := s.receive(&iscsi.NOPIn{InitiatorTaskTag: 9, TargetTransferTag: 0xffffffff}, nil, 0); err != nil || len(s.table.controls) != 1 {
		t.Errorf("%v, %d PDUs for the session", err, len(s.table.controls))
	}
}

func TestBadMessages(t *testing.T) {
	s := newStand(t, 8)
	s.command(1, 0, 4096)
	s.command(2, 0, 4096)
	r2, _, _ := s.card.sent(1)
	for name, err := range map[string]error{
		"Data-In":          s.receive(&iscsi.DataIn{InitiatorTaskTag: 1}, nil, 0),
		"R2T":              s.receive(&iscsi.R2T{InitiatorTaskTag: 1, DesiredLength: 1}, nil, 0),
		"unknown task":     s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 5}, nil, 0),
		"alien key":        s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 1}, nil, rdma.Key(r2.ReadSTag)),
		"sense is cut":     s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 1}, []byte{0, 9, 1}, 0),
		"short message":    s.mover.Received(0, make([]byte, 75), 0),
		"Hello":            s.mover.Received(0, append([]byte{0x20}, make([]byte, 80)...), 0),
		"data are missing": s.mover.Received(0, message(func(h *iscsi.BHS) { h.SetDataSegmentLength(9) }), 0),
		"AHS is missing":   s.mover.Received(0, message(func(h *iscsi.BHS) { h[4] = 3 }), 0),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(s.table.results) != 0 {
		t.Error("a task has ended")
	}
}

func message(change func(*iscsi.BHS)) []byte {
	var h iscsi.BHS
	(&iscsi.NOPIn{InitiatorTaskTag: 1, TargetTransferTag: 0xffffffff}).Encode(&h)
	change(&h)
	buf := make([]byte, headersLength)
	put(buf, &iscsi.ISERHeader{}, &h)
	return buf
}

func TestNegotiated(t *testing.T) {
	kv := func(s ...string) (list []iscsi.KeyValue) {
		for i := 0; i < len(s); i += 2 {
			list = append(list, iscsi.KeyValue{Key: s[i], Value: s[i+1]})
		}
		return list
	}
	for _, c := range []struct {
		answers []iscsi.KeyValue
		want    int
	}{
		{kv("RDMAExtensions", "Yes"), 8192},
		{kv("RDMAExtensions", "Yes", "TargetRecvDataSegmentLength", "4096", "InitiatorRecvDataSegmentLength", "512"), 4096},
		{kv("RDMAExtensions", "No"), 0},
		{kv(), 0},
		{kv("RDMAExtensions", "Yes", "TargetRecvDataSegmentLength", "8196"), 0},
		{kv("RDMAExtensions", "Yes", "TargetRecvDataSegmentLength", "511"), 0},
		{kv("RDMAExtensions", "Yes", "InitiatorRecvDataSegmentLength", "x"), 0},
	} {
		got, err := negotiated(c.answers)
		if got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("%v: %d, %v, want %d", c.answers, got, err, c.want)
		}
	}
}

func TestCommandDoesNotAllocate(t *testing.T) {
	s := newStand(t, 8)
	task := &transport.Task{Index: 1}
	task.In, _ = s.arena.Alloc(4096)
	task.Command = iscsi.SCSICommand{InitiatorTaskTag: 1, Read: true, ExpectedDataTransferLength: 4096}
	fast := &quick{slots: s.card.slots}
	s.mover.conn = fast
	res := &transport.Result{}
	if n := testing.AllocsPerRun(1000, func() {
		s.table.tasks[1] = task
		s.mover.Command(task)
		if err := s.mover.Done(fast.last); err != nil {
			t.Fatal(err)
		}
		if err := s.mover.end(&s.mover.tasks[1], res); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a command", n)
	}
}

// quick is a connection that does nothing.
type quick struct {
	slots [][]byte
	last  uint64
}

var errUnused = errors.New("not in this test")

func (*quick) Info() rdma.Info                 { return rdma.Info{} }
func (q *quick) SendSlot(i int) []byte         { return q.slots[i] }
func (*quick) Start(rdma.Handler)              {}
func (*quick) Handover(rdma.Handler)           {}
func (q *quick) Post(w rdma.WorkRequest) error { q.last = w.ID; return nil }
func (*quick) Repost(int)                      {}
func (*quick) Revoke(rdma.Region) bool         { return true }
func (*quick) Flush()                          {}
func (*quick) Close(error)                     { panic(errUnused) }
func (*quick) Grant(uint64, arena.Extent, rdma.Access) (rdma.Region, error) {
	return rdma.Region{Key: 1}, nil
}
