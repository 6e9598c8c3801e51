package verbs

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/Mellanox/rdmamap"
)

// DeviceFor returns the RDMA device by which a connection to an address would
// go, from the local address where that is valid: that of the network
// interface which the route leads through. Where there is none, why says so,
// and what could be done about it.
func DeviceFor(addr, local netip.Addr) (device string, why error) {
	link, err := linkFor(addr, local)
	if err != nil {
		return "", err
	}
	if device = deviceOf(link); device != "" {
		return device, nil
	}
	if link.Flags&net.FlagLoopback != 0 {
		return "", fmt.Errorf("%v is reached by %s, which has no RDMA device", addr, link.Name)
	}
	return "", fmt.Errorf("network interface %s, which leads to %v, has no RDMA device; if its hardware does RDMA, its driver is missing, else one in software will do (modprobe rdma_rxe && rdma link add rxe_%s type rxe netdev %s)",
		link.Name, addr, link.Name, link.Name)
}

// deviceOf returns the RDMA device of a network interface, or nothing.
func deviceOf(link *net.Interface) string {
	// There are interfaces that it finds no fault with and no device for.
	if device, err := rdmamap.GetRdmaDeviceForNetdevice(link.Name); err == nil && device != "" {
		return device
	}
	// Kernels before 6.5 do not say which interface an iWARP device is on. The
	// software ones derive their node's GUID from the interface's address.
	guid, ok := guidOf(link.HardwareAddr)
	if !ok {
		return ""
	}
	for _, device := range rdmamap.GetRdmaDeviceList() {
		text, err := os.ReadFile(filepath.Join(rdmamap.RdmaClassDir, device, rdmamap.RdmaNodeGuidFile))
		if err == nil && strings.TrimSpace(string(text)) == guid {
			return device
		}
	}
	return ""
}

// guidOf makes an EUI-64 of an Ethernet address, as RFC 4291 appendix A has it,
// in the form of sysfs.
func guidOf(a net.HardwareAddr) (string, bool) {
	if len(a) != 6 || a.String() == "00:00:00:00:00:00" {
		return "", false
	}
	return fmt.Sprintf("%02x%02x:%02xff:fe%02x:%02x%02x", a[0]^2, a[1], a[2], a[3], a[4], a[5]), true
}

// linkFor returns the network interface that the way to an address leads
// through. No packet is sent. For an address of this host, it is the interface
// that has the address, and not the loopback interface.
func linkFor(addr, local netip.Addr) (*net.Interface, error) {
	if !addr.IsValid() {
		return nil, errors.New("no address")
	}
	d := net.Dialer{}
	if local.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	// Of UDP, connecting is looking up the route.
	c, err := d.Dial("udp", netip.AddrPortFrom(addr, 9).String())
	if err != nil {
		return nil, fmt.Errorf("no route to %v: %w", addr, err)
	}
	from, _ := netip.ParseAddrPort(c.LocalAddr().String())
	if err := c.Close(); err != nil {
		return nil, err
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	for i := range links {
		addrs, err := links[i].Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, _ := netip.AddrFromSlice(n.IP)
			zone := from.Addr().Zone()
			if ip.Unmap() == from.Addr().WithZone("").Unmap() && (zone == "" || zone == links[i].Name) {
				return &links[i], nil
			}
		}
	}
	return nil, fmt.Errorf("no network interface has %v, from where %v is reached", from.Addr(), addr)
}

// nodes says which of the device nodes are missing that the libraries need.
func nodes() error {
	if len(rdmamap.GetRdmaDeviceList()) == 0 {
		return errors.New("verbs: this host has no RDMA device; load the driver of its hardware, or make one in software (modprobe rdma_rxe && rdma link add rxe0 type rxe netdev INTERFACE)")
	}
	if _, err := os.Stat(rdmamap.RdmaUcmDevice); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("verbs: there is no %s (modprobe rdma_ucm; into a container it comes with --device %s)", rdmamap.RdmaUcmDevice, rdmamap.RdmaDeviceDir)
	}
	uverbs, err := filepath.Glob(filepath.Join(rdmamap.RdmaDeviceDir, rdmamap.RdmaUverbsFilxPrefix+"*"))
	if err == nil && len(uverbs) == 0 {
		return fmt.Errorf("verbs: there is no %s/%s0 (modprobe ib_uverbs; into a container it comes with --device %s)", rdmamap.RdmaDeviceDir, rdmamap.RdmaUverbsFilxPrefix, rdmamap.RdmaDeviceDir)
	}
	return nil
}
