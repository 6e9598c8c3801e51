package ublk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/devicetest"
)

// backend makes a back-end, or skips the test where there can be none.
func backend(t testing.TB) *Backend {
	t.Helper()
	b := New(Options{Shape: func() (int, int) { return 2, 0 }})
	b.step = 2 * time.Second
	if err := b.Probe(); err != nil {
		t.Skipf("SKIP: %v; runs in the VM", err)
	}
	return b
}

// resizes reports whether the driver can change a size.
func resizes() bool {
	f, err := features()
	return err == nil && f&featUpdateSize != 0
}

func TestConformance(t *testing.T) {
	backend(t)
	// The clients wait in system calls of this same process, and each keeps
	// one of Go's processors for a while.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	h := &devicetest.Harness{
		New: func(t *testing.T) device.Backend { return backend(t) },
		Open: func(_ *testing.T, d device.Device) (devicetest.Client, error) {
			f, err := devicetest.OpenBlock("/dev/"+d.Path(), unix.O_RDWR|unix.O_EXCL)
			if err != nil {
				return nil, err
			}
			return f, nil
		},
		Alloc:      devicetest.AlignedBuffer,
		SeesResize: true,
	}
	for name, f := range devicetest.Tests {
		t.Run(name, func(t *testing.T) {
			if name == "Resize" && !resizes() {
				t.Skip("SKIP: this kernel's ublk cannot change a size (needs Linux 6.16)")
			}
			f(t, h)
		})
	}
	nothingLeft(t)
}

// nothingLeft makes sure that the driver has no device of ours any more.
func nothingLeft(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left, _ := filepath.Glob(classDir + "/ublkc*")
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("left behind: %v", left)
		}
	}
}

// newDisk makes a disk in memory that is checked at the test's end.
func newDisk(t testing.TB, geo device.Geometry) *devicetest.Disk {
	t.Helper()
	d, err := devicetest.NewDisk(geo, 32<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// attach attaches a disk for the time of the test, which must leave nothing.
func attach(t testing.TB, b *Backend, disk device.Disk) *Device {
	t.Helper()
	dev, err := b.Attach(context.Background(), disk, device.Name{Session: 1, LUN: 2, Target: "iqn.x"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dev.Detach()
		nothingLeft(t)
	})
	return dev.(*Device)
}

// memoryBack waits until the disk has got all of its memory back.
func memoryBack(t *testing.T, disk *devicetest.Disk) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); disk.Arena().InUse() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("memory was not given back")
		}
	}
}

