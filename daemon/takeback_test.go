package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"iscsictl/control"
	"iscsictl/device"
	"iscsictl/target"
)

// lasting is a back-end whose devices outlive the daemon: it stands for the
// kernel, and goes from one daemon to the next.
type lasting struct {
	*direct
	mu      sync.Mutex
	waiting []string
	dying   []string // will wait soon
	awaited []string // of these those that Recover waits for
}

type lastingDevice struct{ *directDevice }

func (lastingDevice) Outlives() bool { return true }

func (l *lasting) Name() string { return "lasting" }

func (l *lasting) Attach(ctx context.Context, d device.Disk, n device.Name) (device.Device, error) {
	dev, err := l.direct.Attach(ctx, d, n)
	return lastingDevice{dev.(*directDevice)}, err
}

func (l *lasting) Recover(ctx context.Context, path string, d device.Disk, name device.Name) (device.Device, error) {
	for ; ctx.Err() == nil && l.Left(path, name) && !slices.Contains(l.Waiting(), path); time.Sleep(time.Millisecond) {
		l.mu.Lock()
		l.awaited = append(l.awaited, path)
		l.mu.Unlock()
	}
	if err := l.Discard(path); err != nil {
		return nil, err
	}
	l.direct.mu.Lock()
	defer l.direct.mu.Unlock()
	dev := &directDevice{of: l.direct, path: path, disk: d}
	l.devices[path] = dev
	return lastingDevice{dev}, nil
}

func (l *lasting) Discard(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.waiting, path)
	if i < 0 {
		return fmt.Errorf("%s does not wait", path)
	}
	l.waiting = slices.Delete(l.waiting, i, i+1)
	return nil
}

func (l *lasting) Waiting() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.waiting)
}

func (l *lasting) Left(path string, _ device.Name) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.waiting, path) || slices.Contains(l.dying, path)
}

func (l *lasting) isAwaited(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.awaited, path)
}

// died makes what was about to wait wait.
func (l *lasting) died() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting, l.dying = append(l.waiting, l.dying...), nil
}

// after is a daemon that goes on with the state of one that has died, which had
// a session to nameA with two disks.
func after(t *testing.T, change func(*target.Config), spoil func(*state, *lasting, *world)) (*world, *lasting) {
	t.Helper()
	first := newWorld(t, nil)
	kernel := &lasting{direct: first.host}
	first.d.cfg.Backends = []device.Backend{kernel}
	first.d.choice.backends = first.d.cfg.Backends
	dir := t.TempDir()
	first.d.keeper.store.dir = dir
	id := first.add(first.conf(nameA))
	first.until("two disks", first.shows(id, "d1-0", "d1-3"))
	first.until("they are in the state", func() bool {
		st, _, err := store{dir}.load()
		return err == nil && len(st.Sessions[0].Devices) == 2
	})
	st, _, err := store{dir}.load()
	if err != nil {
		t.Fatal(err)
	}
	next := newWorld(t, change)
	st.Sessions[0].Config.TargetAddress = next.portal
	kernel = &lasting{direct: next.host, waiting: []string{"d1-0", "d1-3"}}
	next.d.cfg.Backends = []device.Backend{kernel}
	next.d.choice.backends = next.d.cfg.Backends
	if spoil != nil {
		spoil(&st, kernel, next)
	}
	dir = t.TempDir()
	if err := (store{dir}).save(st); err != nil {
		t.Fatal(err)
	}
	next.d.keeper.store.dir = dir
	next.restore()
	return next, kernel
}

func (w *world) says(text string) func() bool {
	return func() bool { return strings.Contains(w.log.String(), text) }
}

func TestTakeBack(t *testing.T) {
	w, kernel := after(t, nil, nil)
	w.until("the disks are there again", func() bool { return w.shows(1, "d1-0", "d1-3")() && len(kernel.Waiting()) == 0 })
	w.until("the log", w.says("LUN 3 is d1-3 again"))
	if errno := w.host.get("d1-3").io(t, device.Write, 4096, make([]byte, 8192)); errno != 0 {
		t.Error(errno)
	}
	st, _, err := w.d.keeper.store.load()
	if err != nil || len(st.Sessions) != 1 || len(st.Sessions[0].Devices) != 2 {
		t.Errorf("the state is %+v, %v", st, err)
	}
}

// TestStillDying: the devices of a daemon that is not through with dying are
// waited for, and not taken for gone.
func TestStillDying(t *testing.T) {
	w, kernel := after(t, nil, func(_ *state, k *lasting, _ *world) { k.waiting, k.dying = nil, []string{"d1-0", "d1-3"} })
	w.until("the attempt", func() bool { return kernel.isAwaited("d1-0") })
	kernel.died()
	w.until("the disks are there again", func() bool { return w.shows(1, "d1-0", "d1-3")() && len(kernel.Waiting()) == 0 })
	if strings.Contains(w.log.String(), "which is gone") {
		t.Errorf("the log has %s", w.log.String())
	}
}

