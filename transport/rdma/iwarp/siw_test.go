package iwarp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
)

// siwAddr finds an address of the kernel's soft-iWARP device, or skips.
func siwAddr(t *testing.T) netip.Addr {
	t.Helper()
	if _, err := exec.LookPath("rping"); err != nil {
		t.Skip("no rping (package rdmacm-utils)")
	}
	devices, _ := filepath.Glob("/sys/class/infiniband/siw_*") // the pattern is good
	for _, d := range devices {
		link, err := net.InterfaceByName(strings.TrimPrefix(filepath.Base(d), "siw_"))
		if err != nil {
			continue
		}
		addrs, _ := link.Addrs()
		for _, a := range addrs {
			if n, err := netip.ParsePrefix(a.String()); err == nil && n.Addr().Is4() {
				return n.Addr()
			}
		}
	}
	t.Skip("no siw device (rdma link add siw_eth0 type siw netdev eth0)")
	return netip.Addr{}
}

// rping starts rdma-core's rping.
func rping(t *testing.T, args ...string) (wait func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	cmd := exec.CommandContext(ctx, "rping", append(args, "-d", "-V", "-v")...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Logf("rping %v:\n%.4000s", args, out.String())
		}
	})
	return func() error { return <-ended }
}

// next waits for something that a peer brings about.
func next[T any](t *testing.T, what string, c <-chan T, u *user) T {
	t.Helper()
	select {
	case x := <-c:
		return x
	case err := <-u.closed:
		u.closed <- err
		t.Fatalf("waited for %s: %v", what, err)
	case <-time.After(30 * time.Second):
		t.Fatalf("waited for %s", what)
	}
	panic("unreachable")
}

func siwOptions(t *testing.T) (rdma.Options, *arena.Arena) {
	t.Helper()
	a, err := arena.New(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	return rdma.Options{
		Arena: a, SendDepth: 16, SendSlots: 2, SendSlotSize: 64, Receives: 8, ReceiveSize: 16,
		Regions: 2, InboundReads: 16, OutboundReads: 1, DSCP: -1, PCP: -1,
	}, a
}

// advert is what rping sends to say where memory is.
func advert(r rdma.Region, n int) []byte {
	b := binary.BigEndian.AppendUint64(nil, r.Addr)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Key))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func dialSiw(t *testing.T, p *Provider, addr netip.AddrPort, o rdma.Options) *user {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var c rdma.Conn
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		c, err = p.Dial(ctx, addr, netip.AddrPort{}, o)
		cancel()
		if err == nil {
			t.Logf("%+v", c.Info())
			u := newUser(c)
			c.Start(u)
			t.Cleanup(func() { c.Close(nil) })
			return u
		}
	}
	t.Fatal(err) // rping has had time to start
	return nil
}

func send(t *testing.T, u *user, b []byte) {
	t.Helper()
	post(t, u, b)
	next(t, "a Send", u.done, u)
}

func post(t *testing.T, u *user, b []byte) {
	t.Helper()
	u.Enter()
	n := copy(u.conn.SendSlot(0), b)
	err := u.conn.Post(rdma.WorkRequest{Op: rdma.OpSend, Signal: true, Slot: 0, Head: n})
	u.Leave()
	if err != nil {
		t.Fatal(err)
	}
}

// siw reads from our memory by RDMA Read, and writes to it by RDMA Write.
func TestSiwPassive(t *testing.T) {
	addr := siwAddr(t)
	port := 7270
	for name, p := range map[string]*Provider{
		"default": {}, "no CRC": {NoCRC: true}, "large MULPDU": {MULPDU: mulpduMax}, "small MULPDU": {MULPDU: 1442},
		"RTR by Write": {RTR: RTRWrite}, "RTR by Read": {RTR: RTRRead},
	} {
		for _, size := range []int{64, 65000} { // rping takes no more than 65535
			port++
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				ended := rping(t, "-s", "-a", addr.String(), "-p", strconv.Itoa(port), "-S", strconv.Itoa(size), "-C", "3")
				o, a := siwOptions(t)
				u := dialSiw(t, p, netip.AddrPortFrom(addr, uint16(port)), o)
				pingSiw(t, u, a, size)
				u.conn.Close(nil)
				_ = ended() // its status says that the connection went away
			})
		}
	}
}

