package iwarp

import (
	"bytes"
	"testing"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
)

// taker is a handler that keeps the receives that it is given.
type taker struct{ messages, bytes int }

func (*taker) Enter() {}
func (*taker) Leave() {}
func (k *taker) Received(_ int, data []byte, _ rdma.Key) error {
	k.messages++
	k.bytes += len(data)
	return nil
}
func (*taker) Done(uint64) error    { return nil }
func (*taker) Revoked(uint64) error { return nil }
func (*taker) Closed(error)         {}

// offline makes a connection without a socket, to be fed.
func offline(tb testing.TB, a *arena.Arena) *conn {
	tb.Helper()
	o := rdma.Options{
		Arena: a, SendDepth: 4, SendSlots: 1, SendSlotSize: 64, Receives: 4, ReceiveSize: 512,
		Regions: 3, InboundReads: 2, OutboundReads: 2,
	}
	c, err := newConn(nil, nil, &o, rdma.Info{InboundReads: 2, OutboundReads: 2}, setup{mulpdu: 1442})
	if err != nil {
		tb.Fatal(err)
	}
	c.regions.secret, c.regions.base = 0, 1<<46 // for inputs that stay good
	for i := range c.regions.entries {
		c.regions.entries[i].stag = c.regions.stag(uint32(i), 0)
	}
	k := &taker{}
	c.Set(k)
	c.user = k
	return c
}

// FuzzRDMAP feeds a connection that has lent out the middle of its memory: what
// lies around it, and what may only be read, must stay as it is.
func FuzzRDMAP(f *testing.F) {
	a, err := arena.New(4 * arena.PageSize)
	if err != nil {
		f.Fatal(err)
	}
	x, _ := a.Alloc(4 * arena.PageSize)
	const base, writable, readable = 1 << 46, 2, 1<<8 | 1 // granted below, in this order
	f.Add(wireOf(1442, false,
		message{op: opSend, head: []byte("hello")},
		message{op: opWrite, stag: writable, to: base + arena.PageSize, data: make([]byte, 100)},
		message{op: opSendInvalidate, stag: writable}))
	q := readRequest{sinkSTag: 5, length: 100, srcSTag: readable, srcTO: base + 3*arena.PageSize}
	f.Add(wireOf(1442, false, message{op: opReadRequest, head: q.append(nil)}, message{op: opReadRequest, head: q.append(nil)}))
	sink := segment{tagged: true, last: true, op: opReadResponse, stag: 3<<8 | 1, to: base + 2*arena.PageSize}
	f.Add(wireOf(1442, false, message{op: sink.op, stag: sink.stag, to: sink.to, data: make([]byte, 4096)}))
	f.Add(wireOf(1442, false, message{op: opTerminate, head: []byte{0x11, 0, 0xc0, 0}}))
	f.Fuzz(func(t *testing.T, wire []byte) {
		clear(x.Bytes())
		c := offline(t, a)
		if _, err := c.Grant(1, x.Slice(arena.PageSize, 2*arena.PageSize), rdma.RemoteWrite); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Grant(2, x.Slice(3*arena.PageSize, 4*arena.PageSize), rdma.RemoteRead); err != nil {
			t.Fatal(err)
		}
		// A Read of ours is under way, into the third page.
		if err := c.Post(rdma.WorkRequest{Op: rdma.OpRead, Data: x.Slice(2*arena.PageSize, 3*arena.PageSize)}); err != nil {
			t.Fatal(err)
		}
		c.send.held = false
		if c.send.take(&c.regions) == nil {
			t.Fatal("no Read Request")
		}
		_ = feed(&c.recv, wire, 1000, c) // whatever it says, it must not go wrong
		for _, page := range []int{0, 3} {
			if !bytes.Equal(x.Bytes()[page*arena.PageSize:(page+1)*arena.PageSize], make([]byte, arena.PageSize)) {
				t.Errorf("page %d has changed", page)
			}
		}
		k := c.user.(*taker)
		if k.messages > 4 || k.bytes > 4*512 {
			t.Errorf("%d messages of %d bytes in 4 receives of 512", k.messages, k.bytes)
		}
	})
}

