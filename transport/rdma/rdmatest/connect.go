package rdmatest

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"iscsictl/transport/rdma"
)

func testPrivateData(t *testing.T, rig Rig) {
	for _, n := range []int{0, 4, 100, rdma.MaxPrivateData} {
		active, passive := bytes.Repeat([]byte{0xa5}, n), bytes.Repeat([]byte{0x5a}, n)
		p := Connect(t, rig, func(a, b *rdma.Options) { a.PrivateData, b.PrivateData = active, passive })
		padded(t, "passive side's private data", p.Active.Conn.Info().PrivateData, passive)
		if i, j := p.Active.Conn.Info(), p.Passive.Conn.Info(); i.Remote != j.Local || i.Local.Addr() != j.Remote.Addr() {
			t.Errorf("addresses: %v to %v, and %v to %v", i.Local, i.Remote, j.Local, j.Remote)
		}
	}
}

// padded checks private data, which a provider may pad with zeroes.
func padded(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.HasPrefix(got, want) || len(bytes.Trim(got[len(want):], "\x00")) > 0 {
		t.Errorf("%s is %x, want %x", what, got, want)
	}
}

func testReject(t *testing.T, rig Rig) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := rig.passive().Listen(ctx, rig.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := make(chan []byte, 1)
	go func() {
		r, err := l.Accept()
		if err != nil {
			t.Error(err)
			close(seen)
			return
		}
		if err := r.Reject([]byte("no")); err != nil {
			t.Error(err)
		}
		seen <- r.PrivateData()
	}()
	o := Options()
	o.PrivateData = []byte("please")
	c, err := rig.Provider.Dial(ctx, l.Addr(), netip.AddrPort{}, o)
	if err == nil {
		c.Close(nil)
		t.Fatal("connected where the peer rejects")
	}
	padded(t, "active side's private data", <-seen, []byte("please"))
	var r *rdma.RejectedError
	if !errors.As(err, &r) {
		t.Fatalf("the error is %T: %v", err, err)
	}
	padded(t, "rejecting side's private data", r.PrivateData, []byte("no"))
}

func testReadDepths(t *testing.T, rig Rig) {
	p := Connect(t, rig, func(a, b *rdma.Options) {
		a.InboundReads, a.OutboundReads = 6, 3
		b.InboundReads, b.OutboundReads = 2, 4
	})
	a, b := p.Active.Conn.Info(), p.Passive.Conn.Info()
	if b.OutboundReads != 4 || b.InboundReads != 2 {
		t.Errorf("passive depths are %d in, %d out; want 2 and 4", b.InboundReads, b.OutboundReads)
	}
	// The active side answers no fewer than the passive side asks, and the
	// other way round.
	if a.InboundReads < b.OutboundReads || a.OutboundReads > b.InboundReads || a.OutboundReads < 1 || a.InboundReads > 6 {
		t.Errorf("active depths are %d in, %d out; passive %d in, %d out", a.InboundReads, a.OutboundReads, b.InboundReads, b.OutboundReads)
	}
}

func testBadOptions(t *testing.T, rig Rig) {
	for name, spoil := range map[string]func(o *rdma.Options){
		"private data": func(o *rdma.Options) { o.PrivateData = make([]byte, rdma.MaxPrivateData+1) },
		"send depth":   func(o *rdma.Options) { o.SendDepth = 0 },
		"receives":     func(o *rdma.Options) { o.Receives = 0 },
		"read depth":   func(o *rdma.Options) { o.InboundReads = rdma.MaxReads + 1 },
		"slots":        func(o *rdma.Options) { o.SendSlots = -1 },
	} {
		o := Options()
		spoil(&o)
		if c, err := rig.Provider.Dial(context.Background(), netip.AddrPortFrom(rig.Addr.Addr(), 1), netip.AddrPort{}, o); err == nil {
			c.Close(nil)
			t.Errorf("%s: connected", name)
		}
	}
}

func testDialNobody(t *testing.T, rig Rig) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := rig.passive().Listen(ctx, rig.Addr)
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr()
	l.Close()
	if c, err := rig.Provider.Dial(ctx, addr, netip.AddrPort{}, Options()); err == nil {
		c.Close(nil)
		t.Error("connected to nobody")
	}
}

func testDialIsCancelled(t *testing.T, rig Rig) {
	l, err := rig.passive().Listen(context.Background(), rig.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked := make(chan rdma.Request, 1)
	go func() {
		r, err := l.Accept() // and no answer
		if err != nil {
			t.Error(err)
		}
		cancel()
		asked <- r
	}()
	start := time.Now()
	c, err := rig.Provider.Dial(ctx, l.Addr(), netip.AddrPort{}, Options())
	if err == nil {
		c.Close(nil)
		t.Fatal("connected without an answer")
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if d := time.Since(start); d > patience/3 {
		t.Errorf("it took %v", d)
	}
	if r := <-asked; r != nil {
		_ = r.Reject(nil) // the peer is gone: an error is fine
	}
}

func testListenerCloses(t *testing.T, rig Rig) {
	l, err := rig.passive().Listen(context.Background(), rig.Addr)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	l.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, rdma.ErrClosed) {
			t.Errorf("Accept returned %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Accept goes on after Close")
	}
	if _, err := l.Accept(); !errors.Is(err, rdma.ErrClosed) {
		t.Errorf("a later Accept returned %v", err)
	}
}

func testNothingLeaks(t *testing.T, rig Rig) {
	count := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	cycle := func(t *testing.T) {
		p := Connect(t, rig, nil)
		p.Active.text(1, 0, "hello")
		p.Passive.AwaitReceived(1)
	}
	t.Run("warm", cycle) // what is opened once and kept
	before := count()
	for range 10 {
		t.Run("again", cycle)
	}
	after := count()
	for deadline := time.Now().Add(patience); after > before && time.Now().Before(deadline); after = count() {
		time.Sleep(time.Millisecond) // a listener's last descriptor closes by itself
	}
	if after > before {
		t.Errorf("%d descriptors before, %d after ten connections", before, after)
	}
}
