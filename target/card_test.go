package target

import (
	"encoding/binary"
	"io"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"iscsictl/arena"
	"iscsictl/iscsi"
	"iscsictl/transport/rdma"
)

// card is an RDMA connection that delivers given messages, one after another,
// and drops what it is told to send; Reads leave memory as it is. It is its own
// request.
type card struct {
	next  func() []byte // nil: the end
	h     rdma.Handler
	slots []byte
	once  sync.Once

	done     []uint64 // posted and not told
	received bool     // the slot is in use
	busy     bool
}

func (*card) RemoteAddr() netip.AddrPort { return netip.AddrPort{} }
func (*card) PrivateData() []byte        { return []byte{iserNoZeroBased, 0, 0, 0} }
func (*card) Reject([]byte) error        { return nil }

func (k *card) Accept(o rdma.Options) (rdma.Conn, error) {
	k.slots = make([]byte, o.SendSlots*o.SendSlotSize)
	k.done = make([]uint64, 0, o.SendDepth)
	return k, o.Check()
}

func (*card) Info() rdma.Info { return rdma.Info{} }

func (k *card) SendSlot(i int) []byte {
	n := iserHeaders + iserSegment
	return k.slots[i*n : (i+1)*n]
}

func (k *card) Start(h rdma.Handler)          { k.h = h }
func (*card) Handover(rdma.Handler)           {}
func (k *card) Repost(int)                    { k.received = false }
func (k *card) Close(error)                   { k.once.Do(func() { go k.h.Closed(io.EOF) }) }
func (*card) Revoke(rdma.Region) bool         { return true }
func (k *card) Post(w rdma.WorkRequest) error { k.done = append(k.done, w.ID); return nil }
func (*card) Grant(uint64, arena.Extent, rdma.Access) (rdma.Region, error) {
	return rdma.Region{}, rdma.ErrFull
}

func (k *card) Flush() {
	if k.busy {
		return
	}
	k.busy = true
	k.h.Enter()
	for _, id := range k.done {
		if err := k.h.Done(id); err != nil {
			panic(err)
		}
	}
	k.done = k.done[:0]
	if !k.received {
		if m := k.next(); m == nil {
			k.Close(nil)
		} else {
			k.received = true
			if err := k.h.Received(0, m, 0); err != nil {
				panic(err)
			}
		}
	}
	k.h.Leave()
	k.busy = false
}

// connect makes a connection of a card; a session of the first target, if that
// is wanted.
func (k *card) connect(t testing.TB, s *Server, inSession bool) *conn {
	t.Helper()
	c := newISER(s, k, 1, 1)
	if err := c.mover.open(); err != nil {
		t.Fatal(err)
	}
	if inSession {
		n := newNegotiation(s.nodes[0].own, false, true)
		n.value[keyInitialR2T] = 0
		c.login = nil
		c.session = &session{node: s.nodes[0], params: n.params(), tasks: make(map[uint32]*task)}
	}
	return c
}

// serve serves the connection until its end.
func (k *card) serve(c *conn) error {
	c.mu.Lock()
	err := c.serve()
	c.mu.Unlock()
	c.close()
	c.mover.end()
	return err
}

// TestISERNoAllocation carries out commands and counts allocations.
func TestISERNoAllocation(t *testing.T) {
	for _, tt := range []struct {
		what string
		cdb  [16]byte
		size int
	}{
		{"read", cdb10(0x28, 0, 8), 0},
		{"write by RDMA Read", cdb10(0x2a, 0, 8), 0},
		{"write with immediate data", cdb10(0x2a, 0, 8), 4096},
		{"test unit ready", testUnitReady(), 0},
	} {
		s, err := New(oneTarget(LUN{Size: 1 << 20}))
		if err != nil {
			t.Fatal(err)
		}
		cmd := iscsi.SCSICommand{
			Final: true, Read: tt.cdb[0] == 0x28, Write: tt.cdb[0] == 0x2a, InitiatorTaskTag: 1, ExpStatSN: 1,
			CDB: tt.cdb, DataSegmentLength: tt.size,
		}
		if cmd.Read || cmd.Write {
			cmd.ExpectedDataTransferLength = 4096
		}
		m := make([]byte, iserHeaders+tt.size)
		(&iscsi.ISERHeader{HasRead: cmd.Read, HasWrite: cmd.Write && tt.size == 0}).Encode((*[iscsi.ISERHeaderLen]byte)(m))
		cmd.Encode((*iscsi.BHS)(m[iscsi.ISERHeaderLen:]))
		const count = 20000
		sn := uint32(0)
		k := &card{next: func() []byte {
			if sn == count {
				return nil
			}
			binary.BigEndian.PutUint32(m[iscsi.ISERHeaderLen+24:], sn)
			sn++
			return m
		}}
		c := k.connect(t, s, true)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := k.serve(c); err != io.EOF {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if n := c.session.counters.commands.Load(); n != count {
			t.Errorf("%s: %d commands", tt.what, n)
		}
		if got := after.Mallocs - before.Mallocs; got > count/100 {
			t.Errorf("%s: %d allocations for %d commands", tt.what, got, count)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// FuzzISER sends any messages to a connection: each is 16 bits of length, and
// so many bytes.
func FuzzISER(f *testing.F) {
	s := fuzzServer(f)
	message := func(r iscsi.ISERHeader, pdus ...any) []byte {
		b := make([]byte, iscsi.ISERHeaderLen)
		r.Encode((*[iscsi.ISERHeaderLen]byte)(b))
		b = append(b, seed(pdus...)...)
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	}
	both := iscsi.ISERHeader{HasRead: true, ReadSTag: 1, HasWrite: true, WriteSTag: 2}
	write := &iscsi.SCSICommand{Final: true, Write: true, InitiatorTaskTag: 9, ExpectedDataTransferLength: 2048, CDB: cdb10(0x2a, 0, 4)}
	f.Add(true, message(iscsi.ISERHeader{HasWrite: true, WriteSTag: 3}, write, make([]byte, 1024)))
	f.Add(true, append(message(iscsi.ISERHeader{HasRead: true, ReadSTag: 3},
		&iscsi.SCSICommand{Final: true, Read: true, ExpectedDataTransferLength: 255, CDB: [16]byte{0x12, 4: 255}}, nil),
		message(iscsi.ISERHeader{HasRead: true, ReadSTag: 4},
			&iscsi.SCSICommand{Final: true, Read: true, CmdSN: 1, ExpStatSN: 1, ExpectedDataTransferLength: 4096, CDB: cdb10(0x28, 0, 8)}, nil)...))
	f.Add(true, message(both, &iscsi.NOPOut{InitiatorTaskTag: 3, TargetTransferTag: iscsi.ReservedTag}, []byte("ping")))
	f.Add(true, message(iscsi.ISERHeader{}, &iscsi.LogoutRequest{}, nil))
	f.Add(false, message(iscsi.ISERHeader{}, &iscsi.LoginRequest{Transit: true, CurrentStage: 1, NextStage: 3},
		pairs("InitiatorName=i", "SessionType=Discovery", "RDMAExtensions=Yes")))
	f.Fuzz(func(t *testing.T, loggedIn bool, b []byte) {
		k := &card{next: func() []byte {
			if len(b) < 2 {
				return nil
			}
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			m := b[2 : 2+n : 2+n]
			b = b[2+n:]
			return m
		}}
		c := k.connect(t, s, loggedIn)
		_ = k.serve(c)
		if c.session != nil && len(c.session.tasks) > iserWindow+moreImmediate {
			t.Errorf("%d tasks wait", len(c.session.tasks))
		}
	})
}