// TestAttachHungDisk: the disk does not answer while the kernel looks for
// partitions. All is taken back.
func TestAttachHungDisk(t *testing.T) {
	b := backend(t)
	b.step = 300 * time.Millisecond
	disk := newDisk(t, devicetest.Geometry4M)
	disk.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	dev, err := b.Attach(ctx, disk, device.Name{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("attached: %v, %v", dev, err)
	}
	disk.Resume(syscall.EIO)
	memoryBack(t, disk)
	attach(t, b, disk) // and nothing is in the way of the next
}

// TestDetachHungDisk: the disk never answers. Detach says so, in time, and who
// waits for the device is told of an error.
func TestDetachHungDisk(t *testing.T) {
	b := backend(t)
	b.step = 300 * time.Millisecond
	disk := newDisk(t, devicetest.Geometry4M)
	dev := attach(t, b, disk)
	f, err := devicetest.OpenBlock("/dev/"+dev.Path(), unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	disk.Hold()
	failed := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(devicetest.AlignedBuffer(4096), 0)
		failed <- err
		f.Close()
	}()
	for disk.Held() == 0 {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	if err := dev.Detach(); err == nil || !strings.Contains(err.Error(), "still with the disk") {
		t.Errorf("of the requests that are with the disk is said: %v", err)
	} else {
		t.Log(err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("detaching took %v", d)
	}
	if err := <-failed; err == nil {
		t.Error("a write that never was succeeded")
	}
	disk.Resume(0)
	memoryBack(t, disk)
}

// TestProperties: what the kernel says of the device is what the disk is.
func TestProperties(t *testing.T) {
	b := backend(t)
	geo := devicetest.Geometry4M
	geo.Size, geo.LogicalBlock, geo.PhysicalBlock = 3<<40, 4096, 8192 // more than 2 TiB
	geo.OptimalIO, geo.Rotational = 64<<10, true
	dev := attach(t, b, newDisk(t, geo))
	for file, want := range map[string]string{
		"size": fmt.Sprint(geo.Size / 512), "queue/logical_block_size": "4096", "queue/physical_block_size": "8192",
		"queue/optimal_io_size": "65536", "queue/rotational": "1", "ro": "0", "queue/write_cache": "write back", "queue/fua": "1",
		"queue/max_hw_sectors_kb": "256", "queue/discard_granularity": "8192", "queue/discard_max_hw_bytes": "1048576",
		"queue/write_zeroes_max_bytes": "1048576", "queue/io_timeout": requestTimeout,
	} {
		got, err := os.ReadFile(filepath.Join("/sys/block", dev.Path(), file))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, %v; want %s", file, got, err, want)
		}
	}
	if !dev.Outlives() {
		t.Error("the device does not outlive the daemon")
	}
	f, err := devicetest.OpenBlock("/dev/"+dev.Path(), unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, got := devicetest.AlignedBuffer(4096), devicetest.AlignedBuffer(4096)
	copy(p, "at the far end")
	if _, err := f.WriteAt(p, geo.Size-4096); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(got, geo.Size-4096); err != nil || string(got) != string(p) {
		t.Errorf("read %q, %v", got[:14], err)
	}
}

// TestUpdate: what a device that exists can be told, and what not.
func TestUpdate(t *testing.T) {
	b := backend(t)
	geo := devicetest.Geometry4M
	disk := newDisk(t, geo)
	dev := attach(t, b, disk)
	update := func(change func(*device.Geometry)) error {
		g := geo
		change(&g)
		disk.SetGeometry(g)
		return dev.Update(g)
	}
	if err := update(func(g *device.Geometry) { g.Size *= 2 }); (err == nil) != resizes() || err != nil && !strings.Contains(err.Error(), "removed and added") {
		t.Errorf("a new size: %v", err)
	}
	if err := update(func(g *device.Geometry) { g.LogicalBlock = 4096 }); err == nil || !strings.Contains(err.Error(), "removed and added") {
		t.Errorf("a new block: %v", err)
	}
	if err := update(func(g *device.Geometry) { g.ReadOnly = true }); err != nil {
		t.Error(err)
	}
	f, err := devicetest.OpenBlock("/dev/"+dev.Path(), unix.O_RDWR)
	if err == nil {
		if _, err = f.WriteAt(devicetest.AlignedBuffer(4096), 0); err == nil {
			t.Error("a write to what is read-only now succeeded")
		}
		f.Close()
	}
	if err := update(func(g *device.Geometry) { g.MaxTransfer = 4096 }); err != nil {
		t.Error(err)
	}
	f, err = devicetest.OpenBlock("/dev/"+dev.Path(), unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, got := devicetest.AlignedBuffer(256<<10), devicetest.AlignedBuffer(256<<10)
	for i := range p {
		p[i] = byte(i >> 9)
	}
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != string(p) {
		t.Errorf("what was written in parts is not what is read: %v", err)
	}
}

// TestReserveNamesProcesses: others have the device open, not for exclusive use.
func TestReserveNamesProcesses(t *testing.T) {
	b := backend(t)
	dev := attach(t, b, newDisk(t, devicetest.Geometry4M))
	sleep, err := devicetest.StartProgram("sleep", "60", "/dev/"+dev.Path())
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
}

// TestClean: a daemon that died before its device was there.
func TestClean(t *testing.T) {
	b := backend(t)
	info := devInfo{queues: 1, depth: 1, devID: noID, maxIO: 4096, owner: owner(device.Name{}), flags: featUserCopy | featIoctlEncode}
	if err := exchange("ADD_DEV", cmdAddDev, noID, &info); err != nil {
		t.Fatal(err)
	}
	other := info
	other.owner, other.devID = 1, noID
	if err := exchange("ADD_DEV", cmdAddDev, noID, &other); err != nil {
		t.Fatal(err)
	}
	if lines := b.Clean(); len(lines) != 1 || lines[0] != fmt.Sprintf("removed ublkb%d of a daemon that died", info.devID) {
		t.Errorf("cleaned %q", lines)
	}
	if lines := b.Clean(); len(lines) != 0 {
		t.Errorf("cleaned another's: %q", lines)
	}
	if err := plain("DEL_DEV", cmdDelDev, other.devID, 0); err != nil {
		t.Error(err)
	}
	nothingLeft(t)
}

// TestRecoverRefused: devices that cannot be taken back.
func TestRecoverRefused(t *testing.T) {
	b := backend(t)
	disk := newDisk(t, devicetest.Geometry4M)
	name := device.Name{Session: 1, LUN: 2, Target: "iqn.x"}
	if _, err := b.TakeBack(t.Context(), 4711, disk, name); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("a device that is not there: %v", err)
	}
	dev := attach(t, b, disk)
	other := New(Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := other.TakeBack(ctx, dev.ID(), disk, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a device in service: %v", err)
	}
	if _, err := other.TakeBack(ctx, dev.ID(), disk, device.Name{Target: "iqn.y"}); err == nil || !strings.Contains(err.Error(), "it is not LUN 0 of iqn.y") {
		t.Errorf("a device of another disk: %v", err)
	}
	if _, err := b.TakeBack(ctx, dev.ID(), disk, device.Name{Session: 3}); err == nil {
		t.Error("our own device was taken back")
	}
	if !other.Left(dev.Path(), name) || other.Left(dev.Path(), device.Name{Target: "iqn.y"}) || b.Left(dev.Path(), name) {
		t.Error("what is another's is not told")
	}
	if left := other.Quiesced(); len(left) != 0 {
		t.Errorf("waiting: %v", left)
	}
}
