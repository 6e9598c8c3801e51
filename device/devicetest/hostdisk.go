package devicetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
)

// What follows is for back-ends whose devices are block devices of the kernel.

// BlockHarness is the harness of one.
func BlockHarness(backend func(t *testing.T) device.Backend) *Harness {
	return &Harness{
		New: backend,
		Open: func(_ *testing.T, d device.Device) (Client, error) {
			f, err := OpenBlock("/dev/"+d.Path(), unix.O_RDWR|unix.O_EXCL)
			if err != nil {
				return nil, err
			}
			return f, nil
		},
		Alloc:      AlignedBuffer,
		SeesResize: true,
	}
}

// HungDisk tests what becomes of disks that do not answer, with a back-end that
// gives each step of detaching so much time.
func HungDisk(t *testing.T, backend func(t *testing.T, step time.Duration) device.Backend) {
	const step = 300 * time.Millisecond
	t.Run("Attach", func(t *testing.T) { attachHungDisk(t, backend(t, step)) })
	t.Run("Detach", func(t *testing.T) { detachHungDisk(t, backend(t, step)) })
}

// attachHungDisk: the disk does not answer while the kernel looks for partitions.
// All is taken back, and nothing is in the way of the next.
func attachHungDisk(t *testing.T, b device.Backend) {
	disk := CheckedDisk(t, Geometry4M, rigArena)
	disk.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	dev, err := b.Attach(ctx, disk, rigName)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("attached: %v, %v", dev, err)
	}
	disk.Resume(syscall.EIO)
	eventually(t, "memory is given back", func() bool { return disk.Arena().InUse() == 0 })
	attach(t, b, disk, rigName)
}

// detachHungDisk: the disk never answers. Detach says so, and who waits for the
// device is told of an error.
func detachHungDisk(t *testing.T, b device.Backend) {
	disk := CheckedDisk(t, Geometry4M, rigArena)
	dev := attach(t, b, disk, rigName)
	f, err := OpenBlock("/dev/"+dev.Path(), unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	disk.Hold()
	failed := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(AlignedBuffer(4096), 0)
		failed <- err
		f.Close()
	}()
	eventually(t, "the write is with the disk", func() bool { return disk.Held() > 0 })
	within(t, "detaching", func() {
		if err := dev.Detach(); err == nil || !strings.Contains(err.Error(), "still with the disk") {
			t.Errorf("of the requests that are with the disk is said: %v", err)
		}
	})
	if err := <-failed; err == nil {
		t.Error("a write that never was succeeded")
	}
	disk.Resume(syscall.EIO)
	eventually(t, "memory is given back", func() bool { return disk.Arena().InUse() == 0 })
}

// FileSystem makes a file system, writes and reads files, and finds the disk in
// use while it is mounted. In between, where that is not nil, something is done
// to the device, which is not mounted then.
func FileSystem(t *testing.T, dev device.Device, disk *Disk, kind string, mkfs []string, between func(node string)) {
	node := "/dev/" + dev.Path()
	exec.Command("modprobe", kind).Run()
	RunProgram(t, mkfs[0], append(mkfs[1:], node)...)
	dir, unmount := MountFS(t, node, kind)
	content := make([]byte, 5<<20+123)
	rand.NewChaCha8([32]byte{2}).Read(content)
	for i := range 4 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	users, err := dev.Reserve()
	if !errors.Is(err, device.ErrInUse) {
		t.Fatalf("a mounted disk was reserved: %v", err)
	}
	if len(users) != 1 || users[0] != (device.User{What: "mounted on " + dir}) {
		t.Errorf("used by %v, want the mount on %s", users, dir)
	}
	unmount()
	if disk.Count(device.Flush) == 0 {
		t.Error("no flush came")
	}
	if _, err := dev.Reserve(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(node, dir, kind, 0, ""); !errors.Is(err, unix.EBUSY) {
		t.Errorf("mounting a reserved disk: %v", err)
	}
	dev.Release()
	if between != nil {
		between(node)
	}
	dir, unmount = MountFS(t, node, kind)
	for i := range 4 {
		got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("file %d is not what was written: %v", i, err)
		}
	}
	unmount()
	if err := dev.Detach(); err != nil {
		t.Error(err)
	}
}

// ReserveNamesProcesses: others have the device open, not for exclusive use.
func ReserveNamesProcesses(t *testing.T, dev device.Device) {
	sleep, err := StartProgram("sleep", "60", "/dev/"+dev.Path())
	if err != nil {
		t.Fatal(err)
	}
	found, err := dev.Reserve()
	if !errors.Is(err, device.ErrInUse) || len(found) != 1 || found[0].PID != sleep.Process.Pid {
		t.Errorf("used by %v, %v; want process %d", found, err, sleep.Process.Pid)
	}
	sleep.Process.Kill()
	sleep.Wait()
	if found, err := dev.Reserve(); err != nil {
		t.Errorf("used by %v, %v", found, err)
	}
	dev.Release()
}

// DirtyDetach: what the page cache has of a device reaches the disk before the
// device goes.
func DirtyDetach(t *testing.T, dev device.Device, disk *Disk) {
	f, err := os.OpenFile("/dev/"+dev.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{3}).Read(want)
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	detached := make(chan error, 1)
	go func() { detached <- dev.Detach() }()
	got := make([]byte, len(want))
	for {
		if disk.Peek(got, 0); bytes.Equal(got, want) {
			break
		}
		select {
		case err := <-detached:
			t.Fatalf("detached without what was written: %v", err)
		default:
		}
	}
	f.Close()
	if err := <-detached; err != nil {
		t.Error(err)
	}
}

// NoAllocation: requests are served without memory of Go's.
func NoAllocation(t *testing.T, dev device.Device) {
	if RaceEnabled {
		t.Skip("SKIP: the race detector allocates")
	}
	f, err := OpenBlock("/dev/"+dev.Path(), unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := AlignedBuffer(16 << 10)
	serve := func(n int) {
		for i := range n {
			if _, err := f.WriteAt(p, int64(i%64)<<14); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAt(p, int64(i%64)<<14); err != nil {
				t.Fatal(err)
			}
		}
	}
	serve(500) // all tags are used
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	serve(1000)
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 100 {
		t.Errorf("%d allocations for 2000 requests", n)
	}
}