func pingSiw(t *testing.T, u *user, a *arena.Arena, size int) {
	source, _ := a.Alloc(size)
	sink, _ := a.Alloc(size)
	for round := range 3 {
		for i := range size - 1 {
			source.Bytes()[i] = byte('A' + (i+round)%57)
		}
		u.Enter()
		r, err := u.conn.Grant(1, source, rdma.RemoteRead)
		w, err2 := u.conn.Grant(2, sink, rdma.RemoteWrite)
		u.Leave()
		if err = errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		send(t, u, advert(r, size))
		next(t, "the RDMA Read's end", u.messages, u)
		send(t, u, advert(w, size))
		next(t, "the RDMA Write's end", u.messages, u)
		if !bytes.Equal(sink.Bytes(), source.Bytes()) {
			t.Fatalf("round %d: what was read from us and written back differs", round)
		}
		u.Enter()
		u.conn.Revoke(r)
		u.conn.Revoke(w)
		u.Leave()
	}
}

// We read from siw's memory, and write to it.
func TestSiwActive(t *testing.T) {
	addr := siwAddr(t)
	for name, p := range map[string]*Provider{"default": {}, "no CRC": {NoCRC: true}, "large MULPDU": {MULPDU: mulpduMax}} {
		for _, size := range []int{64, 65000} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				l, err := p.Listen(context.Background(), netip.AddrPortFrom(addr, 0))
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				ended := rping(t, "-c", "-a", addr.String(), "-p", strconv.Itoa(int(l.Addr().Port())), "-S", strconv.Itoa(size), "-C", "3")
				late := time.AfterFunc(30*time.Second, func() { l.Close() })
				defer late.Stop()
				r, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				o, a := siwOptions(t)
				c, err := r.Accept(o)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%+v", c.Info())
				u := newUser(c)
				c.Start(u)
				serveSiw(t, u, a)
				if err := ended(); err != nil {
					t.Errorf("rping: %v", err)
				}
				c.Close(nil)
			})
		}
	}
}

func serveSiw(t *testing.T, u *user, a *arena.Arena) {
	for range 3 {
		var data arena.Extent
		for _, op := range []rdma.Op{rdma.OpRead, rdma.OpWrite} {
			m := []byte(next(t, "an advert", u.messages, u))
			if len(m) != 16 {
				t.Fatalf("an advert of %d bytes", len(m))
			}
			r := rdma.Region{Addr: binary.BigEndian.Uint64(m), Key: rdma.Key(binary.BigEndian.Uint32(m[8:]))}
			if op == rdma.OpRead {
				data, _ = a.Alloc(int(binary.BigEndian.Uint32(m[12:])))
			}
			u.Enter()
			err := u.conn.Post(rdma.WorkRequest{Op: op, Signal: true, Data: data, Remote: r})
			u.Leave()
			if err != nil {
				t.Fatal(err)
			}
			next(t, "an RDMA operation", u.done, u)
			send(t, u, make([]byte, 16))
		}
		data.Free()
	}
}

// siw's Terminate messages are understood.
func TestSiwTerminates(t *testing.T) {
	addr := siwAddr(t)
	port := 7370
	for name, c := range map[string]struct {
		faults Faults
		n      int // bytes of each Send; rping has room for 16
		layer  uint8
		code   uint8
	}{
		"CRC":       {Faults{CorruptCRC: 1}, 16, layerMPA, terminateCRC.code},
		"MSN":       {Faults{SkipMSN: 1}, 16, layerDDP, terminateMSN.code},
		"long Send": {Faults{}, 60, layerDDP, 0},
	} {
		t.Run(name, func(t *testing.T) {
			port++
			ended := rping(t, "-s", "-a", addr.String(), "-p", strconv.Itoa(port), "-C", "1")
			o, _ := siwOptions(t)
			u := dialSiw(t, &Provider{Faults: c.faults}, netip.AddrPortFrom(addr, uint16(port)), o)
			post(t, u, make([]byte, c.n))
			err := next(t, "the end", u.closed, newUser(nil))
			var e *TerminateError
			if !errors.As(err, &e) || !e.Swapped || e.Layer != c.layer || c.code != 0 && e.Code != c.code {
				t.Errorf("ended with %v (%+v)", err, e)
			}
			t.Logf("%v", err)
			_ = ended() // with an error
		})
	}
}
