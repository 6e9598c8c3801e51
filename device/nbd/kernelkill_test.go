package nbd

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/devicetest"
)

// TestDaemon is the process that the tests below kill.
func TestDaemon(t *testing.T) {
	devicetest.Daemon(t, func(ctx context.Context, disk device.Disk, left string) (device.Device, error) {
		if left != "" {
			return NewKernel(nil).Recover(ctx, left, disk, devicetest.DaemonName)
		}
		return NewKernel(nil).Attach(ctx, disk, devicetest.DaemonName)
	})
}

// deadDevice removes what the tests leave when they fail.
func deadDevice(t *testing.T, k *Kernel) {
	t.Cleanup(func() {
		for _, path := range k.Waiting() {
			t.Logf("removing %s, which waits: %v", path, k.Discard(path))
		}
	})
}

// TestKernelKill kills the daemon again and again under fio.
func TestKernelKill(t *testing.T) {
	deadDevice(t, kernel(t))
	devicetest.KillUnderFio(t, "NBD_TEST_KILLS")
	nothingLeft(t)
}

// TestKernelKillHeld: requests that a daemon had when it died come to the next
// one, soon.
func TestKernelKillHeld(t *testing.T) {
	deadDevice(t, kernel(t))
	env := devicetest.DaemonEnv(t, 128<<20)
	p := devicetest.Serve(t, append(env, devicetest.HoldVariable)...)
	var writers sync.WaitGroup
	for w := range 32 {
		f, err := devicetest.OpenBlock("/dev/"+p.Path, unix.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		writers.Go(func() {
			defer f.Close()
			if _, err := f.WriteAt(devicetest.AlignedBuffer(4096), int64(w)*128<<10); err != nil {
				t.Errorf("writer %d: %v", w, err)
			}
		})
	}
	time.Sleep(500 * time.Millisecond) // all that come have come
	p.Kill()
	begin := time.Now()
	p = devicetest.Serve(t, append(env, devicetest.LeftVariable(p.Path))...)
	t.Logf("the device was back after %v", time.Since(begin))
	writers.Wait()
	t.Logf("the writers went on after %v", time.Since(begin))
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("the writers went on after %v", d)
	}
	p.End()
	nothingLeft(t)
}

// TestKernelWaiting: a device waits, is listed, is not taken for another disk's,
// and is removed with its users' requests.
func TestKernelWaiting(t *testing.T) {
	k := kernel(t)
	deadDevice(t, k)
	p := devicetest.Serve(t, devicetest.DaemonEnv(t, 128<<20)...)
	if !k.Left(p.Path, devicetest.DaemonName) || k.Left(p.Path, device.Name{Target: "iqn.y"}) || k.Left("nbd4711", devicetest.DaemonName) {
		t.Error("what is left is not told")
	}
	if left := k.Waiting(); len(left) != 0 {
		t.Errorf("waiting while it is served: %v", left)
	}
	if err := k.Discard(p.Path); err == nil {
		t.Error("a device in service was removed")
	}
	disk := devicetest.CheckedDisk(t, devicetest.Geometry4M, 16<<20)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := k.Recover(ctx, p.Path, disk, devicetest.DaemonName); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a device in service: %v", err)
	}
	f, err := devicetest.OpenBlock("/dev/"+p.Path, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if left := k.Waiting(); len(left) != 1 || left[0] != p.Path {
		t.Fatalf("waiting: %v", left)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(devicetest.AlignedBuffer(4096), 0)
		f.Close()
		failed <- err
	}()
	if _, err := k.Recover(t.Context(), p.Path, disk, device.Name{Target: "iqn.y"}); err == nil || !strings.Contains(err.Error(), "it is not LUN 0 of iqn.y") {
		t.Errorf("a device of another disk: %v", err)
	}
	if _, err := k.Recover(t.Context(), "nbd4711", disk, devicetest.DaemonName); err == nil {
		t.Error("a device that is not there was taken back")
	}
	geo := devicetest.Geometry4M
	geo.LogicalBlock = 4096
	if _, err := k.Recover(t.Context(), p.Path, devicetest.CheckedDisk(t, geo, 16<<20), devicetest.DaemonName); err == nil || !strings.Contains(err.Error(), "4096 bytes instead of 512") {
		t.Errorf("with other blocks: %v", err)
	}
	if lines := k.Clean(); len(lines) != 0 {
		t.Errorf("cleaned what waits: %q", lines)
	}
	select {
	case err := <-failed:
		t.Fatalf("the write did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := k.Discard(p.Path); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("a write to what was removed succeeded")
	}
	nothingLeft(t)
	if err := k.Discard(p.Path); err == nil {
		t.Error("removed once more")
	}
}
