package loop

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/devicetest"
	"iscsictl/device/users"
)

// TestFileSystem also lets a file system grow with its disk.
func TestFileSystem(t *testing.T) {
	b := backend(t)
	geo := devicetest.Geometry4M
	geo.Size = 64 << 20
	disk := devicetest.CheckedDisk(t, geo, 32<<20)
	dev := attach(t, b, disk)
	devicetest.FileSystem(t, dev, disk, "ext4", []string{"mkfs.ext4", "-q", "-F"}, func(node string) {
		geo.Size = 100 << 20
		disk.SetGeometry(geo)
		if err := dev.Update(geo); err != nil {
			t.Fatal(err)
		}
		devicetest.RunProgram(t, "e2fsck", "-f", "-y", node)
		devicetest.RunProgram(t, "resize2fs", node)
	})
}

func TestReserveNamesProcesses(t *testing.T) {
	devicetest.ReserveNamesProcesses(t, attach(t, backend(t), devicetest.CheckedDisk(t, devicetest.Geometry4M, 32<<20)))
}

// TestProperties: what the kernel says of the device is what the disk is.
func TestProperties(t *testing.T) {
	b := backend(t)
	geo := devicetest.Geometry4M
	geo.Size, geo.LogicalBlock, geo.Rotational = 3<<40, 4096, true // more than 2 TiB
	dev := attach(t, b, devicetest.CheckedDisk(t, geo, 32<<20))
	for file, want := range map[string]string{
		"size": fmt.Sprint(geo.Size / 512), "queue/logical_block_size": "4096", "loop/dio": "1", "loop/partscan": "1",
		"queue/rotational": "1", "ro": "0", "queue/write_cache": "write back", "queue/discard_granularity": "4096",
	} {
		got, err := os.ReadFile(filepath.Join("/sys/block", dev.Path(), file))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, %v; want %s", file, got, err, want)
		}
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
	if _, err := f.ReadAt(got, geo.Size-4096); err != nil || !bytes.Equal(got, p) {
		t.Errorf("read %q, %v", got[:14], err)
	}
}

func TestFio(t *testing.T) {
	b := backend(t)
	geo := devicetest.Geometry4M
	geo.Size = 32 << 20
	disk := devicetest.CheckedDisk(t, geo, 32<<20)
	disk.Shuffle(1)
	dev := attach(t, b, disk)
	for _, job := range [][]string{{"--rw=randwrite", "--bsrange=512-64k"}, {"--rw=write", "--bs=1M"}} {
		out := devicetest.RunProgram(t, "fio", append(job, "--name=x", "--ioengine=libaio", "--direct=1", "--filename=/dev/"+dev.Path(),
			"--iodepth=32", "--size=32M", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--randseed=7", "--fsync=64")...)
		if !strings.Contains(out, "err= 0") {
			t.Errorf("fio:\n%s", out)
		}
	}
}

// TestNoZeroes: a disk that cannot write zeroes is told nothing of discards,
// for which the driver punches holes, that have to read as zeroes.
func TestNoZeroes(t *testing.T) {
	b := backend(t)
	geo := devicetest.Geometry4M
	geo.ZeroesMax = 0 // DiscardMax is not
	disk := devicetest.CheckedDisk(t, geo, 32<<20)
	dev := attach(t, b, disk)
	f, err := devicetest.OpenBlock("/dev/"+dev.Path(), unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	disk.Poke([]byte("something"), 0)
	// Newer kernels make a success of a discard that is not supported.
	if err := f.Discard(0, 1<<20); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("discard: %v, want none or EOPNOTSUPP", err)
	}
	if disk.Count(device.Discard)+disk.Count(device.WriteZeroes) != 0 {
		t.Error("the disk was told of a discard")
	}
	if err := f.WriteZeroes(0, 1<<20); err != nil { // the kernel writes them
		t.Fatal(err)
	}
	got := make([]byte, 1<<20)
	if disk.Peek(got, 0); !bytes.Equal(got, make([]byte, 1<<20)) {
		t.Error("not all is zero")
	}
}

// TestClean kills a daemon that has a disk and looks what is left after Clean.
func TestClean(t *testing.T) {
	if dir := os.Getenv("LOOP_TEST_DAEMON"); dir != "" {
		daemon(t, dir)
		return
	}
	b := backend(t)
	for _, dirty := range []bool{false, true} {
		name := startAndKill(t, b.dir, dirty)
		start := time.Now()
		lines := b.Clean()
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("cleaning took %v", d)
		}
		if len(lines) != 2 || !strings.Contains(lines[0], "removed "+name) || !strings.Contains(lines[1], "unmounted") {
			t.Errorf("cleaned %q", lines)
		}
		for _, m := range users.Mounts() {
			if strings.HasPrefix(m.Point, b.dir) {
				t.Errorf("%s is still mounted", m.Point)
			}
		}
		if left, _ := os.ReadDir(b.dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
		if lines := b.Clean(); len(lines) != 0 {
			t.Errorf("cleaned again: %q", lines)
		}
	}
	attach(t, b, devicetest.CheckedDisk(t, devicetest.Geometry4M, 32<<20))
}

// TestCleanMounted: the file system on a dead daemon's disk is still mounted.
// Clean does not wait for it, and the loop device goes away with it.
func TestCleanMounted(t *testing.T) {
	b := backend(t)
	name, kill := start(t, b.dir)
	devicetest.RunProgram(t, "mkfs.ext4", "-q", "-F", "/dev/"+name)
	dir, unmount := devicetest.MountFS(t, "/dev/"+name, "ext4")
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	kill()
	lines := b.Clean()
	if len(lines) != 2 || !strings.Contains(lines[0], name+" of a daemon that died is still in use") {
		t.Errorf("cleaned %q", lines)
	}
	unmount()
	for end := time.Now().Add(10 * time.Second); remains(b, name); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is still there", name)
		}
	}
}