// The seeds do what they are meant to, so that fuzzing begins behind the checks.
func TestFuzzingBeginsInside(t *testing.T) {
	a, err := arena.New(4 * arena.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	x, _ := a.Alloc(4 * arena.PageSize)
	c := offline(t, a)
	w, err := c.Grant(1, x.Slice(arena.PageSize, 2*arena.PageSize), rdma.RemoteWrite)
	if err != nil || w.Key != 2 || w.Addr != 1<<46+arena.PageSize {
		t.Fatalf("%+v, %v", w, err)
	}
	if r, err := c.Grant(2, x.Slice(3*arena.PageSize, 4*arena.PageSize), rdma.RemoteRead); err != nil || r.Key != 1<<8|1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := c.Post(rdma.WorkRequest{Op: rdma.OpRead, Data: x.Slice(2*arena.PageSize, 3*arena.PageSize)}); err != nil {
		t.Fatal(err)
	}
	c.send.held = false
	if c.send.take(&c.regions) == nil {
		t.Fatal("no Read Request")
	}
	if r := c.send.outstanding(); r == nil || r.stag != 3<<8|1 || r.to != 1<<46+2*arena.PageSize {
		t.Fatalf("%+v", r)
	}
	wire := wireOf(1442, false,
		message{op: opSend, head: []byte("hello")},
		message{op: opWrite, stag: uint32(w.Key), to: w.Addr, data: bytes.Repeat([]byte{1}, 4096)},
		message{op: opReadResponse, stag: 3<<8 | 1, to: 1<<46 + 2*arena.PageSize, data: bytes.Repeat([]byte{2}, 4096)},
		message{op: opSendInvalidate, stag: uint32(w.Key)})
	if err := feed(&c.recv, wire, 1000, c); err != nil {
		t.Fatal(err)
	}
	if k := c.user.(*taker); k.messages != 2 || k.bytes != 5 || x.Bytes()[arena.PageSize] != 1 || x.Bytes()[3*arena.PageSize-1] != 2 {
		t.Errorf("%+v", k)
	}
}

// A tagged offset is checked without overflow, whatever it is.
func TestRegionBounds(t *testing.T) {
	a, err := arena.New(4 * arena.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	x, _ := a.Alloc(arena.PageSize)
	var table regionTable
	if err := table.init(2, 1); err != nil {
		t.Fatal(err)
	}
	r, err := table.grant(1, x, rdma.RemoteWrite)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to   uint64
		n    uint32
		want breach
	}{
		{r.Addr, 4096, breachNone},
		{r.Addr + 4095, 1, breachNone},
		{r.Addr + 4096, 0, breachNone},
		{r.Addr, 4097, breachBounds},
		{r.Addr + 1, 4096, breachBounds},
		{r.Addr + 4096, 1, breachBounds},
		{r.Addr - 1, 1, breachBounds},
		{0, 1, breachBounds},
		{0, 1<<32 - 1, breachBounds},
		{1 << 63, 1, breachBounds},
		{^uint64(0), 1, breachWrap},
		{^uint64(0) - 1, 1, breachBounds},
		{^uint64(0), 1<<32 - 1, breachWrap},
	} {
		if _, mem, b := table.at(uint32(r.Key), c.to, c.n, rdma.RemoteWrite); b != c.want || b == breachNone && len(mem) != int(c.n) {
			t.Errorf("%d bytes at %#x: %v, %d bytes", c.n, c.to, b, len(mem))
		}
	}
	if _, _, b := table.at(uint32(r.Key), r.Addr, 1, rdma.RemoteRead); b != breachAccess {
		t.Errorf("reading what may be written: %v", b)
	}
	if _, _, b := table.at(uint32(r.Key)+1, r.Addr, 1, rdma.RemoteWrite); b != breachSTag {
		t.Errorf("another generation: %v", b)
	}
	if err := (&regionTable{}).init(regionsMax, 1); err == nil {
		t.Error("more regions than STags")
	}
}
