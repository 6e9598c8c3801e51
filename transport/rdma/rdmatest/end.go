package rdmatest

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
)

// patience is how long an event may take before a test gives up.
const patience = 30 * time.Second

// Message is what an end has received.
type Message struct {
	Data        []byte
	Invalidated rdma.Key
}

// End is one side of a connection, and its handler: it keeps what happens, for
// a test to wait for.
type End struct {
	Conn  rdma.Conn
	Arena *arena.Arena

	t       testing.TB
	mu      sync.Mutex
	changed sync.Cond
	inside  bool // between Enter and Leave
	started bool
	lent    []arena.Extent

	received []Message
	done     []uint64
	revoked  []uint64
	closed   int
	cause    error
	keep     bool // do not repost receives
	kept     []int
	refuse   error // returned from Received
	next     *End  // takes over at the next message
}

func newEnd(t testing.TB) *End {
	t.Helper()
	a, err := arena.New(arenaSize)
	if err != nil {
		t.Fatal(err)
	}
	e := &End{t: t, Arena: a}
	e.changed.L = &e.mu
	t.Cleanup(e.stop)
	return e
}

// Start starts the connection.
func (e *End) Start() {
	e.started = true
	e.Conn.Start(e)
}

// stop ends the connection, and gives its memory back once that has ended.
func (e *End) stop() {
	if e.Conn != nil {
		e.Conn.Close(nil)
	}
	if e.started {
		e.AwaitClosed()
	}
	for _, x := range e.lent {
		x.Free()
	}
	if err := e.Arena.Close(); err != nil {
		e.t.Error(err)
	}
	if e.closed > 1 {
		e.t.Errorf("Closed was called %d times", e.closed)
	}
}

// Enter implements rdma.Handler.
func (e *End) Enter() {
	e.mu.Lock()
	e.inside = true
}

// Leave implements rdma.Handler.
func (e *End) Leave() {
	e.inside = false
	e.changed.Broadcast()
	e.mu.Unlock()
	e.Conn.Flush()
}

func (e *End) check(event string) {
	if !e.inside {
		e.t.Errorf("%s outside of Enter and Leave", event)
	}
	if e.closed > 0 {
		e.t.Errorf("%s after Closed", event)
	}
}

// Received implements rdma.Handler.
func (e *End) Received(slot int, data []byte, invalidated rdma.Key) error {
	e.check("Received")
	e.received = append(e.received, Message{bytes.Clone(data), invalidated})
	if e.keep {
		e.kept = append(e.kept, slot)
	} else {
		e.Conn.Repost(slot)
	}
	if e.next != nil {
		e.Conn.Handover(e.next)
	}
	return e.refuse
}

// Done implements rdma.Handler.
func (e *End) Done(id uint64) error {
	e.check("Done")
	e.done = append(e.done, id)
	return nil
}

// Revoked implements rdma.Handler.
func (e *End) Revoked(id uint64) error {
	e.check("Revoked")
	e.revoked = append(e.revoked, id)
	return nil
}

// Closed implements rdma.Handler.
func (e *End) Closed(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed++
	e.cause = err
	e.changed.Broadcast()
}

// await waits until ok, which is called with the lock held.
func (e *End) await(what string, ok func() bool) {
	e.t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		e.mu.Lock()
		late = true
		e.mu.Unlock()
		e.changed.Broadcast()
	})
	defer timer.Stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for !ok() {
		if late {
			e.t.Fatalf("waited for %s: %d received, done %v, revoked %v, closed %d (%v)",
				what, len(e.received), e.done, e.revoked, e.closed, e.cause)
		}
		e.changed.Wait()
	}
}

// AwaitClosed waits for the end of the connection and returns its cause.
func (e *End) AwaitClosed() error {
	e.t.Helper()
	e.await("the end", func() bool { return e.closed > 0 })
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cause
}

