package iwarp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"iscsictl/transport/rdma"
	"iscsictl/transport/rdma/rdmatest"
)

// serve answers connections with what answer does, until the test ends.
func serve(t *testing.T, answer func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			answer(c)
			t.Cleanup(func() { c.Close() })
		}
	}()
	return addrPort(l.Addr())
}

// reply answers the request that it reads.
func reply(f mpaFrame) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if _, err := readFrame(c, false); err == nil {
			f.reply = true
			_, _ = c.Write(f.append(nil)) // or the initiator has gone
		}
	}
}

func dial(t *testing.T, p *Provider, addr netip.AddrPort) (rdma.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := p.Dial(ctx, addr, netip.AddrPort{}, rdmatest.Options())
	if err == nil {
		t.Cleanup(func() { c.Close(nil) })
	}
	return c, err
}

func TestDialSomethingElse(t *testing.T) {
	for name, answer := range map[string]func(*net.TCPConn){
		"closes":         func(c *net.TCPConn) { c.Close() },
		"resets":         func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() },
		"is silent":      func(*net.TCPConn) {},
		"talks":          func(c *net.TCPConn) { _, _ = c.Write([]byte("220 mail.example.org ESMTP\r\n")) },
		"says a bit":     func(c *net.TCPConn) { _, _ = c.Write([]byte("hi\r\n")); c.Close() },
		"answers a PDU":  func(c *net.TCPConn) { _, _ = c.Write(make([]byte, 48)) },
		"answers itself": func(c *net.TCPConn) { b := make([]byte, 28); _, _ = c.Read(b); _, _ = c.Write(b) },
	} {
		_, err := dial(t, &Provider{Timeout: 100 * time.Millisecond}, serve(t, answer))
		if name == "resets" && errors.Is(err, syscall.ECONNRESET) {
			continue // so early that there was no connection
		}
		if !errors.Is(err, ErrNotIWARP) {
			t.Errorf("a peer that %s: %v", name, err)
		}
	}
}

