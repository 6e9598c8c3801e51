package rdmatest

import (
	"bytes"
	"errors"
	"testing"

	"iscsictl/transport/rdma"
)

func testRegionsRunOut(t *testing.T, rig Rig) {
	p := Connect(t, rig, func(a, b *rdma.Options) { a.Regions = 3 })
	x := p.Active.Alloc(4096, 0)
	granted := map[rdma.Key]bool{}
	var last rdma.Region
	for i := range 3 {
		last = p.Active.Grant(uint64(i), x, rdma.RemoteRead|rdma.RemoteWrite)
		granted[last.Key] = true
	}
	if len(granted) != 3 && p.Active.Conn.Info().Revokes || granted[0] {
		t.Errorf("the keys are %v", granted)
	}
	p.Active.Enter()
	_, err := p.Active.Conn.Grant(9, x, rdma.RemoteRead)
	p.Active.Leave()
	if !errors.Is(err, rdma.ErrFull) {
		t.Errorf("the fourth region of three: %v", err)
	}
	p.Active.Revoke(2, last)
	for range 1000 { // more than a generation counter has
		r := p.Active.Grant(2, x, rdma.RemoteRead)
		if r.Key == 0 {
			t.Error("a region with key 0")
		}
		p.Active.Revoke(2, r)
	}
}

func testRevokeUnderReads(t *testing.T, rig Rig) {
	p := Connect(t, rig, nil)
	const n = 4 << 20
	source, sink := p.Active.Alloc(n, 's'), p.Passive.Alloc(n, 0)
	r := p.Active.Grant(5, source, rdma.RemoteRead)
	p.Active.text(0, 0, "go")
	p.Passive.AwaitReceived(1)
	for i := range 4 {
		p.Passive.Post(rdma.WorkRequest{ID: uint64(i), Op: rdma.OpRead, Data: sink, Signal: true, Remote: r})
	}
	p.Passive.AwaitDone(1)
	// A request that comes after this ends the connection; either way the
	// region's memory is to be free in the end.
	p.Active.Revoke(5, r)
}

// broken connects, has the passive side do something that it must not, and
// checks that both sides end, and that guarded memory has stayed as it was.
func broken(t *testing.T, rig Rig, shape func(a, b *rdma.Options), do func(p *Pair) rdma.WorkRequest) {
	t.Helper()
	p := Connect(t, rig, shape)
	p.Active.text(0, 0, "go")
	p.Passive.AwaitReceived(1)
	guard := p.Active.Alloc(64<<10, 'g')
	w := do(p)
	p.Passive.Post(w)
	if err := p.Active.AwaitClosed(); err == nil {
		t.Error("the side that was wronged ended without a cause")
	}
	if err := p.Passive.AwaitClosed(); err == nil {
		t.Error("the side that did wrong ended without a cause")
	}
	if !bytes.Equal(guard.Bytes(), bytes.Repeat([]byte{'g'}, guard.Len())) {
		t.Error("memory that was not lent has changed")
	}
}

func testBadKey(t *testing.T, rig Rig) {
	for _, op := range []rdma.Op{rdma.OpWrite, rdma.OpRead} {
		for _, change := range []rdma.Key{1 << 8, 1 << 31, 0x5a5a5a00} {
			broken(t, rig, nil, func(p *Pair) rdma.WorkRequest {
				r := p.Active.Grant(1, p.Active.Alloc(4096, 'g'), rdma.RemoteRead|rdma.RemoteWrite)
				r.Key ^= change
				return rdma.WorkRequest{ID: 1, Op: op, Data: p.Passive.Alloc(512, 'w'), Remote: r}
			})
		}
		broken(t, rig, nil, func(p *Pair) rdma.WorkRequest {
			return rdma.WorkRequest{ID: 1, Op: op, Data: p.Passive.Alloc(512, 'w')}
		})
	}
}

func testKeyOfRevokedRegion(t *testing.T, rig Rig) {
	for _, op := range []rdma.Op{rdma.OpWrite, rdma.OpRead} {
		for _, again := range []bool{false, true} {
			p := Connect(t, rig, nil)
			if !p.Active.Conn.Info().Revokes {
				t.Skip("the provider does not revoke regions before the end")
			}
			p.Active.text(0, 0, "go")
			p.Passive.AwaitReceived(1)
			x := p.Active.Alloc(4096, 'g')
			r := p.Active.Grant(1, x, rdma.RemoteRead|rdma.RemoteWrite)
			p.Active.Revoke(1, r)
			for i := uint64(2); again && i < 2+uint64(Options().Regions); i++ { // whatever takes its place
				p.Active.Grant(i, x, rdma.RemoteRead|rdma.RemoteWrite)
			}
			p.Passive.Post(rdma.WorkRequest{ID: 1, Op: op, Data: p.Passive.Alloc(512, 'w'), Remote: r})
			p.Active.AwaitClosed()
			p.Passive.AwaitClosed()
			if !bytes.Equal(x.Bytes(), bytes.Repeat([]byte{'g'}, 4096)) {
				t.Error("memory that was lent no more has changed")
			}
		}
	}
}

func testOutOfBounds(t *testing.T, rig Rig) {
	const n = 4096
	for _, op := range []rdma.Op{rdma.OpWrite, rdma.OpRead} {
		for _, c := range []struct {
			name string
			addr func(base uint64) uint64
			n    int
		}{
			{"before", func(b uint64) uint64 { return b - 1 }, 16},
			{"behind", func(b uint64) uint64 { return b + n }, 1},
			{"across the end", func(b uint64) uint64 { return b + n - 511 }, 512},
			{"longer", func(b uint64) uint64 { return b }, n + 1},
			{"at zero", func(uint64) uint64 { return 0 }, 16},
			{"at the end of all", func(uint64) uint64 { return ^uint64(0) }, 1},
			{"around the end of all", func(uint64) uint64 { return ^uint64(0) - 15 }, 32},
		} {
			t.Logf("operation %d, %s", op, c.name)
			broken(t, rig, nil, func(p *Pair) rdma.WorkRequest {
				r := p.Active.Grant(1, p.Active.Alloc(n, 'g'), rdma.RemoteRead|rdma.RemoteWrite)
				return rdma.WorkRequest{
					ID: 1, Op: op, Data: p.Passive.Alloc(c.n, 'w'),
					Remote: rdma.Region{Key: r.Key, Addr: c.addr(r.Addr)},
				}
			})
		}
	}
}

func testWrongAccess(t *testing.T, rig Rig) {
	for op, access := range map[rdma.Op]rdma.Access{rdma.OpWrite: rdma.RemoteRead, rdma.OpRead: rdma.RemoteWrite} {
		broken(t, rig, nil, func(p *Pair) rdma.WorkRequest {
			x := p.Active.Alloc(4096, 'g')
			r := p.Active.Grant(1, x, access)
			return rdma.WorkRequest{ID: 1, Op: op, Data: p.Passive.Alloc(512, 'w'), Remote: r}
		})
	}
}

func testSendTooLong(t *testing.T, rig Rig) {
	broken(t, rig, func(a, b *rdma.Options) { a.ReceiveSize = 1024 }, func(p *Pair) rdma.WorkRequest {
		return rdma.WorkRequest{ID: 1, Op: rdma.OpSend, Data: p.Passive.Alloc(1025, 'w')}
	})
}
