package ublk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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
	h := devicetest.BlockHarness(func(t *testing.T) device.Backend { return backend(t) })
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

func TestHungDisk(t *testing.T) {
	devicetest.HungDisk(t, func(t *testing.T, step time.Duration) device.Backend {
		b := backend(t)
		b.step = step
		return b
	})
	nothingLeft(t)
}

// TestProperties: what the kernel says of the device is what the disk is.
func TestProperties(t *testing.T) {
	b := backend(t)
	geo := devicetest.Geometry4M
	geo.Size, geo.LogicalBlock, geo.PhysicalBlock = 3<<40, 4096, 8192 // more than 2 TiB
	geo.OptimalIO, geo.Rotational = 64<<10, true
	dev := attach(t, b, devicetest.CheckedDisk(t, geo, 32<<20))
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
	disk := devicetest.CheckedDisk(t, geo, 32<<20)
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

func TestReserveNamesProcesses(t *testing.T) {
	devicetest.ReserveNamesProcesses(t, attach(t, backend(t), devicetest.CheckedDisk(t, devicetest.Geometry4M, 32<<20)))
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
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 32<<20)
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
