package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"iscsictl/device"
)

// DefaultDir is where the sockets are.
const DefaultDir = "/run/iscsid/nbd"

// maxSocketPath is how long the path of a unix socket may be.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// socketName matches the sockets that a Socket makes.
var socketName = regexp.MustCompile(`^[0-9]+-[0-9]+\.sock$`)

// Socket is the back-end "socket": for each disk a unix socket SESSION-LUN.sock
// with an NBD server. It needs nothing of the kernel.
type Socket struct {
	dir  string
	mode fs.FileMode
	gid  int
}

// NewSocket makes the back-end, with the directory for its sockets, and the
// sockets' permissions and group (-1 for that of the process).
func NewSocket(dir string, mode fs.FileMode, gid int) *Socket {
	return &Socket{dir: dir, mode: mode.Perm(), gid: gid}
}

// Name is device.Backend's.
func (s *Socket) Name() string { return "socket" }

// Probe is device.Backend's.
func (s *Socket) Probe() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.Access(s.dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("socket: no sockets can be made in %s: %w", s.dir, err)
	}
	return nil
}

// Attach is device.Backend's. The context does not matter, as nothing waits.
func (s *Socket) Attach(_ context.Context, disk device.Disk, name device.Name) (device.Device, error) {
	if err := s.Probe(); err != nil {
		return nil, err
	}
	about := fmt.Sprintf("%s, LUN %d", name.Target, name.LUN)
	if name.Serial != "" {
		about += ", serial number " + name.Serial
	}
	e, err := NewExport(disk, fmt.Sprintf("%s/%d", name.Target, name.LUN), about)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, fmt.Sprintf("%d-%d.sock", name.Session, name.LUN))
	l, err := s.listen(path)
	if err != nil {
		return nil, err
	}
	d := &socketDevice{path: path, export: e, listener: l, over: make(chan struct{})}
	go d.accept()
	return d, nil
}

// Clean is device.Backend's: it removes sockets on which nobody listens.
func (s *Socket) Clean() []string {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil
	}
	var lines []string
	for _, entry := range entries {
		path := filepath.Join(s.dir, entry.Name())
		base := strings.TrimSuffix(entry.Name(), ".new")
		if !socketName.MatchString(base) || !abandoned(path) {
			continue
		}
		if err := os.Remove(path); err != nil {
			lines = append(lines, fmt.Sprintf("cannot remove stale socket: %v", err))
			continue
		}
		lines = append(lines, "removed stale socket "+path)
	}
	return lines
}

// listen makes a socket at path, in place of one that nobody listens on. It
// appears with its permissions set.
func (s *Socket) listen(path string) (*net.UnixListener, error) {
	fresh := path + ".new"
	if len(fresh) > maxSocketPath {
		return nil, fmt.Errorf("socket: %s is longer than a socket's path can be (%d bytes)", fresh, maxSocketPath)
	}
	if _, err := os.Lstat(path); err == nil && !abandoned(path) {
		return nil, fmt.Errorf("socket: %s is there already and is in use, or is not a socket", path)
	}
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(fresh, s.mode)
	if err == nil && s.gid >= 0 {
		err = os.Chown(fresh, -1, s.gid)
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		os.Remove(fresh)
		return nil, fmt.Errorf("socket: %w", err)
	}
	return l, nil
}

// abandoned reports whether path is a socket on which nobody listens.
func abandoned(path string) bool {
	st, err := os.Lstat(path)
	if err != nil || st.Mode()&fs.ModeSocket == 0 {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// socketDevice is a disk with its socket.
type socketDevice struct {
	path     string
	export   *Export
	listener *net.UnixListener
	once     sync.Once
	over     chan struct{}
}

func (d *socketDevice) accept() {
	defer close(d.over)
	for {
		nc, err := d.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // such as one that is gone already
		}
		go d.export.Serve(nc)
	}
}

// Path is device.Device's.
func (d *socketDevice) Path() string { return d.path }

// Update is device.Device's. Clients that are connected go on with the old
// size, as the protocol has no word for a new one.
func (d *socketDevice) Update(g device.Geometry) error {
	old := d.export.Size()
	if err := d.export.Update(g); err != nil {
		return err
	}
	if n := len(d.export.Clients()); n > 0 && g.Size != old {
		return fmt.Errorf("socket: %d clients of %s see the new size of %d bytes once they connect again", n, d.path, g.Size)
	}
	return nil
}

// Reserve is device.Device's: a disk is in use while a client is connected.
func (d *socketDevice) Reserve() ([]device.User, error) {
	if d.export.Reserve() {
		return nil, nil
	}
	var users []device.User
	for _, nc := range d.export.Clients() {
		users = append(users, user(nc))
	}
	return users, fmt.Errorf("socket: %s: %w", d.path, device.ErrInUse)
}

// user tells who is at the other end of a connection.
func user(nc net.Conn) device.User {
	u := device.User{What: "a client"}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return u
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return u
	}
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			u.PID = int(cred.Pid)
		}
	})
	if comm, err := os.ReadFile("/proc/" + strconv.Itoa(u.PID) + "/comm"); err == nil {
		u.What = "process " + strings.TrimSpace(string(comm))
	}
	return u
}

// Release is device.Device's.
func (d *socketDevice) Release() { d.export.Release() }

// Detach is device.Device's.
func (d *socketDevice) Detach() error {
	var err error
	d.once.Do(func() {
		d.listener.Close()
		<-d.over
		if err = os.Remove(d.path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		d.export.Close()
	})
	return err
}

// Outlives is device.Device's.
func (d *socketDevice) Outlives() bool { return false }
