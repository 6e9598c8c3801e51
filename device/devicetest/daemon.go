package devicetest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
)

// sharedDisk is a disk in a file that several processes can map, one after the
// other. Like a target's it keeps what was written when a daemon dies.
type sharedDisk struct {
	arena *arena.Arena
	mem   []byte
	geo   device.Geometry
	hold  atomic.Bool // no request is ever done
	in    chan *device.Request
}

// newSharedDisk makes one of a file.
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
	d := &sharedDisk{geo: Geometry4M, in: make(chan *device.Request, 4096)}
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

// Geometry is device.Disk's.
func (d *sharedDisk) Geometry() device.Geometry { return d.geo }

// Arena is device.Disk's.
func (d *sharedDisk) Arena() *arena.Arena { return d.arena }

// Submit is device.Disk's.
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

// DaemonName is what a Daemon's device has in its back-end.
var DaemonName = device.Name{Session: 1, LUN: 2, Target: "iqn.2012-06.example:recover"}

// Environment of a Daemon.
const (
	diskVariable = "DEVICE_TEST_DISK"
	sizeVariable = "DEVICE_TEST_SIZE"
	leftVariable = "DEVICE_TEST_LEFT"
	// HoldVariable has a daemon never finish a request.
	HoldVariable = "DEVICE_TEST_HOLD=1"
)

// DaemonEnv is the environment of daemons that serve one disk of that size, one
// after the other.
func DaemonEnv(t *testing.T, size int64) []string {
	return []string{diskVariable + "=" + filepath.Join(t.TempDir(), "disk"), fmt.Sprintf("%s=%d", sizeVariable, size)}
}

// LeftVariable has a daemon take back the device of a path.
func LeftVariable(path string) string { return leftVariable + "=" + path }

// Daemon is the process that tests kill: in another process than these it
// attaches a disk, or takes back the device left, and serves it until its
// standard input ends. It is called by TestDaemon.
func Daemon(t *testing.T, attach func(ctx context.Context, disk device.Disk, left string) (device.Device, error)) {
	path := os.Getenv(diskVariable)
	if path == "" {
		t.Skip("SKIP: this is the daemon of other tests")
	}
	size, err := strconv.ParseInt(os.Getenv(sizeVariable), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	disk := newSharedDisk(t, path, size)
	name, value, _ := strings.Cut(HoldVariable, "=")
	hold, left := os.Getenv(name) == value, os.Getenv(leftVariable)
	disk.hold.Store(hold && left != "") // a new device is looked at by the kernel
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dev, err := attach(ctx, disk, left)
	if err != nil {
		fmt.Println(err)
		return
	}
	disk.hold.Store(hold)
	fmt.Printf("serving %s\n", dev.Path())
	os.Stdin.Read(make([]byte, 1))
	if err := dev.Detach(); err != nil {
		t.Error(err)
	}
}

// Process is a running daemon.
type Process struct {
	cmd  *exec.Cmd
	Path string // "ublkb0"
	End  func() // has it end in an orderly way
	Kill func() // has it end as a crash would
}

// Serve starts a daemon, which is TestDaemon of the same package with these
// variables, and returns when that says that it is "serving" a path.
func Serve(t *testing.T, env ...string) *Process {
	t.Helper()
	p := &Process{cmd: exec.Command(os.Args[0], "-test.run=^TestDaemon$", "-test.timeout=5m")}
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
	p.Kill = func() { once.Do(func() { p.cmd.Process.Kill(); p.cmd.Wait() }) }
	p.End = func() { once.Do(func() { in.Close(); p.cmd.Wait() }) }
	t.Cleanup(p.Kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	path, ok := strings.CutPrefix(strings.TrimSpace(line), "serving ")
	if err != nil || !ok {
		t.Fatalf("the daemon said %q, %v", line, err)
	}
	p.Path = path
	return p
}

// AwaitWrites waits until so many more writes to a device have completed.
func AwaitWrites(t *testing.T, path string, n int) {
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

// FioRun is an fio that runs.
type FioRun struct {
	cmd *exec.Cmd
	out *strings.Builder
}

// StartFio starts one.
func StartFio(t *testing.T, args ...string) *FioRun {
	t.Helper()
	path, err := exec.LookPath("fio")
	if err != nil {
		t.Skip("SKIP: fio is not installed")
	}
	f := &FioRun{exec.Command(path, append(args, "--name=x")...), new(strings.Builder)}
	f.cmd.Dir = t.TempDir()
	f.cmd.Stdout, f.cmd.Stderr = f.out, f.out
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.cmd.Process.Kill() })
	return f
}

// Stop ends fio, which must not have seen an error.
func (f *FioRun) Stop(t *testing.T) {
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

// RunProgram runs a program in a directory of the test's, or skips the test where it
// is not installed.
func RunProgram(t testing.TB, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("SKIP: %s is not installed", program)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// StartProgram starts a program with a file as its standard input.
func StartProgram(program, arg, input string) (*exec.Cmd, error) {
	f, err := os.Open(input)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(program, arg)
	cmd.Stdin = f
	return cmd, cmd.Start()
}

// MountFS mounts a device's file system for the time of the test.
func MountFS(t *testing.T, node, kind string) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount(node, dir, kind, 0, ""); err != nil {
		t.Skipf("SKIP: mounting %s: %v", kind, err)
	}
	done := false
	unmount = func() {
		if !done {
			done = true
			if err := unix.Unmount(dir, 0); err != nil {
				t.Errorf("unmounting %s: %v", dir, err)
			}
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

// KillUnderFio kills a daemon again and again under fio, on the device and on a
// file of a file system on it: nobody sees an error, nor a wrong byte. How often
// is the variable's, or 10 times.
func KillUnderFio(t *testing.T, variable string) {
	kills, err := strconv.Atoi(os.Getenv(variable))
	if err != nil {
		kills = 10
	}
	for _, mounted := range []bool{false, true} {
		t.Run(map[bool]string{false: "device", true: "file"}[mounted], func(t *testing.T) {
			env := DaemonEnv(t, 128<<20)
			p := Serve(t, env...)
			file := "/dev/" + p.Path
			var unmount func()
			if mounted {
				RunProgram(t, "mkfs.ext4", "-q", "-F", "/dev/"+p.Path)
				exec.Command("modprobe", "ext4").Run()
				var dir string
				dir, unmount = MountFS(t, "/dev/"+p.Path, "ext4")
				file = dir + "/file"
			}
			fio := StartFio(t, "--filename="+file, "--size=64M", "--rw=randwrite", "--bsrange=512-128k", "--iodepth=64", "--ioengine=libaio",
				"--direct=1", "--time_based", "--runtime=600", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256", "--randseed=7")
			var slowest time.Duration
			for i := range kills {
				AwaitWrites(t, p.Path, 64)
				time.Sleep(time.Duration(i*37%100) * time.Millisecond)
				p.Kill()
				begin := time.Now()
				p = Serve(t, append(env, LeftVariable(p.Path))...)
				slowest = max(slowest, time.Since(begin))
			}
			t.Logf("%d kills; the slowest way back took %v, with the start of the process", kills, slowest)
			AwaitWrites(t, p.Path, 64)
			fio.Stop(t)
			if mounted {
				unmount()
				RunProgram(t, "e2fsck", "-f", "-n", "/dev/"+p.Path)
			}
			p.End()
		})
	}
}
