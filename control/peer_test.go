package control

import (
	"bufio"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestAccess(t *testing.T) {
	a := access{uid: 1000, gid: 7, hasGID: true}
	for _, test := range []struct {
		peer peer
		want bool
	}{
		{peer{uid: 0}, true},
		{peer{uid: 1000}, true},
		{peer{uid: 5, groups: []uint32{3, 7}}, true},
		{peer{uid: 5, groups: []uint32{3, 8}}, false},
		{peer{uid: 5}, false},
	} {
		if got := a.allows(test.peer); got != test.want {
			t.Errorf("%+v: %v", test.peer, got)
		}
	}
	if (access{uid: 1000}).allows(peer{uid: 5, groups: []uint32{0}}) {
		t.Error("without the group, group 0 is allowed")
	}
}

// TestPeers connects as several users, and wants the kernel to tell them apart.
func TestPeers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	const daemon, group = 61000, 61001
	for _, test := range []struct {
		name   string
		uid    uint32
		groups []uint32
		want   string
	}{
		{"root", 0, nil, `"hello"`},
		{"the daemon's user", daemon, nil, `"hello"`},
		{"member of the group", 61002, []uint32{61003, group}, `"hello"`},
		{"member of many groups", 61002, many(group), `"hello"`},
		{"stranger", 61002, []uint32{61003}, `"EACCES"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			listener, err := net.Listen("unix", "")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			client := dialAs(t, listener.Addr().String(), test.uid, test.groups)
			server, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			s := newServer(&slow{}, defaultLimits)
			s.access = access{uid: daemon, gid: group, hasGID: true}
			go s.accepted(t.Context(), server)
			_, _ = client.Write([]byte(helloLine)) // fails where the server has refused
			line, err := bufio.NewReader(client).ReadString('\n')
			if err != nil || !strings.Contains(line, test.want) {
				t.Errorf("%q, %v, want %s", line, err, test.want)
			}
		})
	}
}

// many returns more groups than are asked for at first, the last of them given.
func many(last uint32) []uint32 {
	groups := make([]uint32, 200)
	for i := range groups {
		groups[i] = 50000 + uint32(i)
	}
	groups[len(groups)-1] = last
	return groups
}

// dialAs connects from a thread that has become another user, and ends after it:
// credentials are a thread's own where the C library has no say.
func dialAs(t *testing.T, address string, uid uint32, groups []uint32) net.Conn {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	dialled := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked
		first := unsafe.Pointer(unsafe.SliceData(groups))
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0)
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		}
		if errno != 0 {
			dialled <- result{err: errno}
			return
		}
		conn, err := net.Dial("unix", address)
		dialled <- result{conn, err}
	}()
	r := <-dialled
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.conn.Close() })
	return r.conn
}

// TestAdmitBoundsEachUser lets one user not take all places.
func TestAdmitBoundsEachUser(t *testing.T) {
	s := newServer(&slow{}, limits{clients: 4, perUser: 2})
	for i, test := range []struct {
		uid  uint32
		want bool
	}{{5, true}, {5, true}, {5, false}, {0, true}, {0, true}, {0, false}, {6, false}} {
		if got := s.admit(test.uid); got != test.want {
			t.Errorf("step %d: user %d: %v", i, test.uid, got)
		}
	}
	s.leave(5)
	if !s.admit(6) || len(s.perUser) != 3 {
		t.Error("a place that was left is not given away")
	}
}
