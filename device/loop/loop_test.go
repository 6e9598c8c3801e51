package loop

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"iscsictl/device"
	"iscsictl/device/devicetest"
	"iscsictl/device/users"
)

// backend makes a back-end, or skips the test where there can be none.
func backend(t testing.TB) *Backend {
	t.Helper()
	b := New(t.TempDir(), nil)
	b.step = time.Second
	if err := b.Probe(); err != nil {
		t.Skip("SKIP:", err)
	}
	return b
}

func TestConformance(t *testing.T) {
	backend(t)
	h := devicetest.BlockHarness(func(t *testing.T) device.Backend { return backend(t) })
	h.ZeroesOnly = true
	devicetest.Run(t, h)
}

// attach attaches a disk for the time of the test, which must leave nothing.
func attach(t testing.TB, b *Backend, disk device.Disk) *Device {
	t.Helper()
	dev, err := b.Attach(context.Background(), disk, device.Name{Session: 1, LUN: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dev.Detach()
		for _, m := range users.Mounts() {
			if filepath.Dir(m.Point) == b.dir {
				t.Errorf("%s is still mounted", m.Point)
			}
		}
		if left, _ := os.ReadDir(b.dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return dev.(*Device)
}

func TestHungDisk(t *testing.T) {
	devicetest.HungDisk(t, func(t *testing.T, step time.Duration) device.Backend {
		b := backend(t)
		b.step = step
		return b
	})
}

func TestBadGeometry(t *testing.T) {
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 32<<20)
	for name, change := range map[string]func(*device.Geometry){
		"block":    func(g *device.Geometry) { g.LogicalBlock = 520 },
		"8 KiB":    func(g *device.Geometry) { g.LogicalBlock = 8192 },
		"size":     func(g *device.Geometry) { g.Size++ },
		"nothing":  func(g *device.Geometry) { g.Size = 0 },
		"transfer": func(g *device.Geometry) { g.MaxTransfer = 511 },
	} {
		geo := devicetest.Geometry4M
		change(&geo)
		if check(geo, disk.Arena()) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