// TestDeviceGone: a device that has gone meanwhile is another one now.
func TestDeviceGone(t *testing.T) {
	w, _ := after(t, nil, func(_ *state, k *lasting, _ *world) { k.waiting = []string{"d1-3"} })
	w.until("the disks are there again", w.shows(1, "d1-0", "d1-3"))
	w.until("the log", w.says("LUN 0 was d1-0, which is gone"))
}

// TestAnotherDisk: a device is given back to no other disk.
func TestAnotherDisk(t *testing.T) {
	w, kernel := after(t, nil, func(st *state, _ *lasting, _ *world) { st.Sessions[0].Devices[0].Identity = "naa.another" })
	w.until("the log", w.says("LUN 0 was d1-0 and is another disk now; what waits for the old one fails"))
	w.until("the disks", func() bool { return w.shows(1, "d1-0", "d1-3")() && len(kernel.Waiting()) == 0 })
}

// TestLUNGone: what the target does not have any more is told of, and waits; the
// session's removal ends it.
func TestLUNGone(t *testing.T) {
	w, kernel := after(t, func(c *target.Config) { c.Targets[0].LUNs = c.Targets[0].LUNs[:1] }, nil)
	w.until("the log", w.says("LUN 3 was d1-3, and the target does not have it any more"))
	if got := kernel.Waiting(); !slices.Equal(got, []string{"d1-3"}) {
		t.Errorf("what waits: %v", got)
	}
	s := w.session(1)
	if !slices.ContainsFunc(s.Devices, func(d control.Device) bool { return d.Name == "d1-3" && strings.Contains(d.Note, "does not have it") }) {
		t.Errorf("the listing has %+v", s.Devices)
	}
	if _, err := w.d.Remove(control.Selection{Device: "/dev/d1-3", Force: true}); code(err) != syscall.EBUSY || !strings.Contains(err.Error(), "session 1") {
		t.Errorf("removing it alone: %v", err)
	}
	if _, err := w.d.Remove(control.Selection{ID: 1}); err != nil {
		t.Fatal(err)
	}
	w.until("nothing waits", func() bool { return len(kernel.Waiting()) == 0 })
}

// TestTargetAway: devices wait for a target that is away, and the recovery
// time-out ends that.
func TestTargetAway(t *testing.T) {
	w, kernel := after(t, nil, func(st *state, _ *lasting, w *world) {
		st.Sessions[0].Config.RecoveryTimeout = 1
		w.target.Close()
	})
	if s := w.session(1); len(s.Devices) != 2 || s.Devices[0].Note != "waits for the target" {
		t.Errorf("the listing has %+v", s)
	}
	w.until("the failure", w.says("trying again"))
	w.until("the time-out", func() bool { return len(kernel.Waiting()) == 0 })
	w.until("the log", w.says("LUN 3 (d1-3), which was not found again, is taken away"))
}

// TestOrphans: devices that wait and are of no session are named, with what to do.
func TestOrphans(t *testing.T) {
	w, kernel := after(t, nil, func(_ *state, k *lasting, w *world) {
		k.waiting = append(k.waiting, "d7-0", "d7-1")
		w.d.cfg.Discard = []string{"d7-1"}
	})
	w.until("the log", w.says(`"iscsictl -R --device d7-0" takes it away`))
	w.until("the disks are there again", func() bool { return slices.Equal(kernel.Waiting(), []string{"d7-0"}) })
	if _, err := w.d.Remove(control.Selection{Device: "d9-0"}); code(err) != syscall.ESRCH || !strings.Contains(err.Error(), "d7-0") {
		t.Errorf("what does not wait: %v", err)
	}
	if _, err := w.d.Remove(control.Selection{Device: "/dev/d7-0"}); err != nil || len(kernel.Waiting()) != 0 {
		t.Errorf("%v, and %v wait", err, kernel.Waiting())
	}
	if _, err := w.d.Remove(control.Selection{Device: "d7-0"}); code(err) != syscall.ESRCH {
		t.Errorf("once more: %v", err)
	}
}

// TestStopKeepsWhatIsUsed: a device that waits and is used is not taken from its
// users by a stop.
func TestStopKeepsWhatIsUsed(t *testing.T) {
	w, kernel := after(t, nil, func(_ *state, _ *lasting, w *world) { w.target.Close() })
	w.d.usersOf = func(path string) []device.User {
		if path == "d1-3" {
			return []device.User{{What: "mounted on /mnt"}}
		}
		return nil
	}
	if _, err := w.d.Remove(control.Selection{All: true}); code(err) != syscall.EBUSY || !strings.Contains(err.Error(), "/dev/d1-3 (mounted on /mnt)") {
		t.Errorf("removal: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	w.d.Stop(ctx)
	if got := kernel.Waiting(); len(got) != 2 {
		t.Errorf("what waits: %v", got)
	}
	st, _, err := w.d.keeper.store.load()
	if err != nil || len(st.Sessions) != 1 || len(st.Sessions[0].Devices) != 2 {
		t.Errorf("the state is %+v, %v", st, err)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Error("the stop has taken all of its time")
	}
}