func TestDialRefusesReplies(t *testing.T) {
	good := mpaFrame{crc: true, revision: 2, enhanced: true, ird: 4, ord: 4}
	for _, c := range []struct {
		name   string
		change func(*mpaFrame)
		say    string
	}{
		{"markers", func(f *mpaFrame) { f.markers = true }, "markers"},
		{"revision 3", func(f *mpaFrame) { f.revision = 3 }, "revision 3"},
		{"revision 0", func(f *mpaFrame) { f.revision = 0 }, "revision 1 only"},
		{"rejection", func(f *mpaFrame) { f.reject = true }, "rejected"},
		{"RTR that was not offered", func(f *mpaFrame) { f.peerToPeer, f.rtr = true, RTRRead }, "RTR"},
	} {
		f := good
		c.change(&f)
		if _, err := dial(t, &Provider{}, serve(t, reply(f))); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := dial(t, &Provider{}, serve(t, reply(good))); err != nil {
		t.Errorf("a good reply: %v", err)
	}
}

func TestDialFallsBackToRevision1(t *testing.T) {
	for _, reject := range []bool{false, true} {
		addr := serve(t, func(c *net.TCPConn) {
			q, err := readFrame(c, false)
			if err != nil {
				return
			}
			f := mpaFrame{reply: true, crc: true, revision: 1, reject: reject && q.revision > 1, private: []byte("one")}
			_, _ = c.Write(f.append(nil)) // or the initiator has gone
		})
		c, err := dial(t, &Provider{}, addr)
		if err != nil {
			t.Fatal(err)
		}
		if i := c.Info(); string(i.PrivateData) != "one" || !strings.Contains(i.Detail, "MPA 1") {
			t.Errorf("connected as %+v", i)
		}
	}
}

func TestCRCIsOnWhereEitherWantsIt(t *testing.T) {
	for _, active := range []bool{false, true} {
		for _, passive := range []bool{false, true} {
			rig := rdmatest.Rig{Provider: &Provider{NoCRC: !active}, Listener: &Provider{NoCRC: !passive}, Addr: loopback}
			p := rdmatest.Connect(t, rig, nil)
			want := "no CRC"
			if active || passive {
				want = "CRC32C"
			}
			for _, e := range []*rdmatest.End{p.Active, p.Passive} {
				if d := e.Conn.Info().Detail; !strings.Contains(d, want) {
					t.Errorf("active wants %t, passive wants %t: %s", active, passive, d)
				}
			}
		}
	}
}

// The passive side refuses what it cannot do, and goes on with others.
func TestListenerRefusesRequests(t *testing.T) {
	l, err := (&Provider{}).Listen(context.Background(), loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	silent := dialTCP(t, l.Addr()) // holds up nobody
	for name, f := range map[string]mpaFrame{
		"markers":    {markers: true, crc: true, revision: 2, enhanced: true},
		"revision 0": {revision: 0},
	} {
		c := dialTCP(t, l.Addr())
		if _, err := c.Write(f.append(nil)); err != nil {
			t.Fatal(err)
		}
		if r, err := readFrame(c, true); err != nil || !r.reject {
			t.Errorf("%s: answered with %+v, %v", name, r, err)
		}
	}
	c := dialTCP(t, l.Addr())
	if _, err := c.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 {
		t.Errorf("zeroes were answered (%v)", err)
	}
	done := make(chan error, 1)
	go func() {
		r, err := l.Accept()
		if err == nil {
			_, err = r.Accept(rdmatest.Options())
		}
		done <- err
	}()
	if _, err := dial(t, &Provider{}, l.Addr()); err != nil {
		t.Errorf("a good request: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	silent.Close()
}

// An RTR that is a Send would take a receive: a peer that offers nothing else is rejected.
func TestListenerRefusesRTRSend(t *testing.T) {
	l, err := (&Provider{}).Listen(context.Background(), loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if r, err := l.Accept(); err == nil {
			if c, err := r.Accept(rdmatest.Options()); err == nil {
				t.Error("accepted")
				c.Close(nil)
			}
		}
	}()
	c := dialTCP(t, l.Addr())
	f := mpaFrame{crc: true, revision: 2, enhanced: true, peerToPeer: true, rtr: RTRSend}
	if _, err := c.Write(f.append(nil)); err != nil {
		t.Fatal(err)
	}
	if r, err := readFrame(c, true); err != nil || !r.reject {
		t.Errorf("answered with %+v, %v", r, err)
	}
}

func TestDevice(t *testing.T) {
	p := rdmatest.Connect(t, rdmatest.Rig{Provider: &Provider{}, Addr: loopback}, nil)
	if i := p.Active.Conn.Info(); i.Device != "lo" || i.Provider != "iwarp" {
		t.Errorf("%+v", i)
	}
}

// What the faults do must be seen by a peer as what they are.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		faults Faults
		want   terminateKind
	}{
		"CRC":   {Faults{CorruptCRC: 3}, terminateCRC},
		"MSN":   {Faults{SkipMSN: 3}, terminateMSN},
		"reads": {Faults{ExceedReads: true}, terminateIRD},
	} {
		rig := rdmatest.Rig{Provider: &Provider{Faults: c.faults}, Listener: &Provider{}, Addr: loopback}
		p := rdmatest.Connect(t, rig, func(a, b *rdma.Options) { a.OutboundReads = 1 })
		x := p.Passive.Alloc(4<<20, 0)
		sink := p.Active.Alloc(4<<20, 0)
		r := p.Passive.Grant(1, x, rdma.RemoteRead)
		op := rdma.OpSend
		if c.faults.ExceedReads {
			op = rdma.OpRead
		}
		var ws []rdma.WorkRequest
		for i := range 6 {
			w := rdma.WorkRequest{ID: uint64(i), Op: op, Signal: true, Data: sink, Remote: r}
			if op == rdma.OpSend {
				w.Data = sink.Slice(0, 8)
			}
			ws = append(ws, w)
		}
		p.Active.Post(ws...)
		err := p.Passive.AwaitClosed()
		if f := (*fault)(nil); !errors.As(err, &f) || f.kind != c.want {
			t.Errorf("%s: the peer ended with %v", name, err)
		}
		p.Active.AwaitClosed()
	}
	if _, err := dial(t, &Provider{}, listenWith(t, Faults{Markers: true})); err == nil || !strings.Contains(err.Error(), "markers") {
		t.Errorf("markers: %v", err)
	}
}

func listenWith(t *testing.T, f Faults) netip.AddrPort {
	t.Helper()
	l, err := (&Provider{Faults: f}).Listen(context.Background(), loopback)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		if r, err := l.Accept(); err == nil {
			if c, err := r.Accept(rdmatest.Options()); err == nil {
				t.Cleanup(func() { c.Close(nil) })
			}
		}
	}()
	return l.Addr()
}
