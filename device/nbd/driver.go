package nbd

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"iscsictl/device/modules"
)

// What follows is of linux/nbd-netlink.h: the generic netlink family by which
// the kernel's NBD driver is told what to do.
const (
	family        = "nbd"
	familyVersion = 1
)

const (
	driverConnect     = 1
	driverDisconnect  = 2
	driverReconfigure = 3
)

const (
	attrIndex       = 1
	attrSize        = 2 // bytes
	attrBlockSize   = 3
	attrServerFlags = 5
	attrSockets     = 7
	attrSocket      = 1 // in attrSockets
	attrSocketFD    = 1 // in attrSocket
	attrDeadTimeout = 8 // seconds
	attrIdentifier  = 10
)

// genlHeader is struct genlmsghdr.
type genlHeader [4]byte

func (h genlHeader) Len() int          { return len(h) }
func (h genlHeader) Serialize() []byte { return h[:] }

// driver has the kernel's driver carry out a command, and returns when it has.
// Commands of all devices, and of some other families, wait for each other.
func driver(command uint8, attrs ...*nl.RtAttr) ([][]byte, error) {
	f, err := netlink.GenlFamilyGet(family)
	if err != nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(int(f.ID), unix.NLM_F_ACK)
	req.AddData(genlHeader{command, familyVersion})
	for _, a := range attrs {
		req.AddData(a)
	}
	return req.Execute(unix.NETLINK_GENERIC, 0)
}

func number32(kind, value int) *nl.RtAttr {
	return nl.NewRtAttr(kind, nl.Uint32Attr(uint32(value)))
}

func number64(kind int, value uint64) *nl.RtAttr {
	return nl.NewRtAttr(kind, nl.Uint64Attr(value))
}

func text(kind int, value string) *nl.RtAttr {
	return nl.NewRtAttr(kind, nl.ZeroTerminated(value))
}

// sockets hands the driver one connection. It has a limit of none, but where
// there are several, it sends what takes long a second time, on another one.
func sockets(fd int) *nl.RtAttr {
	list := nl.NewRtAttr(attrSockets|unix.NLA_F_NESTED, nil)
	list.AddRtAttr(attrSocket|unix.NLA_F_NESTED, nil).AddRtAttr(attrSocketFD, nl.Uint32Attr(uint32(fd)))
	return list
}

// connect makes a device of one that is free, or of a new one, and returns its
// number.
func connect(attrs ...*nl.RtAttr) (int, error) {
	replies, err := driver(driverConnect, attrs...)
	if err != nil {
		return -1, fmt.Errorf("CONNECT: %w", err)
	}
	for _, b := range replies {
		if len(b) < len(genlHeader{}) {
			continue
		}
		parsed, err := nl.ParseRouteAttr(b[len(genlHeader{}):])
		if err != nil {
			return -1, fmt.Errorf("CONNECT: %w", err)
		}
		for _, a := range parsed {
			if a.Attr.Type == attrIndex && len(a.Value) == 4 {
				return int(nl.NativeEndian().Uint32(a.Value)), nil
			}
		}
	}
	return -1, errors.New("CONNECT: the driver does not say which device it has chosen")
}

// disconnect ends a device; what its users wait for fails.
func disconnect(index int) error {
	if _, err := driver(driverDisconnect, number32(attrIndex, index)); err != nil {
		return fmt.Errorf("DISCONNECT: %w", err)
	}
	return nil
}

// probe returns why the driver cannot be used, or nil.
func probe() error {
	if !modules.Admin() {
		return errors.New("nbd: devices need CAP_SYS_ADMIN: run as root, in a container with that capability")
	}
	_, err := netlink.GenlFamilyGet(family)
	if errors.Is(err, unix.ENOENT) {
		needs := modules.Need("nbd")
		_, err = netlink.GenlFamilyGet(family)
		if _, missing := os.Stat("/sys/module/nbd"); errors.Is(err, unix.ENOENT) && missing == nil {
			return errors.New("nbd: before Linux 6.3 the kernel's NBD driver listens in the host's network namespace only")
		}
		if err != nil {
			return fmt.Errorf("nbd: this kernel has no NBD driver (%s)", needs)
		}
	}
	if err != nil {
		return fmt.Errorf("nbd: looking for the kernel's NBD driver: %w", err)
	}
	return nil
}

// connection makes a connection for the driver: our end, and the descriptor of
// the driver's, which the caller closes when it was handed over.
func connection() (nc net.Conn, fd int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("socketpair: %w", err)
	}
	growSendBuffer(fds[1]) // newConn does so with ours
	f := os.NewFile(uintptr(fds[0]), "nbd")
	nc, err = net.FileConn(f)
	f.Close()
	if err != nil {
		unix.Close(fds[1])
		return nil, -1, err
	}
	return nc, fds[1], nil
}

// left reports whether the other end of a connection is gone.
func left(nc net.Conn) bool {
	gone := true
	onDescriptor(nc, func(fd int) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		for {
			_, err := unix.Poll(p, 0)
			if err != unix.EINTR {
				break
			}
		}
		gone = p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone
}

// descriptor is the number of a connection's descriptor.
func descriptor(nc net.Conn) int {
	n := -1
	onDescriptor(nc, func(fd int) { n = fd })
	return n
}

func onDescriptor(nc net.Conn, f func(fd int)) {
	if raw, err := nc.(*net.UnixConn).SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}
