package control

import (
	"errors"
	"net"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a socket, as the kernel knows it.
type peer struct {
	pid    int32
	uid    uint32
	groups []uint32
}

// access is who may call.
type access struct {
	uid    uint32 // the daemon's own
	gid    uint32 // the group's
	hasGID bool
}

// newAccess looks the group up.
func newAccess(uid int) access {
	a := access{uid: uint32(uid)}
	if gid, ok := lookupGroup(); ok {
		a.gid, a.hasGID = uint32(gid), true
	}
	return a
}

// allows tells whether the peer may call.
func (a access) allows(p peer) bool {
	return p.uid == 0 || p.uid == a.uid || a.hasGID && slices.Contains(p.groups, a.gid)
}

// lookupGroup returns the id of Group, where the system has it.
func lookupGroup() (gid int, ok bool) {
	group, err := user.LookupGroup(Group)
	if err != nil {
		return 0, false
	}
	gid, err = strconv.Atoi(group.Gid)
	return gid, err == nil
}

// peerOf asks the kernel who has connected.
func peerOf(conn net.Conn) (peer, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return peer{}, errors.New("not a socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var p peer
	var inner error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); inner != nil {
			return
		}
		p = peer{pid: cred.Pid, uid: cred.Uid}
		p.groups, inner = peerGroups(fd)
		p.groups = append(p.groups, cred.Gid)
	})
	if err != nil {
		return peer{}, err
	}
	return p, inner
}

// peerGroups returns the supplementary groups that the peer had when it connected
// (socket(7) SO_PEERGROUPS, since Linux 4.13).
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:min(int(size/4), len(groups))], nil
		case errno == unix.ERANGE && int(size/4) > len(groups) && size <= 4*65536: // NGROUPS_MAX
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}
