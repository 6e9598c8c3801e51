package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen soon. It is long:
// machines that test may be busy, and only a failing test waits for all of it.
const patience = 2 * time.Minute

// poll is how often a test looks.
const poll = 20 * time.Millisecond

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !within(patience, holds) {
		t.Fatalf("%s: not within %v", what, patience)
	}
}

// within tells whether a condition holds before the time is over.
func within(limit time.Duration, holds func() bool) bool {
	for begun := time.Now(); !holds(); time.Sleep(poll) {
		if time.Since(begun) > limit {
			return false
		}
	}
	return true
}

// soak tells whether the loads are to be big.
func soak() bool { return os.Getenv("SOAKTIME") != "" }

// load is a number of MiB: that of a soak test where it is one.
func load(mib, soaked int) int {
	if soak() {
		return soaked
	}
	return mib
}

// needRoot skips a test that changes the machine.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIP: needs root")
	}
}

// tool returns the path of somebody else's program.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIP: %s is missing; needs package %s", name, pkg)
	}
	return path
}

// must runs a program that must succeed, and returns what it wrote.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := attempt(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// attempt runs a program and returns what it wrote, and how it failed.
func attempt(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done after %v", 4*patience)
	}
	return string(out), err
}

// process is a program that was started and runs beside the test.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // path of what it writes
	done chan struct{} // closed when it has ended
}

// job starts a program that ends with the test, at the latest.
func job(t *testing.T, log, name string, args ...string) *process {
	t.Helper()
	p := start(t, log, nil, name, args...)
	t.Cleanup(p.kill)
	return p
}

// start starts a program that the caller ends.
func start(t *testing.T, log string, env []string, name string, args ...string) *process {
	t.Helper()
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := &process{name: name, log: log, done: make(chan struct{})}
	p.cmd = exec.Command(name, args...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.Env = append(os.Environ(), env...)
	// It ends with the thread that starts it, so that none of ours may end before.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p
}

// running tells whether it has not ended yet.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends a signal, where the process is still there to get it.
func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// kill ends it for certain, with the processes that it has made.
func (p *process) kill() {
	if p.running() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	<-p.done
}

// ended waits for the end and returns the exit status; false when it does not end.
func (p *process) ended(limit time.Duration) (status int, ok bool) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), true
	case <-time.After(limit):
		return 0, false
	}
}

// output is what it has written so far.
func (p *process) output() string {
	text, _ := os.ReadFile(p.log)
	return string(text)
}

// says tells whether it has written a text.
func (p *process) says(text string) bool { return strings.Contains(p.output(), text) }

// newPort finds a TCP port that is free on the loopback interface. It is none of
// those that the kernel gives to outgoing connections: one of them, made while the
// target is away, could take the port, or even connect to itself.
func newPort(t *testing.T, host string) int {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(20000)
		l, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("no TCP port is free")
	return 0
}

// writeFile writes a file of a test.
func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newImage makes a file of random bytes.
func newImage(t *testing.T, path string, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16), 7})
	_, _ = r.Read(data)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return data
}

// wantSame compares a file with what it must contain.
func wantSame(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Errorf("%s has %d bytes and differs at %d from the %d that it should have", path, len(got), at, len(want))
	}
}