// AwaitReceived waits until n messages have come, and returns all that have.
func (e *End) AwaitReceived(n int) []Message {
	e.t.Helper()
	e.await(fmt.Sprintf("%d messages", n), func() bool { return len(e.received) >= n })
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.received
}

// AwaitDone waits until n requests are done, and returns the ids of all that are.
func (e *End) AwaitDone(n int) []uint64 {
	e.t.Helper()
	e.await(fmt.Sprintf("%d requests done", n), func() bool { return len(e.done) >= n })
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.done
}

// Post posts requests and flushes.
func (e *End) Post(w ...rdma.WorkRequest) {
	e.t.Helper()
	e.Enter()
	var err error
	for _, x := range w {
		if err = e.Conn.Post(x); err != nil {
			break
		}
	}
	e.Leave()
	if err != nil {
		e.t.Fatalf("post: %v", err)
	}
}

// text posts a Send of text from a send slot.
func (e *End) text(id uint64, slot int, text string) {
	e.t.Helper()
	n := copy(e.Conn.SendSlot(slot), text)
	e.Post(rdma.WorkRequest{ID: id, Op: rdma.OpSend, Signal: true, Slot: slot, Head: n})
}

// Grant grants an extent under an id.
func (e *End) Grant(id uint64, x arena.Extent, a rdma.Access) rdma.Region {
	e.t.Helper()
	e.Enter()
	r, err := e.Conn.Grant(id, x, a)
	e.Leave()
	if err != nil {
		e.t.Fatalf("grant: %v", err)
	}
	return r
}

// Revoke revokes a region and waits until nothing refers to it, or the
// connection has ended.
func (e *End) Revoke(id uint64, r rdma.Region) {
	e.t.Helper()
	e.Enter()
	over := e.Conn.Revoke(r)
	e.Leave()
	if !over {
		e.await("the region's release", func() bool {
			return slices.Contains(e.revoked, id) || e.closed > 0
		})
	}
}

// Alloc lends an extent of n bytes until the test's end, filled with b.
func (e *End) Alloc(n int, b byte) arena.Extent {
	e.t.Helper()
	x, ok := e.Arena.Alloc(n)
	if !ok {
		e.t.Fatalf("no %d bytes in the arena", n)
	}
	e.lent = append(e.lent, x)
	for i := range x.Bytes() {
		x.Bytes()[i] = b
	}
	return x
}

// Pair is a connection with both of its ends.
type Pair struct {
	Active, Passive *End
}

// arenaSize is that of each end's arena.
const arenaSize = 16 << 20

// Options are those that the suite uses unless a test says otherwise.
func Options() rdma.Options {
	return rdma.Options{
		SendDepth: 32, SendSlots: 16, SendSlotSize: 4096,
		Receives: 16, ReceiveSize: 8192, Regions: 16,
		InboundReads: 8, OutboundReads: 4, DSCP: -1, PCP: -1,
	}
}

// Connect connects two ends and starts them. shape, where it is not nil, may
// change the options of either.
func Connect(t testing.TB, rig Rig, shape func(active, passive *rdma.Options)) *Pair {
	t.Helper()
	p := Establish(t, rig, shape)
	p.Passive.Start()
	p.Active.Start()
	return p
}

// Establish connects two ends without starting them. They are closed at the
// test's end, and what they hold must be free by then.
func Establish(t testing.TB, rig Rig, shape func(active, passive *rdma.Options)) *Pair {
	t.Helper()
	active, passive := Options(), Options()
	if shape != nil {
		shape(&active, &passive)
	}
	p := &Pair{newEnd(t), newEnd(t)}
	active.Arena, passive.Arena = p.Active.Arena, p.Passive.Arena
	l, err := rig.passive().Listen(context.Background(), rig.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan error, 1)
	go func() {
		r, err := l.Accept()
		if err == nil {
			p.Passive.Conn, err = r.Accept(passive)
		}
		accepted <- err
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if p.Active.Conn, err = rig.Provider.Dial(ctx, l.Addr(), netip.AddrPort{}, active); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	return p
}
