package disk

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/scsi"
	"iscsictl/session"
)

// rig is a Set on a fakeNexus. It is to be used in a synctest bubble.
type rig struct {
	t      *testing.T
	n      *fakeNexus
	set    *Set
	events []string
	disks  map[uint64]*Disk // as the events have it
	done   []*device.Request
	mu     sync.Mutex
}

func (g *rig) event(d *Disk, text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, fmt.Sprintf("%s %d", text, d.LUN()))
}

func (g *rig) DiskAdded(d *Disk) {
	g.event(d, "added")
	g.mu.Lock()
	defer g.mu.Unlock()
	g.disks[d.LUN()] = d
}

func (g *rig) DiskChanged(d *Disk, geo device.Geometry) {
	g.event(d, fmt.Sprintf("changed to %d", geo.Size))
}

func (g *rig) Scanned() {}

func (g *rig) DiskRemoved(d *Disk) {
	g.event(d, "removed")
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.disks, d.LUN())
}

// Complete implements device.Queue.
func (g *rig) Complete(done []*device.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done = append(g.done, done...)
}

// change changes what the target has.
func (g *rig) change(f func()) {
	g.n.mu.Lock()
	defer g.n.mu.Unlock()
	f()
}

// takeEvents returns what was told since the last call.
func (g *rig) takeEvents() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.events
	g.events = nil
	return e
}

func newRig(t *testing.T, lus ...*fakeLU) *rig {
	t.Helper()
	mem, err := arena.New(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{t: t, n: &fakeNexus{mem: mem, lus: map[scsi.LUN]*fakeLU{}}, disks: map[uint64]*Disk{}}
	for i, lu := range lus {
		g.n.lus[scsi.LUNOf(uint64(i))] = lu
	}
	g.set = New(Config{Events: g, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Random: func() float64 { return 0.5 }})
	if err := g.set.Bind(g.n); err != nil {
		t.Fatal(err)
	}
	return g
}

// up brings a new nexus up, and waits until all is looked at.
func (g *rig) up() {
	g.n.mu.Lock()
	g.n.up = true
	g.n.number++
	number := g.n.number
	g.n.mu.Unlock()
	g.set.Up(number)
	synctest.Wait()
}

func (g *rig) down() {
	g.n.lose()
	g.set.Down(session.ErrNexusLost)
	synctest.Wait()
}

// close ends all, and fails the test where memory was not given back or a
// request was left.
func (g *rig) close() {
	g.t.Helper()
	g.down()
	g.set.Close()
	for _, r := range g.done {
		r.Data.Free()
	}
	if err := g.n.mem.Close(); err != nil {
		g.t.Error(err)
	}
}

// request makes a request with data of its own.
func (g *rig) request(op device.Op, off, n int64) *device.Request {
	g.t.Helper()
	r := &device.Request{Op: op, Offset: off, Length: n, Queue: g, Errno: 99}
	if op == device.Read || op == device.Write {
		var ok bool
		if r.Data, ok = g.n.mem.Alloc(int(n)); !ok {
			g.t.Fatal("no memory for a request")
		}
		for i := range r.Data.Bytes() {
			r.Data.Bytes()[i] = byte(i*7) ^ byte(off/512) | 1
		}
	}
	return r
}

// isDone reports whether a request was completed, once.
func (g *rig) isDone(r *device.Request) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, x := range g.done {
		if x == r {
			n++
		}
	}
	if n > 1 {
		g.t.Errorf("a request was completed %d times", n)
	}
	return n > 0
}

// do submits a request and answers all its commands.
func (g *rig) do(d *Disk, r *device.Request) {
	g.t.Helper()
	d.Submit([]*device.Request{r})
	g.n.run()
	if !g.isDone(r) {
		g.t.Fatal("the request was not completed")
	}
}

// one is a rig with one disk, scanned.
func one(t *testing.T, lu *fakeLU) (*rig, *Disk) {
	t.Helper()
	g := newRig(t, lu)
	g.up()
	d := g.disks[0]
	if d == nil {
		t.Fatalf("no disk: %q", g.set.Notes())
	}
	g.takeEvents()
	return g, d
}
