package zerocopy

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"iscsictl/arena"
	"iscsictl/conf"
	"iscsictl/device"
	"iscsictl/disk"
	"iscsictl/session"
	"iscsictl/target"
	"iscsictl/transport"
	"iscsictl/transport/iser"
	"iscsictl/transport/rdma"
	"iscsictl/transport/rdma/iwarp"
	"iscsictl/transport/rdma/verbs"
)

// patience only bounds a failure.
const patience = time.Minute

const iqn = "iqn.2026-11.example:zerocopy"

// host is a disk of a target, and all that leads to it.
type host struct {
	t       *testing.T
	guard   *guard
	arena   *arena.Arena
	session *session.Session
	set     *disk.Set
	disks   chan *disk.Disk
	disk    *disk.Disk
}

// DiskAdded implements disk.Events.
func (h *host) DiskAdded(d *disk.Disk) {
	select {
	case h.disks <- d:
	default:
	}
}

// DiskChanged implements disk.Events.
func (h *host) DiskChanged(*disk.Disk, device.Geometry) {}

// DiskRemoved implements disk.Events.
func (h *host) DiskRemoved(*disk.Disk) {}

// Scanned implements disk.Events.
func (h *host) Scanned() {}

func (h *host) Up(nexus uint64)               { h.set.Up(nexus) }
func (h *host) Down(err error)                { h.set.Down(err) }
func (h *host) Async(lun uint64, data []byte) { h.set.Async(lun, data) }

func newHost(t *testing.T, p rdma.Provider, portal, name string) *host {
	t.Helper()
	h := &host{t: t, guard: &guard{Provider: p}, disks: make(chan *disk.Disk, 1)}
	h.guard.watch(false)
	var err error
	if h.arena, err = arena.New(16 << 20); err != nil {
		t.Fatal(err)
	}
	c := conf.NewSession()
	c.TargetAddress, c.TargetName, c.ISER = portal, name, true
	isid := [6]byte{0x80}
	rand.Read(isid[1:])
	h.set = disk.New(disk.Config{Events: h})
	h.session = session.New(session.Config{
		ID: 1, ISID: isid, Target: c, Tunables: conf.NewTunables(),
		Dialer: func(conf.Session) transport.Dialer { return iser.Dialer{Provider: h.guard} },
		Arena:  h.arena, Handler: h, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Rand: rand.Reader,
	})
	if err := h.set.Bind(h.session); err != nil {
		t.Fatal(err)
	}
	h.session.Start()
	t.Cleanup(func() {
		h.set.Close()
		h.session.Close()
	})
	select {
	case h.disk = <-h.disks:
	case <-time.After(patience):
		t.Fatalf("no disk of %s at %s: %s", name, portal, h.session.Info().Reason)
	}
	return h
}

// waiter is the queue of one request.
type waiter chan struct{}

// Complete implements device.Queue.
func (w waiter) Complete([]*device.Request) { close(w) }

// start submits a request.
func (h *host) start(op device.Op, e arena.Extent) (*device.Request, waiter) {
	done := make(waiter)
	r := &device.Request{Op: op, Offset: 1 << 20, Length: int64(e.Len()), Data: e, Queue: done}
	h.disk.Submit([]*device.Request{r})
	return r, done
}

func (h *host) do(op device.Op, e arena.Extent) {
	h.t.Helper()
	r, done := h.start(op, e)
	select {
	case <-done:
	case <-time.After(patience):
		h.t.Fatalf("request %v of %d bytes does not end: %s", op, e.Len(), h.session.Info().Reason)
	}
	if r.Errno != 0 {
		h.t.Fatalf("request %v of %d bytes: %v", op, e.Len(), r.Errno)
	}
}

// own checks that the memory that was lent to the target, or sent from, is all
// of an extent and nothing else, in its place.
func (h *host) own(e arena.Extent) {
	h.t.Helper()
	h.guard.mu.Lock()
	defer h.guard.mu.Unlock()
	next, end := address(e), address(e)+uintptr(e.Len())
	for _, l := range h.guard.lent {
		if address(l) != next {
			h.t.Fatalf("%d bytes at %#x are lent to the target, not those of the request at %#x", l.Len(), address(l), next)
		}
		next += uintptr(l.Len())
	}
	if next != end {
		h.t.Fatalf("of the request's %d bytes, %d are not lent to the target", e.Len(), end-next)
	}
}

func address(e arena.Extent) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(e.Bytes()))) }

