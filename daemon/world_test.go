package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/device"
	"iscsictl/target"
)

// direct is a back-end without a host: tests use the disk themselves.
type direct struct {
	mu      sync.Mutex
	devices map[string]*directDevice
	refuse  error
}

type directDevice struct {
	of      *direct
	kept    bool // from new users
	path    string
	disk    device.Disk
	users   []device.User
	updates []device.Geometry
	gone    bool
}

func (d *direct) Name() string    { return "direct" }
func (d *direct) Probe() error    { return d.refuse }
func (d *direct) Clean() []string { return nil }
func (d *direct) Attach(_ context.Context, disk device.Disk, n device.Name) (device.Device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dev := &directDevice{of: d, path: fmt.Sprintf("d%d-%d", n.Session, n.LUN), disk: disk}
	d.devices[dev.path] = dev
	return dev, nil
}

func (d *direct) get(path string) *directDevice {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.devices[path]
}

func (d *directDevice) Path() string { return d.path }
func (d *directDevice) Update(g device.Geometry) error {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	d.updates = append(d.updates, g)
	return nil
}

func (d *directDevice) Reserve() ([]device.User, error) {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	if len(d.users) > 0 {
		return d.users, device.ErrInUse
	}
	d.kept = true
	return nil, nil
}

func (d *directDevice) Release() {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	d.kept = false
}

func (d *directDevice) isKept() bool {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	return d.kept
}

// use says who uses the device from now on.
func (d *directDevice) use(users ...device.User) {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	d.users = users
}

func (d *directDevice) Outlives() bool { return false }
func (d *directDevice) Detach() error {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	d.gone = true
	delete(d.of.devices, d.path)
	return nil
}

// io does one request and waits for it.
func (d *directDevice) io(t *testing.T, op device.Op, off int64, data []byte) syscall.Errno {
	t.Helper()
	e, err := d.disk.Arena().Wait(len(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Free()
	if op == device.Write {
		copy(e.Bytes(), data)
	}
	done := make(queue, 1)
	r := &device.Request{Op: op, Offset: off, Length: int64(len(data)), Data: e, Queue: done}
	d.disk.Submit([]*device.Request{r})
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("a request was not completed within 30 s")
	}
	if op == device.Read {
		copy(data, e.Bytes())
	}
	return r.Errno
}

type queue chan *device.Request

func (q queue) Complete(done []*device.Request) {
	for _, r := range done {
		q <- r
	}
}

// world is a daemon, a target and a back-end.
type world struct {
	t      *testing.T
	d      *Daemon
	host   *direct
	target *target.Server
	portal string
	log    journal
	tun    *conf.Tunables
}

func newWorld(t *testing.T, change func(*target.Config)) *world {
	t.Helper()
	cfg := target.Config{Targets: []target.Target{
		{Name: nameA, LUNs: []target.LUN{{Number: 0, Size: 8 << 20}, {Number: 3, Size: 4 << 20, BlockSize: 4096}}},
		{Name: nameB, LUNs: []target.LUN{{Number: 0, Size: 1 << 20}}},
	}}
	if change != nil {
		change(&cfg)
	}
	srv, err := target.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	w := &world{t: t, host: &direct{devices: map[string]*directDevice{}}, target: srv, portal: l.Addr().String(), tun: conf.NewTunables()}
	h := &LogHandler{Debug: func() bool { return true }, Write: w.log.write}
	w.d = New(Config{Version: "test", RunDir: t.TempDir(), DevDir: t.TempDir(), Backends: []device.Backend{w.host}, Tunables: w.tun, Log: slog.New(h)})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		w.d.Stop(ctx)
		srv.Close()
		if t.Failed() {
			t.Logf("log:\n%s", w.log.String())
		}
	})
	return w
}

// journal keeps what is logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) write(l slog.Level, line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(&j.text, "%v %s\n", l, line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (w *world) conf(name string) conf.Session {
	c := conf.NewSession()
	c.InitiatorName, c.TargetName, c.TargetAddress = "iqn.2026-01.example:me", name, w.portal
	return c
}

// restore goes on with what an earlier daemon has left.
func (w *world) restore() {
	w.t.Helper()
	if err := w.d.Restore(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) add(c conf.Session) uint32 {
	w.t.Helper()
	id, err := w.d.Add(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// until waits for something to become true.
func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// session returns the listing of one session.
func (w *world) session(id uint32) *control.Session {
	for _, s := range w.d.List() {
		if s.ID == id {
			return &s
		}
	}
	return nil
}

func (w *world) shows(id uint32, names ...string) func() bool {
	return func() bool {
		s := w.session(id)
		if s == nil || !s.Connected && len(names) > 0 {
			return false
		}
		var have []string
		for _, d := range s.Devices {
			have = append(have, d.Name)
		}
		return slices.Equal(have, names)
	}
}

func code(err error) syscall.Errno {
	var e *control.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}
