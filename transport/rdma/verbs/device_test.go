package verbs

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Mellanox/rdmamap"
)

// fakeSysfs has RDMA devices with their ports' network interfaces, or with
// nothing but a GUID.
func fakeSysfs(t *testing.T, links, guids map[string]string) {
	t.Helper()
	class, store := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for device, link := range links {
		write(filepath.Join(store, device, "ports/1/gid_attrs/ndevs/0"), link)
		write(filepath.Join(store, device, "node_guid"), "0000:0000:0000:0000")
	}
	for device, guid := range guids {
		write(filepath.Join(store, device, "node_guid"), guid)
	}
	// As in sysfs, the class has symbolic links.
	for _, m := range []map[string]string{links, guids} {
		for device := range m {
			if err := os.Symlink(filepath.Join(store, device), filepath.Join(class, device)); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := rdmamap.RdmaClassDir
	rdmamap.RdmaClassDir = class
	t.Cleanup(func() { rdmamap.RdmaClassDir = old })
}

// ethernet returns an Ethernet interface with an address, and that address.
func ethernet(t *testing.T) (net.Interface, netip.Addr) {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if _, ok := guidOf(l.HardwareAddr); err != nil || !ok || l.Flags&net.FlagUp == 0 {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
				ip, _ := netip.AddrFromSlice(n.IP.To4())
				return l, ip
			}
		}
	}
	t.Skip("this machine has no Ethernet interface with an IPv4 address")
	return net.Interface{}, netip.Addr{}
}

func TestDeviceOfAnInterface(t *testing.T) {
	link, addr := ethernet(t)
	fakeSysfs(t, map[string]string{"mlx5_0": "elsewhere0", "rxe_0": link.Name}, nil)
	if device, err := DeviceFor(addr, netip.Addr{}); device != "rxe_0" || err != nil {
		t.Errorf("DeviceFor(%v) = %q, %v", addr, device, err)
	}
	if device, err := DeviceFor(addr, addr); device != "rxe_0" || err != nil {
		t.Errorf("DeviceFor(%v) from there = %q, %v", addr, device, err)
	}
}

func TestDeviceByItsGUID(t *testing.T) {
	link, addr := ethernet(t)
	guid, _ := guidOf(link.HardwareAddr)
	fakeSysfs(t, nil, map[string]string{"other": "0123:45ff:fe67:89ab", "siw_0": guid})
	if device, err := DeviceFor(addr, netip.Addr{}); device != "siw_0" || err != nil {
		t.Errorf("DeviceFor(%v) = %q, %v", addr, device, err)
	}
}

func TestGUIDOfAnAddress(t *testing.T) {
	a, _ := net.ParseMAC("52:54:00:12:34:56")
	if guid, ok := guidOf(a); guid != "5054:00ff:fe12:3456" || !ok {
		t.Errorf("guidOf(%v) = %q, %v", a, guid, ok)
	}
	for _, none := range []net.HardwareAddr{nil, make(net.HardwareAddr, 6), make(net.HardwareAddr, 20)} {
		if guid, ok := guidOf(none); ok {
			t.Errorf("guidOf(%v) = %q", none, guid)
		}
	}
}

func TestNoDevice(t *testing.T) {
	link, addr := ethernet(t)
	fakeSysfs(t, map[string]string{"mlx5_0": "elsewhere0"}, nil)
	device, err := DeviceFor(addr, netip.Addr{})
	if device != "" || err == nil || !strings.Contains(err.Error(), "netdev "+link.Name) {
		t.Errorf("DeviceFor(%v) = %q, %v", addr, device, err)
	}
	if device, err := DeviceFor(netip.MustParseAddr("127.0.0.1"), netip.Addr{}); device != "" || err == nil {
		t.Errorf("the loopback interface has the device %q (%v)", device, err)
	}
	if device, err := DeviceFor(netip.Addr{}, netip.Addr{}); device != "" || err == nil {
		t.Errorf("no address has the device %q (%v)", device, err)
	}
	if device, err := DeviceFor(netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("198.51.100.77")); device != "" || err == nil {
		t.Errorf("a foreign local address has the device %q (%v)", device, err)
	}
}

func TestMissingNodes(t *testing.T) {
	ucm, dir := rdmamap.RdmaUcmDevice, rdmamap.RdmaDeviceDir
	t.Cleanup(func() { rdmamap.RdmaUcmDevice, rdmamap.RdmaDeviceDir = ucm, dir })
	rdmamap.RdmaDeviceDir = t.TempDir()
	rdmamap.RdmaUcmDevice = filepath.Join(rdmamap.RdmaDeviceDir, "rdma_cm")
	want := func(text string) {
		t.Helper()
		if err := nodes(); err == nil && text != "" || err != nil && (text == "" || !strings.Contains(err.Error(), text)) {
			t.Errorf("nodes() = %v, want %q", err, text)
		}
	}
	touch := func(name string) {
		if err := os.WriteFile(filepath.Join(rdmamap.RdmaDeviceDir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fakeSysfs(t, nil, nil)
	want("modprobe rdma_rxe")
	fakeSysfs(t, map[string]string{"rxe0": "eth0"}, nil)
	want("modprobe rdma_ucm")
	touch("rdma_cm")
	want("modprobe ib_uverbs")
	touch("uverbs0")
	want("")
}
