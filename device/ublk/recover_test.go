package ublk

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/arena"
	"iscsictl/device"
	"iscsictl/device/devicetest"
)

var recoverName = device.Name{Session: 1, LUN: 2, Target: "iqn.2012-06.example:recover"}

// sharedDisk is a disk in a file that several processes can map, one after the
// other. Like a target's it keeps what was written when a daemon dies.
type sharedDisk struct {
	arena *arena.Arena
	mem   []byte
	geo   device.Geometry
	hold  atomic.Bool // no request is ever done
	in    chan *device.Request
}

func newSharedDisk(t testing.TB, path string, size int64) *sharedDisk {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	d := &sharedDisk{geo: devicetest.Geometry4M, in: make(chan *device.Request, 4096)}
	d.geo.Size, d.geo.MaxTransfer = size, 1<<20
	if d.mem, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	if d.arena, err = arena.New(32 << 20); err != nil {
		t.Fatal(err)
	}
	go d.run()
	return d
}

func (d *sharedDisk) Geometry() device.Geometry { return d.geo }
func (d *sharedDisk) Arena() *arena.Arena       { return d.arena }

func (d *sharedDisk) Submit(batch []*device.Request) {
	if d.hold.Load() {
		return
	}
	for _, r := range batch {
		d.in <- r
	}
}

func (d *sharedDisk) run() {
	for r := range d.in {
		r.Errno = 0
		switch r.Op {
		case device.Read:
			copy(r.Data.Bytes(), d.mem[r.Offset:])
		case device.Write:
			copy(d.mem[r.Offset:], r.Data.Bytes())
		case device.Discard, device.WriteZeroes:
			clear(d.mem[r.Offset : r.Offset+r.Length])
		}
		r.Queue.Complete([]*device.Request{r})
	}
}

// TestDaemon is the process that the tests below kill. It attaches a disk, or
// takes it back, and serves it until its standard input ends.
func TestDaemon(t *testing.T) {
	path := os.Getenv("UBLK_TEST_DISK")
	if path == "" {
		t.Skip("SKIP: this is the daemon of other tests")
	}
	size, _ := strconv.ParseInt(os.Getenv("UBLK_TEST_SIZE"), 10, 64)
	depth, _ := strconv.Atoi(os.Getenv("UBLK_TEST_DEPTH"))
	disk := newSharedDisk(t, path, size)
	b := New(Options{Shape: func() (int, int) { return 2, depth }})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var dev device.Device
	var err error
	if id, bad := strconv.Atoi(os.Getenv("UBLK_TEST_ID")); bad == nil {
		dev, err = b.TakeBack(ctx, id, disk, recoverName)
	} else {
		dev, err = b.Attach(ctx, disk, recoverName)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	if os.Getenv("UBLK_TEST_HOLD") != "" {
		disk.hold.Store(true)
	}
	fmt.Printf("serving %s\n", dev.Path())
	os.Stdin.Read(make([]byte, 1))
	if err := dev.Detach(); err != nil {
		t.Error(err)
	}
}

// process is a running daemon.
type process struct {
	cmd  *exec.Cmd
	path string // "ublkb0"
	end  func() // in an orderly way
	kill func()
}

// serve starts a daemon, and returns when it serves the disk.
func serve(t *testing.T, env ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], "-test.run=^TestDaemon$", "-test.timeout=5m")}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	p.kill = func() { once.Do(func() { p.cmd.Process.Kill(); p.cmd.Wait() }) }
	p.end = func() { once.Do(func() { in.Close(); p.cmd.Wait() }) }
	t.Cleanup(p.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	path, ok := strings.CutPrefix(strings.TrimSpace(line), "serving ")
	if err != nil || !ok {
		t.Fatalf("the daemon said %q, %v", line, err)
	}
	p.path = path
	return p
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

func diskEnv(t *testing.T, size int64) []string {
	return []string{"UBLK_TEST_DISK=" + t.TempDir() + "/disk", fmt.Sprintf("UBLK_TEST_SIZE=%d", size)}
}

// kills is how often a daemon is killed.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("UBLK_TEST_KILLS")); err == nil {
		return n
	}
	return 10
}