// TestAttachAfterDeath: the same disk is attached without a Clean before.
func TestAttachAfterDeath(t *testing.T) {
	b := backend(t)
	name := startAndKill(t, b.dir, false)
	dev, err := b.Attach(t.Context(), devicetest.CheckedDisk(t, devicetest.Geometry4M, 32<<20), device.Name{Session: 9})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Detach(); err != nil {
		t.Error(err)
	}
	if remains(b, name) {
		t.Errorf("%s is still there", name)
	}
}

// remains reports whether a loop device is on a file of the back-end's, whose
// path is a short one once the mount is out of sight.
func remains(b *Backend, name string) bool {
	number := -1
	fmt.Sscanf(name, "loop%d", &number)
	path := backing(number)
	return path == "/"+fileName || strings.HasPrefix(path, b.dir)
}

// daemon attaches a disk and waits for its end.
func daemon(t *testing.T, dir string) {
	disk, err := devicetest.NewDisk(devicetest.Geometry4M, 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := New(dir, nil).Attach(t.Context(), disk, device.Name{Session: 9})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("attached %s\n", dev.Path())
	time.Sleep(time.Minute) // until it is killed
}

// start runs a daemon, which kill kills.
func start(t *testing.T, dir string) (name string, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestClean$")
	cmd.Env = append(os.Environ(), "LOOP_TEST_DAEMON="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	name, ok := strings.CutPrefix(strings.TrimSpace(line), "attached ")
	if err != nil || !ok {
		t.Fatalf("the daemon said %q, %v", line, err)
	}
	return name, kill
}

// startAndKill runs a daemon, with dirty pages of its disk in the page cache
// where that is wanted, and kills it.
func startAndKill(t *testing.T, dir string, dirty bool) (name string) {
	t.Helper()
	name, kill := start(t, dir)
	if dirty {
		f, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	kill()
	return name
}

func BenchmarkFio(b *testing.B) {
	back := backend(b)
	geo := devicetest.Geometry4M
	geo.Size = 256 << 20
	dev := attach(b, back, devicetest.CheckedDisk(b, geo, 32<<20))
	devicetest.Fio(b, "--ioengine=libaio", "--direct=1", "--filename=/dev/"+dev.Path(), "--size=256M")
}
