package ublk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/devicetest"
)

// TestFileSystem makes file systems, writes and reads files, and finds the
// disk in use while it is mounted.
func TestFileSystem(t *testing.T) {
	for kind, mkfs := range map[string][]string{"ext4": {"mkfs.ext4", "-q", "-F"}, "xfs": {"mkfs.xfs", "-q", "-f"}} {
		t.Run(kind, func(t *testing.T) {
			b := backend(t)
			geo := devicetest.Geometry4M
			geo.Size = 512 << 20
			disk := newDisk(t, geo)
			dev := attach(t, b, disk)
			node := "/dev/" + dev.Path()
			exec.Command("modprobe", kind).Run()
			devicetest.RunProgram(t, mkfs[0], append(mkfs[1:], node)...)
			dir, unmount := devicetest.MountFS(t, node, kind)
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
			dir, unmount = devicetest.MountFS(t, node, kind)
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
		})
	}
}

// TestDirtyDetach: what the page cache has of a device reaches the disk before
// the device goes.
func TestDirtyDetach(t *testing.T) {
	b := backend(t)
	disk := newDisk(t, devicetest.Geometry4M)
	dev := attach(t, b, disk)
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

func TestFio(t *testing.T) {
	b := backend(t)
	geo := devicetest.Geometry4M
	geo.Size, geo.MaxTransfer = 32<<20, 1<<20
	disk := newDisk(t, geo)
	disk.Shuffle(1)
	dev := attach(t, b, disk)
	for _, job := range [][]string{
		{"--rw=randwrite", "--bsrange=512-64k", "--iodepth=32", "--direct=1"},
		{"--rw=randrw", "--bs=4k", "--iodepth=128", "--direct=1", "--fsync=64"},
		{"--rw=write", "--bs=1M", "--iodepth=8", "--direct=1"},
		{"--rw=randwrite", "--bs=512", "--iodepth=1", "--direct=1", "--io_size=1M"},
		{"--rw=randwrite", "--bsrange=4k-1M", "--iodepth=16", "--direct=0", "--fsync=32"},
	} {
		out := devicetest.RunProgram(t, "fio", append(job, "--name=x", "--ioengine=libaio", "--filename=/dev/"+dev.Path(),
			"--size=32M", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--randseed=7")...)
		if !strings.Contains(out, "err= 0") {
			t.Errorf("fio:\n%s", out)
		}
	}
}

// TestNoAllocation: requests are served without memory of Go's.
func TestNoAllocation(t *testing.T) {
	b := backend(t)
	dev := attach(t, b, newDisk(t, devicetest.Geometry4M))
	f, err := devicetest.OpenBlock("/dev/"+dev.Path(), unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := devicetest.AlignedBuffer(16 << 10)
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

func BenchmarkFio(b *testing.B) {
	back := backend(b)
	geo := devicetest.Geometry4M
	geo.Size, geo.MaxTransfer = 64<<20, 1<<20
	dev := attach(b, back, newDisk(b, geo))
	devicetest.Fio(b, "--ioengine=libaio", "--direct=1", "--size=64M", "--filename=/dev/"+dev.Path())
}