func (h *host) alloc(n int) arena.Extent {
	h.t.Helper()
	e, ok := h.arena.Alloc(n)
	if !ok {
		h.t.Fatal("no memory")
	}
	return e
}

// sizes of requests: those that fit go with their command as immediate data.
var sizes = []int{512, 4096, 8192, 12288, 128 << 10, 1 << 20}

// TestVerbs writes and reads through an RDMA device while this process cannot
// touch the data. The first request of each kind has the memory registered with
// the device, which takes access to it; those that count come after.
func TestVerbs(t *testing.T) {
	portal := os.Getenv("ZEROCOPY_PORTAL")
	if portal == "" {
		t.Skip("ZEROCOPY_PORTAL names no target by RDMA (a virtual machine of test/vm has)")
	}
	h := newHost(t, verbs.Provider{}, portal, os.Getenv("ZEROCOPY_TARGET"))
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			h.t = t
			out, in := h.alloc(size), h.alloc(size)
			defer out.Free()
			defer in.Free()
			want := make([]byte, size)
			for _, protect := range []bool{false, true} {
				rand.Read(want)
				copy(out.Bytes(), want)
				h.guard.watch(protect)
				if protect { // from before the request is made until after its end
					setAccess(out, unix.PROT_NONE)
				}
				h.do(device.Write, out)
				setAccess(out, unix.PROT_READ|unix.PROT_WRITE)
				h.own(out)

				h.guard.watch(protect)
				h.do(device.Read, in)
				h.own(in)
				if !bytes.Equal(in.Bytes(), want) {
					t.Fatal("what is read is not what was written")
				}
				if n := h.guard.protected; protect && n == 0 {
					t.Fatal("nothing was protected")
				}
			}
		})
	}
	if len(h.guard.ended) > 0 {
		t.Errorf("connections have ended: %v", h.guard.ended)
	}
}

// TestIWARP shows that the memory of a request is the one that is lent to the
// target with software iWARP too.
func TestIWARP(t *testing.T) {
	h := newIWARPHost(t)
	for _, size := range sizes {
		out, in := h.alloc(size), h.alloc(size)
		want := make([]byte, size)
		rand.Read(want)
		copy(out.Bytes(), want)
		h.guard.watch(false)
		h.do(device.Write, out)
		h.own(out)
		h.guard.watch(false)
		h.do(device.Read, in)
		h.own(in)
		if !bytes.Equal(in.Bytes(), want) {
			t.Fatalf("%d bytes: what is read is not what was written", size)
		}
		out.Free()
		in.Free()
	}
}

// newIWARPHost has a disk of the embedded target, by software iWARP.
func newIWARPHost(t *testing.T) *host {
	t.Helper()
	server, err := target.New(target.Config{Targets: []target.Target{{Name: iqn, LUNs: []target.LUN{{Size: 8 << 20}}}}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := target.ListenISER(t.Context(), target.Portal{Address: "127.0.0.1:0", ISER: true})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeISER(l, 1) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return newHost(t, &iwarp.Provider{}, l.Addr().String(), iqn)
}

// copying names, to a child process, the direction in which TestGuard copies.
const copying = "ZEROCOPY_COPYING"

// TestGuard shows that the guard notices who touches the data: software iWARP has
// the socket copy them, and computes their CRC. A process that does so dies.
func TestGuard(t *testing.T) {
	if direction := os.Getenv(copying); direction != "" {
		copyGuarded(t, direction)
		return
	}
	for _, direction := range []string{"read", "write"} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestGuard$")
		cmd.Env = append(os.Environ(), copying+"="+direction)
		out, err := cmd.CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("unexpected fault address")) && !bytes.Contains(out, []byte(noticed)) {
			t.Errorf("%s: a process that touched the data went on: %v\n%s", direction, err, out)
		}
	}
}

const noticed = "the kernel could not copy"

// copyGuarded does not return in peace: either the process dies of a fault, or the
// kernel, which copies for it, finds the same.
func copyGuarded(t *testing.T, direction string) {
	h := newIWARPHost(t)
	e, op := h.alloc(1<<20), device.Write
	if direction == "read" {
		op = device.Read
	}
	h.guard.watch(op == device.Read)
	if op == device.Write {
		setAccess(e, unix.PROT_NONE)
	}
	_, done := h.start(op, e)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, err := range h.guard.failures() {
			if errors.Is(err, syscall.EFAULT) {
				panic(noticed)
			}
		}
		select {
		case <-done:
			return // and so was not noticed
		default:
		}
	}
}

func (g *guard) failures() []error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]error(nil), g.ended...)
}
