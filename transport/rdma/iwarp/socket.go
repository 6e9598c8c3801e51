package iwarp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iovMax is the most pieces that the kernel takes in one call (UIO_MAXIOV).
const iovMax = 1024

func iovec(p []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(p)}
	v.SetLen(len(p))
	return v
}

// writev writes what it can of the vector without blocking and returns the rest.
func writev(fd uintptr, v []unix.Iovec) (rest []unix.Iovec, err error) {
	for len(v) > 0 {
		n, _, errno := syscall.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&v[0])), uintptr(min(len(v), iovMax)))
		switch errno {
		case 0:
			v = skip(v, uint64(n))
		case unix.EINTR:
		default:
			return v, errno
		}
	}
	return nil, nil
}

// skip takes n bytes off the front of the vector.
func skip(v []unix.Iovec, n uint64) []unix.Iovec {
	for len(v) > 0 && n >= v[0].Len {
		n -= v[0].Len
		v = v[1:]
	}
	if n > 0 {
		v[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(v[0].Base), n))
		v[0].Len -= n
	}
	return v
}

// readv reads once into the vector.
func readv(fd uintptr, v []unix.Iovec) (int, error) {
	for {
		n, _, errno := syscall.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)))
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

// cause takes off what the net package puts around an error of the system: the
// caller knows the address.
func cause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		if no := syscall.Errno(0); errors.As(op.Err, &no) {
			return no
		}
		return op.Err
	}
	return err
}

// mark sets the DSCP (RFC 2474 §3, the upper six bits of the traffic class) and
// the priority that becomes the PCP on a VLAN device's egress map.
func mark(c syscall.RawConn, ipv4 bool, dscp, pcp int) error {
	level, option := unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	if ipv4 {
		level, option = unix.IPPROTO_IP, unix.IP_TOS
	}
	var failed error
	err := c.Control(func(fd uintptr) {
		if dscp >= 0 {
			if err := unix.SetsockoptInt(int(fd), level, option, dscp<<2); err != nil {
				failed = fmt.Errorf("set dscp: %w", err)
			}
		}
		if pcp >= 0 {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, pcp); err != nil {
				failed = errors.Join(failed, fmt.Errorf("set pcp: %w", err))
			}
		}
	})
	return errors.Join(err, failed)
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// segmentSize returns TCP's maximum segment size towards the peer, in bytes.
func segmentSize(c syscall.RawConn) int {
	size := 0
	err := c.Control(func(fd uintptr) {
		size, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	})
	if err != nil {
		return 0
	}
	return size
}

// deviceName returns the network interface that has an address, or nothing.
func deviceName(a netip.Addr) string {
	links, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, x := range addrs {
			if n, ok := x.(*net.IPNet); ok && n.IP.Equal(a.WithZone("").AsSlice()) {
				return l.Name
			}
		}
	}
	return ""
}
