package nbd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/block"
	"iscsictl/device/devicetest"
)

// kernel makes the back-end, or skips the test where there can be none.
func kernel(t testing.TB) *Kernel {
	t.Helper()
	k := NewKernel(nil)
	k.step = 2 * time.Second
	if err := k.Probe(); err != nil {
		t.Skipf("SKIP: %v; runs in the VM", err)
	}
	return k
}

// nothingLeft makes sure that the driver has no device of ours any more.
func nothingLeft(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left, _ := filepath.Glob("/sys/block/nbd*/backend")
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("left behind: %v", left)
		}
	}
}

// attachKernel attaches a disk for the time of the test, which must leave nothing.
func attachKernel(t testing.TB, k *Kernel, disk device.Disk) *kernelDevice {
	t.Helper()
	dev, err := k.Attach(context.Background(), disk, device.Name{Session: 1, LUN: 2, Target: "iqn.x"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dev.Detach()
		nothingLeft(t)
	})
	return dev.(*kernelDevice)
}

func openKernel(t testing.TB, d device.Device) *devicetest.Block {
	t.Helper()
	f, err := devicetest.OpenBlock("/dev/"+d.Path(), unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestKernelConformance(t *testing.T) {
	probed := attachKernel(t, kernel(t), devicetest.CheckedDisk(t, devicetest.Geometry4M, 16<<20))
	zeroes := block.Property(probed.Path(), "queue/write_zeroes_max_bytes") != "0"
	if err := probed.Detach(); err != nil {
		t.Fatal(err)
	}
	// The clients wait in system calls of this same process, and each keeps
	// one of Go's processors for a while.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	h := devicetest.BlockHarness(func(t *testing.T) device.Backend { return kernel(t) })
	for name, f := range devicetest.Tests {
		t.Run(name, func(t *testing.T) {
			if !zeroes && (name == "WriteZeroes") {
				t.Skip("SKIP: this kernel's NBD driver does not know WRITE_ZEROES (needs Linux 6.12)")
			}
			f(t, h)
		})
	}
	nothingLeft(t)
}

// TestKernelProperties: what the kernel says of the device is what the disk is.
func TestKernelProperties(t *testing.T) {
	geo := devicetest.Geometry4M
	geo.Size, geo.LogicalBlock, geo.PhysicalBlock, geo.Rotational = 3<<40, 4096, 4096, true // more than 2 TiB
	dev := attachKernel(t, kernel(t), devicetest.CheckedDisk(t, geo, 16<<20))
	for property, want := range map[string]string{
		"size": fmt.Sprint(geo.Size / 512), "queue/logical_block_size": "4096", "queue/rotational": "1", "ro": "0",
		"queue/write_cache": "write back", "queue/fua": "1", "queue/max_sectors_kb": "1024", "queue/io_timeout": requestTimeout,
		"backend": "iscsid iqn.x 2",
	} {
		if got := block.Property(dev.Path(), property); got != want {
			t.Errorf("%s is %q, want %s", property, got, want)
		}
	}
	if block.Property(dev.Path(), "queue/discard_max_bytes") == "0" {
		t.Error("no discard is offered")
	}
	if !dev.Outlives() {
		t.Error("the device does not outlive the daemon")
	}
	f := openKernel(t, dev)
	p, got := devicetest.AlignedBuffer(4096), devicetest.AlignedBuffer(4096)
	copy(p, "at the far end")
	if _, err := f.WriteAt(p, geo.Size-4096); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(got, geo.Size-4096); err != nil || string(got) != string(p) {
		t.Errorf("read %q, %v", got[:14], err)
	}
	f.Close()
	path := dev.Path()
	if err := dev.Detach(); err != nil {
		t.Fatal(err)
	}
	for property, want := range asFound {
		if got := block.Property(path, property); got != want && property != "queue/write_cache" {
			t.Errorf("after detaching %s is %q, want %s", property, got, want)
		}
	}
}

// TestKernelUpdate: what a device that exists can be told, and what not.
func TestKernelUpdate(t *testing.T) {
	geo := devicetest.Geometry4M
	disk := devicetest.CheckedDisk(t, geo, 16<<20)
	dev := attachKernel(t, kernel(t), disk)
	update := func(change func(*device.Geometry)) error {
		g := geo
		change(&g)
		disk.SetGeometry(g)
		return dev.Update(g)
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
	if err := update(func(g *device.Geometry) { g.WriteCache = false }); err != nil {
		t.Error(err)
	}
	if got := block.Property(dev.Path(), "queue/write_cache"); got != "write through" {
		t.Errorf("without a cache it is %q", got)
	}
	if err := update(func(g *device.Geometry) { g.MaxTransfer = 4096 }); err != nil {
		t.Error(err)
	}
	f = openKernel(t, dev)
	p, got := devicetest.AlignedBuffer(256<<10), devicetest.AlignedBuffer(256<<10)
	for i := range p {
		p[i] = byte(i >> 9)
	}
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) {
		t.Errorf("what was written in parts is not what is read: %v", err)
	}
}

// counter is a disk that counts the writes that come.
type counter struct {
	*devicetest.Disk
	writes atomic.Int32
}

func (c *counter) Submit(batch []*device.Request) {
	for _, r := range batch {
		if r.Op == device.Write {
			c.writes.Add(1)
		}
	}
	c.Disk.Submit(batch)
}

// TestKernelHeldWrite: a write that the disk keeps for several of the kernel's
// time-outs does not come a second time, and the connection stays.
func TestKernelHeldWrite(t *testing.T) {
	disk := &counter{Disk: devicetest.CheckedDisk(t, devicetest.Geometry4M, 16<<20)}
	dev := attachKernel(t, kernel(t), disk)
	f := openKernel(t, dev)
	disk.Hold()
	written := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(devicetest.AlignedBuffer(4096), 0)
		written <- err
	}()
	select {
	case err := <-written:
		t.Fatalf("written while the disk holds it: %v", err)
	case <-time.After(5 * time.Second): // five time-outs
	}
	if n := disk.writes.Load(); n != 1 {
		t.Errorf("the write came %d times", n)
	}
	if n := len(dev.export.Clients()); n != 1 {
		t.Errorf("%d connections", n)
	}
	disk.Resume(0)
	if err := <-written; err != nil {
		t.Error(err)
	}
	if n := disk.writes.Load(); n != 1 {
		t.Errorf("the write came %d times", n)
	}
}

// TestKernelCutConnection: where the connection ends, such as by somebody's
// command to the driver, it gets another, and nobody sees an error.
func TestKernelCutConnection(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 16<<20)
	dev := attachKernel(t, kernel(t), disk)
	f := openKernel(t, dev)
	for i := range 3 {
		p, got := devicetest.AlignedBuffer(4096), devicetest.AlignedBuffer(4096)
		p[0] = byte(i)
		for _, nc := range dev.export.Clients() {
			nc.Close()
		}
		if _, err := f.WriteAt(p, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("read after a cut: %v", err)
		}
	}
}

