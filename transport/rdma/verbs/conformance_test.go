package verbs_test

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Mellanox/rdmamap"

	"iscsictl/transport/rdma"
	"iscsictl/transport/rdma/rdmatest"
	"iscsictl/transport/rdma/verbs"
	"iscsictl/wait"
	"iscsictl/wait/waittest"
)

// TestConformance runs the suite on an RDMA device of this host: both ends are
// at the address that VERBS_ADDR names, which the device's network interface has.
func TestConformance(t *testing.T) {
	text := os.Getenv("VERBS_ADDR")
	if text == "" {
		t.Skip("VERBS_ADDR names no address of an RDMA device (make check-vm has one)")
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := verbs.Probe(); err != nil {
		t.Fatal(err)
	}
	device, why := verbs.DeviceFor(addr, netip.Addr{})
	if why != nil {
		t.Fatal(why)
	}
	kind, err := os.ReadFile(filepath.Join(rdmamap.RdmaClassDir, device, "node_type"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("on %s (%s)", device, strings.TrimSpace(string(kind)))
	iwarp := strings.Contains(string(kind), "RNIC")
	t.Run("Sleeping", func(t *testing.T) { conforms(t, verbs.Provider{}, device, iwarp, addr) })
	spin := func() time.Duration { return 200 * time.Microsecond }
	t.Run("Spinning", func(t *testing.T) { conforms(t, verbs.Provider{Spin: spin}, device, iwarp, addr) })
	thread := waittest.New(t)
	t.Run("Lent", func(t *testing.T) { conforms(t, lender{thread: thread}, device, iwarp, addr) })
	if n := thread.Stop(); n < 10 {
		t.Errorf("%d connections were lent", n)
	}
}

// lender is a provider that lends its connections to a thread.
type lender struct {
	verbs.Provider
	thread *waittest.Thread
}

func (l lender) Dial(ctx context.Context, addr, local netip.AddrPort, opts rdma.Options) (rdma.Conn, error) {
	c, err := l.Provider.Dial(ctx, addr, local, opts)
	if err != nil {
		return nil, err
	}
	return lent{c, l.thread}, nil
}

type lent struct {
	rdma.Conn
	thread *waittest.Thread
}

func (c lent) Start(h rdma.Handler) {
	c.Conn.Start(h)
	c.Conn.(wait.Lender).Lend(c.thread)
}

func conforms(t *testing.T, p rdma.Provider, device string, iwarp bool, addr netip.Addr) {
	for _, name := range slices.Sorted(maps.Keys(rdmatest.Tests)) {
		t.Run(name, func(t *testing.T) {
			switch {
			case name == "PrivateData" && !iwarp && rdma.MaxPrivateData > 56:
				t.Skip("a request has place for 56 bytes")
			case name == "ReadDepths" && iwarp:
				t.Skip("the driver raises what the passive side answers to what the active side asks for")
			case name == "WrongAccess" && strings.HasPrefix(device, "siw"):
				t.Skip("the driver lets the peer read what it may only write to")
			}
			rdmatest.Tests[name](t, rdmatest.Rig{Provider: p, Addr: netip.AddrPortFrom(addr, 0)})
		})
	}
}
