package verbs_test

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/Mellanox/rdmamap"

	"iscsictl/transport/rdma"
	"iscsictl/transport/rdma/rdmatest"
	"iscsictl/transport/rdma/verbs"
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
			rdmatest.Tests[name](t, rdmatest.Rig{Provider: verbs.Provider{}, Addr: netip.AddrPortFrom(addr, 0)})
		})
	}
}