// TestKill kills the daemon again and again under fio, on the device and on a
// file of a file system on it: nobody sees an error, nor a wrong byte.
func TestKill(t *testing.T) {
	for _, mounted := range []bool{false, true} {
		t.Run(map[bool]string{false: "device", true: "file"}[mounted], func(t *testing.T) {
			b := backend(t)
			const size = 128 << 20
			env := diskEnv(t, size)
			p := serve(t, env...)
			file := "/dev/" + p.path
			var unmount func()
			if mounted {
				run(t, "mkfs.ext4", "-q", "-F", "/dev/"+p.path)
				exec.Command("modprobe", "ext4").Run()
				var dir string
				dir, unmount = mountFS(t, "/dev/"+p.path, "ext4")
				file = dir + "/file"
			}
			id, _ := strconv.Atoi(strings.TrimPrefix(p.path, "ublkb"))
			deadDevice(t, b)
			fio := startFio(t, "--filename="+file, "--size=64M", "--rw=randwrite", "--bsrange=512-128k", "--iodepth=64", "--ioengine=libaio",
				"--direct=1", "--time_based", "--runtime=600", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256", "--randseed=7")
			var slowest time.Duration
			for i := range kills() {
				awaitWrites(t, p.path, 64)
				time.Sleep(time.Duration(i*37%100) * time.Millisecond)
				p.kill()
				begin := time.Now()
				p = serve(t, append(env, fmt.Sprintf("UBLK_TEST_ID=%d", id))...)
				slowest = max(slowest, time.Since(begin))
			}
			t.Logf("%d kills; the slowest way back took %v, with the start of the process", kills(), slowest)
			awaitWrites(t, p.path, 64)
			fio.stop(t)
			if mounted {
				unmount()
				run(t, "e2fsck", "-f", "-n", "/dev/"+p.path)
			}
			p.end()
			nothingLeft(t)
		})
	}
}

// awaitWrites waits until so many more writes to a device have completed.
func awaitWrites(t *testing.T, path string, n int) {
	t.Helper()
	writes := func() int {
		b, _ := os.ReadFile("/sys/block/" + path + "/stat")
		f := strings.Fields(string(b))
		if len(f) < 5 {
			t.Fatalf("counters of %s: %q", path, b)
		}
		n, _ := strconv.Atoi(f[4])
		return n
	}
	first := writes()
	for end := time.Now().Add(time.Minute); writes() < first+n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d writes to %s in a minute", writes()-first, path)
		}
	}
}

type fioRun struct {
	cmd *exec.Cmd
	out *strings.Builder
}

func startFio(t *testing.T, args ...string) *fioRun {
	t.Helper()
	path, err := exec.LookPath("fio")
	if err != nil {
		t.Skip("SKIP: fio is not installed")
	}
	f := &fioRun{exec.Command(path, append(args, "--name=x")...), new(strings.Builder)}
	f.cmd.Dir = t.TempDir()
	f.cmd.Stdout, f.cmd.Stderr = f.out, f.out
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.cmd.Process.Kill() })
	return f
}

// stop ends fio, which must not have seen an error.
func (f *fioRun) stop(t *testing.T) {
	t.Helper()
	f.cmd.Process.Signal(syscall.SIGINT)
	done := make(chan error, 1)
	go func() { done <- f.cmd.Wait() }()
	select {
	case err := <-done:
		t.Log("fio:", err)
	case <-time.After(time.Minute):
		t.Fatal("fio does not end")
	}
	if !strings.Contains(f.out.String(), "err= 0") {
		t.Errorf("fio:\n%s", f.out)
	}
	for line := range strings.Lines(f.out.String()) {
		if strings.Contains(line, "issued rwts") || strings.Contains(line, "WRITE:") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// TestKillWithAllTags: the daemon dies while it has all tags of every queue,
// which some kernels notice late.
func TestKillWithAllTags(t *testing.T) {
	b := backend(t)
	env := append(diskEnv(t, 16<<20), "UBLK_TEST_DEPTH=4")
	p := serve(t, append(env, "UBLK_TEST_HOLD=1")...)
	id, _ := strconv.Atoi(strings.TrimPrefix(p.path, "ublkb"))
	deadDevice(t, b)
	node := "/dev/" + p.path
	var writers sync.WaitGroup
	for w := range 32 {
		writers.Go(func() {
			f, err := open(node, unix.O_RDWR)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if _, err := f.WriteAt(alignedBuffer(4096), int64(w)*128<<10); err != nil {
				t.Errorf("writer %d: %v", w, err)
			}
		})
	}
	inflight := "/sys/block/" + p.path + "/inflight"
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
	p.kill()
	begin := time.Now()
	p = serve(t, append(env, fmt.Sprintf("UBLK_TEST_ID=%d", id))...)
	t.Logf("the device was back after %v", time.Since(begin))
	writers.Wait()
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("the writers went on after %v", d)
	}
	p.end()
	nothingLeft(t)
}

// TestQuiesced: a device waits, is listed, and is removed with its users' requests.
func TestQuiesced(t *testing.T) {
	b := backend(t)
	env := diskEnv(t, 16<<20)
	p := serve(t, env...)
	deadDevice(t, b)
	f, err := open("/dev/"+p.path, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
	failed := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(alignedBuffer(4096), 0)
		f.Close()
		failed <- err
	}()
	left := b.Quiesced()
	for end := time.Now().Add(5 * time.Second); len(left) == 0 && time.Now().Before(end); left = b.Quiesced() {
		time.Sleep(10 * time.Millisecond)
	}
	if len(left) != 1 || left[0].Path != p.path || left[0].Size != 16<<20 || !left[0].Of(recoverName) {
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
	env := diskEnv(t, 16<<20)
	p := serve(t, env...)
	id, _ := strconv.Atoi(strings.TrimPrefix(p.path, "ublkb"))
	deadDevice(t, b)
	p.kill()
	small, err := devicetest.NewDisk(devicetest.Geometry4M, 1<<20) // the host was told of 1 MiB
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if _, err := b.TakeBack(t.Context(), id, small, recoverName); err == nil || !strings.Contains(err.Error(), "larger arena") {
		t.Errorf("with too little memory: %v", err)
	}
	p = serve(t, append(env, fmt.Sprintf("UBLK_TEST_ID=%d", id))...)
	p.end()
	nothingLeft(t)
}