func TestKernelHungDisk(t *testing.T) {
	devicetest.HungDisk(t, func(t *testing.T, step time.Duration) device.Backend {
		k := kernel(t)
		k.step = step
		return k
	})
	nothingLeft(t)
}

// TestKernelPartitions: a table that is on the disk is seen at once.
func TestKernelPartitions(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 16<<20)
	table := make([]byte, 512)
	copy(table[446:], []byte{0, 0, 0, 0, 0x83, 0, 0, 0, 8, 0, 0, 0, 0, 8, 0, 0}) // 1 MiB at 4 KiB
	table[510], table[511] = 0x55, 0xaa
	disk.Poke(table, 0)
	dev := attachKernel(t, kernel(t), disk)
	if got := block.Property(dev.Path(), dev.Path()+"p1/size"); got != "2048" {
		t.Errorf("the partition has %q sectors", got)
	}
}

func TestKernelNoAllocation(t *testing.T) {
	devicetest.NoAllocation(t, attachKernel(t, kernel(t), devicetest.CheckedDisk(t, devicetest.Geometry4M, 16<<20)))
}

// TestKernelDisconnected: somebody ends the device by other means.
func TestKernelDisconnected(t *testing.T) {
	dev := attachKernel(t, kernel(t), devicetest.CheckedDisk(t, devicetest.Geometry4M, 16<<20))
	if err := disconnect(dev.index); err != nil {
		t.Fatal(err)
	}
	select {
	case <-dev.served:
	case <-time.After(10 * time.Second):
		t.Fatal("it is served on")
	}
	nothingLeft(t)
	if err := dev.Detach(); err != nil {
		t.Log(err)
	}
}

// TestServed: the mark of a device that is served goes with its process, and
// needs no driver.
func TestServed(t *testing.T) {
	const index = 1<<19 + 4711 // nobody has so many
	if isServed(index) {
		t.Error("served by nobody")
	}
	l := markServed(index)
	if l == nil || !isServed(index) {
		t.Error("not served")
	}
	if markServed(index) != nil {
		t.Error("marked twice")
	}
	l.Close()
	if isServed(index) {
		t.Error("served after the end")
	}
}

func TestPaths(t *testing.T) {
	for path, want := range map[string]int{"nbd0": 0, "nbd17": 17, "nbd": -1, "loop0": -1, "nbd-1": -1, "nbd99999999999": -1} {
		if got, err := numberOf(path); (err == nil) != (want >= 0) || err == nil && (got != want || pathOf(got) != path) {
			t.Errorf("%s: %d, %v", path, got, err)
		}
	}
}

// TestProbe: where there is no driver, it is said what is missing.
func TestProbe(t *testing.T) {
	err := NewKernel(nil).Probe()
	t.Log(err)
	if _, missing := os.Stat("/sys/module/nbd"); missing != nil && (err == nil || !strings.Contains(err.Error(), "nbd: ")) {
		t.Errorf("without the module: %v", err)
	}
}

func TestKernelDirtyDetach(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 16<<20)
	devicetest.DirtyDetach(t, attachKernel(t, kernel(t), disk), disk)
}
