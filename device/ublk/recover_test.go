package ublk

import (
	"context"
	"os"
	"strconv"
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
	depth, _ := strconv.Atoi(os.Getenv("UBLK_TEST_DEPTH"))
	b := New(Options{Shape: func() (int, int) { return 2, depth }})
	devicetest.Daemon(t, func(ctx context.Context, disk device.Disk, left string) (device.Device, error) {
		if left != "" {
			return b.Recover(ctx, left, disk, devicetest.DaemonName)
		}
		return b.Attach(ctx, disk, devicetest.DaemonName)
	})
}

// deadDevice removes what the tests leave when they fail.
func deadDevice(t *testing.T, b *Backend) {
	t.Cleanup(func() {
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			for _, w := range b.Quiesced() {
				t.Logf("removing %s, which waits", w.Path)
				b.Remove(w.ID, true)
			}
		}
	})
}

func TestKill(t *testing.T) {
	deadDevice(t, backend(t))
	devicetest.KillUnderFio(t, "UBLK_TEST_KILLS")
	nothingLeft(t)
}

// TestKillWithAllTags: the daemon dies while it has all tags of every queue,
// which some kernels notice late.
func TestKillWithAllTags(t *testing.T) {
	b := backend(t)
	env := append(devicetest.DaemonEnv(t, 16<<20), "UBLK_TEST_DEPTH=4")
	p := devicetest.Serve(t, append(env, devicetest.HoldVariable)...)
	deadDevice(t, b)
	node := "/dev/" + p.Path
	var writers sync.WaitGroup
	for w := range 32 {
		writers.Go(func() {
			f, err := devicetest.OpenBlock(node, unix.O_RDWR)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if _, err := f.WriteAt(devicetest.AlignedBuffer(4096), int64(w)*128<<10); err != nil {
				t.Errorf("writer %d: %v", w, err)
			}
		})
	}
	inflight := "/sys/block/" + p.Path + "/inflight"
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(inflight)
		if f := strings.Fields(string(b)); len(f) == 2 && len(f[1]) > 0 && f[1] != "0" {
			if n, _ := strconv.Atoi(f[1]); n >= 4 {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatalf("requests under way: %s", b)
		}
	}
	time.Sleep(200 * time.Millisecond) // all that come have come
	p.Kill()
	begin := time.Now()
	p = devicetest.Serve(t, append(env, devicetest.LeftVariable(p.Path))...)
	t.Logf("the device was back after %v", time.Since(begin))
	writers.Wait()
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("the writers went on after %v", d)
	}
	p.End()
	nothingLeft(t)
}

// TestKillWhileTuning: a daemon dies while the kernel, which is to change a property,
// waits for the requests that this daemon has. Nothing of it may stay that the next
// one would have to wait for.
func TestKillWhileTuning(t *testing.T) {
	b := backend(t)
	env := devicetest.DaemonEnv(t, 16<<20)
	p := devicetest.Serve(t, env...)
	deadDevice(t, b)
	property := "/sys/block/" + p.Path + "/queue/io_timeout"
	if err := os.WriteFile(property, []byte("7000"), 0); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	written := make(chan error, 1)
	go func() {
		f, err := devicetest.OpenBlock("/dev/"+p.Path, unix.O_RDWR)
		if err == nil {
			defer f.Close()
			_, err = f.WriteAt(devicetest.AlignedBuffer(4096), 0)
		}
		written <- err
	}()
	time.Sleep(200 * time.Millisecond) // it waits for a daemon
	env = append(env, devicetest.LeftVariable(p.Path))
	devicetest.Serve(t, append(env, devicetest.HoldVariable)...).Kill()
	p = devicetest.Serve(t, env...)
	if err := <-written; err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if text, _ := os.ReadFile(property); strings.TrimSpace(string(text)) == requestTimeout {
			break
		} else if time.Now().After(end) {
			t.Fatalf("the time-out is %s, want %s", text, requestTimeout)
		}
	}
	p.End()
	nothingLeft(t)
}

// TestQuiesced: a device waits, is listed, and is removed with its users' requests.
func TestQuiesced(t *testing.T) {
	b := backend(t)
	env := devicetest.DaemonEnv(t, 16<<20)
	p := devicetest.Serve(t, env...)
	deadDevice(t, b)
	f, err := devicetest.OpenBlock("/dev/"+p.Path, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	failed := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(devicetest.AlignedBuffer(4096), 0)
		f.Close()
		failed <- err
	}()
	left := b.Quiesced()
	for end := time.Now().Add(5 * time.Second); len(left) == 0 && time.Now().Before(end); left = b.Quiesced() {
		time.Sleep(10 * time.Millisecond)
	}
	if len(left) != 1 || left[0].Path != p.Path || left[0].Size != 16<<20 || !left[0].Of(devicetest.DaemonName) {
		t.Fatalf("waiting: %+v", left)
	}
	if lines := b.Clean(); len(lines) != 0 {
		t.Errorf("cleaned what waits: %q", lines)
	}
	found, err := b.Remove(left[0].ID, false)
	if err == nil || len(found) == 0 {
		t.Fatalf("a device in use was removed: %v, %v", found, err)
	}
	select {
	case err := <-failed:
		t.Fatalf("the write did not wait: %v", err)
	default:
	}
	if _, err := b.Remove(left[0].ID, true); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("a write to what was removed succeeded")
	}
	nothingLeft(t)
	if _, err := b.Remove(left[0].ID, true); err == nil {
		t.Error("removed once more")
	}
}

// TestRecoverFails: what cannot be served goes on to wait.
func TestRecoverFails(t *testing.T) {
	b := backend(t)
	env := devicetest.DaemonEnv(t, 16<<20)
	p := devicetest.Serve(t, env...)
	id, _ := strconv.Atoi(strings.TrimPrefix(p.Path, "ublkb"))
	deadDevice(t, b)
	p.Kill()
	small, err := devicetest.NewDisk(devicetest.Geometry4M, 1<<20) // the host was told of 1 MiB
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if _, err := b.TakeBack(t.Context(), id, small, devicetest.DaemonName); err == nil || !strings.Contains(err.Error(), "larger arena") {
		t.Errorf("with too little memory: %v", err)
	}
	p = devicetest.Serve(t, append(env, devicetest.LeftVariable(p.Path))...)
	p.End()
	nothingLeft(t)
}
