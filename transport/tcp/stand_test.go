package tcp

import (
	"bytes"
	"fmt"
	"testing"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/transport"
)

// table is a session with a task table and nothing else.
type table struct {
	tasks    map[uint32]*transport.Task
	numbers  []uint32 // StatSN of each PDU that has status
	results  map[uint32]transport.Result
	sense    map[uint32][]byte
	controls []iscsi.Opcode
	text     [][]byte
	down     chan error
}

func newTable() *table {
	return &table{tasks: map[uint32]*transport.Task{}, results: map[uint32]transport.Result{}, sense: map[uint32][]byte{}, down: make(chan error, 1)}
}

func (s *table) Enter() {}
func (s *table) Leave() {}
func (s *table) Numbers(has bool, statSN, _, _ uint32) error {
	if has {
		s.numbers = append(s.numbers, statSN)
	}
	return nil
}
func (s *table) ExpStatSN() uint32               { return 77 }
func (s *table) Task(itt uint32) *transport.Task { return s.tasks[itt] }
func (s *table) Done(t *transport.Task, r *transport.Result) error {
	itt := t.Command.InitiatorTaskTag
	if s.tasks[itt] == nil {
		return fmt.Errorf("task %d has ended twice", itt)
	}
	delete(s.tasks, itt)
	s.results[itt], s.sense[itt] = *r, bytes.Clone(r.Sense)
	return nil
}

func (s *table) Control(h *iscsi.BHS, data []byte) error {
	s.controls = append(s.controls, h.Opcode())
	s.text = append(s.text, bytes.Clone(data))
	return nil
}
func (s *table) Down(err error) { s.down <- err }

// stand is a datamover on a table, fed with bytes by hand.
type stand struct {
	t     *testing.T
	rules rules
	recv  receiver
	table *table
	arena *arena.Arena
}

func newStand(t *testing.T, p transport.Params) *stand {
	a, err := arena.New(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	return newStandOn(t, p, a)
}

func newStandOn(t *testing.T, p transport.Params, a *arena.Arena) *stand {
	s := &stand{t: t, table: newTable(), arena: a}
	s.rules.init(p, s.table, 16)
	s.recv.init(p.HeaderDigest, p.DataDigest, p.MaxRecvDataSegmentLength)
	return s
}

func defaults() transport.Params {
	return transport.Params{
		MaxRecvDataSegmentLength: 65536, MaxSendDataSegmentLength: 8192,
		MaxBurstLength: 262144, FirstBurstLength: 65536, ImmediateData: true, InitialR2T: true, MaxOutstandingR2T: 1,
	}
}

func (s *stand) extent(n int) arena.Extent {
	if n == 0 {
		return arena.Extent{}
	}
	e, ok := s.arena.Alloc(n)
	if !ok {
		s.t.Fatal("arena is full")
	}
	return e
}

// command starts a task.
func (s *stand) command(itt uint32, out, in int) *transport.Task {
	t := &transport.Task{Index: int(itt), Out: s.extent(out), In: s.extent(in)}
	for i := range t.Out.Bytes() {
		t.Out.Bytes()[i] = byte(i*7 + i>>8)
	}
	t.Command = iscsi.SCSICommand{InitiatorTaskTag: itt, LUN: 1 << 48, Write: out > 0, Read: in > 0, ExpectedDataTransferLength: uint32(max(out, in)), CmdSN: itt}
	s.table.tasks[itt] = t
	s.rules.Command(t)
	return t
}

// sent takes what is queued, as bytes.
func (s *stand) sent() []byte {
	b := s.rules.send.take()
	if b == nil {
		return nil
	}
	var out []byte
	for _, v := range b.vector {
		out = append(out, bytesOf(v)...)
	}
	for _, i := range s.rules.send.written() {
		if err := s.rules.released(i); err != nil {
			s.t.Fatal(err)
		}
	}
	s.rules.send.done()
	return out
}

// feed gives bytes to the receiver as reads of the sizes that step says.
func (s *stand) feed(b []byte, step func() int) error {
	for len(b) > 0 {
		n := 0
		limit := step()
		for _, v := range s.recv.vector() {
			k := copy(bytesOf(v), b[:min(len(b), limit-n)])
			b, n = b[k:], n+k
			if n == limit || k < int(v.Len) {
				break
			}
		}
		s.recv.landed(n)
		if err := s.recv.parse(&s.rules); err != nil {
			return err
		}
	}
	return nil
}

func whole() int { return 1 << 30 }

// pdu makes the bytes of a PDU of a target.
func pdu(p interface{ Encode(*iscsi.BHS) }, data []byte, headerDigest, dataDigest bool) []byte {
	var h iscsi.BHS
	p.Encode(&h)
	h.SetDataSegmentLength(len(data))
	out := append([]byte(nil), h[:]...)
	if headerDigest {
		out = appendDigest(out, iscsi.DigestUpdate(0, h[:]))
	}
	if len(data) == 0 {
		return out
	}
	padded := append(bytes.Clone(data), make([]byte, (4-len(data)%4)%4)...)
	out = append(out, padded...)
	if dataDigest {
		out = appendDigest(out, iscsi.DigestUpdate(0, padded))
	}
	return out
}

// readPDUs takes apart what an initiator has sent, without digests.
func readPDUs(t *testing.T, b []byte) (list []iscsi.BHS, data [][]byte) {
	for len(b) > 0 {
		if len(b) < iscsi.BHSLen {
			t.Fatalf("%d bytes are left over", len(b))
		}
		h := iscsi.BHS(b)
		n := h.DataSegmentLength()
		padded := n + (4-n%4)%4
		if len(b) < iscsi.BHSLen+padded {
			t.Fatalf("%v with %d bytes of data is cut off", h.Opcode(), n)
		}
		list, data = append(list, h), append(data, b[iscsi.BHSLen:iscsi.BHSLen+n])
		b = b[iscsi.BHSLen+padded:]
	}
	return list, data
}
