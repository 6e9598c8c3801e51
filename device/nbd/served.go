package nbd

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// The kernel does not tell whether a device is served by a process that lives.
// So each of ours has a socket, for as long as its daemon lives, with a name
// that is no file's. Names of that kind are those of a network namespace: since
// Linux 6.3, where the driver listens in all of them, a daemon in another one is
// not seen.

func servedName(index int) *net.UnixAddr {
	return &net.UnixAddr{Name: fmt.Sprintf("@iscsid/nbd%d", index), Net: "unix"}
}

// markServed says that a device is served. It returns nil where somebody has
// taken the name.
func markServed(index int) net.Listener {
	l, err := net.ListenUnix("unix", servedName(index))
	if err != nil {
		return nil
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return l
}

// isServed reports whether a daemon has said so: root's or this user's, as
// anybody can take such a name.
func isServed(index int) bool {
	c, err := net.DialUnix("unix", nil, servedName(index))
	if err != nil {
		return false
	}
	defer c.Close()
	served := false
	onDescriptor(c, func(fd int) {
		cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		served = err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
	})
	return served
}
