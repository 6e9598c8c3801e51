package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fails runs an iscsid that must not start, and returns what it says.
func fails(t *testing.T, args ...string) string {
	t.Helper()
	out, err := attempt(program("iscsid"), args...)
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 {
		t.Errorf("iscsid %q: %v, want status 1\n%s", args, err, out)
	}
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "iscsid: ") && !strings.HasPrefix(line, "usage: ") {
			t.Errorf("iscsid %q says %q", args, line)
		}
	}
	return out
}

// TestSecondDaemon starts iscsid where another one runs.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	pid := d.cmd.Process.Pid
	if text, _ := os.ReadFile(d.dir + "/pid"); string(text) != fmt.Sprintln(pid) {
		t.Errorf("the pid file has %q, want %d", text, pid)
	}
	if info, err := os.Stat(d.dir + "/pid"); err != nil || info.Mode() != 0o600 {
		t.Errorf("the pid file: %v, %v", info.Mode(), err)
	}
	want := fmt.Sprintf("iscsid: daemon already running, pid: %d.\n", pid)
	for _, extra := range [][]string{nil, {"-d"}, {"--run", newDir(t) + "/run"}} {
		args := append([]string{"-P", d.dir + "/pid", "--run", d.run}, extra...)
		if got := fails(t, args...); got != want {
			t.Errorf("iscsid %q says %q, want %q", args, got, want)
		}
	}
	// With a pid file of its own it would take the socket.
	if got := fails(t, "-d", "-P", d.dir+"/pid2", "--run", d.run); !strings.Contains(got, d.run+"/control.sock") {
		t.Errorf("iscsid with the socket of another: %q", got)
	}
	if _, err := os.Stat(d.dir + "/pid2"); err == nil {
		t.Error("an iscsid that has not started has left a pid file")
	}
	d.ok("-L")
}

// TestKilledDaemonsFiles starts iscsid where one was killed.
func TestKilledDaemonsFiles(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:left"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	g.lun(tid, 1, 4)
	s := d.add(g.portal(), name)
	d.disk(name, 1)
	d.kill()
	for _, path := range []string{d.dir + "/pid", d.run + "/control.sock", d.run + "/nbd/1-1.sock"} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%v: is the test still good?", err)
		}
	}
	r := d.ctl("-L")
	if r.status != 1 || !strings.Contains(r.stderr, "iscsid is not running") {
		t.Errorf("iscsictl at a dead socket: %+v", r)
	}
	d.launch()
	// Its session comes back.
	if again := d.connected(name); again.ID != s.ID {
		t.Errorf("the session %d has come back as %d", s.ID, again.ID)
	}
	qemuIO(t, d.disk(name, 1), "write -P 1 0 4096", "read -P 1 0 4096")
	// What was stopped and not killed, has nothing to come back; ids are not used again.
	d.stop()
	d.launch()
	if list := d.sessions(); len(list) != 0 {
		t.Errorf("sessions after a stop: %+v", list)
	}
	if again := d.add(g.portal(), name); again.ID <= s.ID {
		t.Errorf("the session-id %d comes after %d", again.ID, s.ID)
	}
}

// TestOccupiedSocket starts iscsid where something is that is not a socket.
func TestOccupiedSocket(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	writeFile(t, dir+"/control.sock", "precious")
	got := fails(t, "-d", "-P", dir+"/pid", "--run", dir)
	if !strings.Contains(got, dir+"/control.sock") || !strings.Contains(got, "not a socket") {
		t.Errorf("iscsid says %q", got)
	}
	if text, _ := os.ReadFile(dir + "/control.sock"); string(text) != "precious" {
		t.Error("the file was lost")
	}
	if _, err := os.Stat(dir + "/pid"); err == nil {
		t.Error("the pid file was left behind")
	}
	long := dir + "/" + strings.Repeat("x", 100)
	if got := fails(t, "-d", "-P", dir+"/pid", "--run", long); !strings.Contains(got, "longer than 107 bytes") {
		t.Errorf("a long path: %q", got)
	}
}

// TestOptions starts iscsid with options that make no sense, and asks it for help.
func TestOptions(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-l", "x"}, "-l x: not a number"},
		{[]string{"-m", "-1"}, "cannot be negative"},
		{[]string{"-t", "99999999999999999999"}, "greater than"},
		{[]string{"-t5x"}, "not a number"},
		{[]string{"-o", "x"}, "want NAME=VALUE"},
		{[]string{"-o", "kern.iscsi.nope=1"}, "kern.iscsi.nope"},
		{[]string{"-o", "kern.iscsi.ping_timeout=soon"}, "must be a number from 0"},
		{[]string{"-o", "kern.iscsi.login_timeout=0"}, "must be a number from 1"},
		{[]string{"-o", "kern.iscsi.maxtags=1000000"}, "to 4096"},
		{[]string{"-o", "device=floppy"}, "floppy"},
		{[]string{"operand"}, "operand"},
		{[]string{"-x"}, "x"},
		{[]string{"-P"}, "-P"},
		{[]string{"--nonsense"}, "nonsense"},
	} {
		args := append([]string{"-d", "--run", dir + "/run", "-P", dir + "/pid"}, c.args...)
		if got := fails(t, args...); !strings.Contains(got, c.want) {
			t.Errorf("iscsid %q says %q, want %q", c.args, got, c.want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("a start that failed has left %v", entries)
	}
	if out := must(t, program("iscsid"), "--help"); !strings.HasPrefix(out, "usage: iscsid ") {
		t.Errorf("--help: %q", out)
	}
	if out := must(t, program("iscsid"), "--version"); !strings.HasPrefix(out, "iscsid ") {
		t.Errorf("--version: %q", out)
	}
}

// TestTunables shows and sets tunables at run time.
func TestTunables(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "-o", "kern.iscsi.ping_timeout=7")
	if got := d.ok("--sysctl", "kern.iscsi.ping_timeout"); got != "kern.iscsi.ping_timeout: 7\n" {
		t.Errorf("the tunable of the command line: %q", got)
	}
	if got := d.ok("--sysctl", "kern.iscsi.ping_timeout=9"); got != "kern.iscsi.ping_timeout: 7 -> 9\n" {
		t.Errorf("setting it: %q", got)
	}
	all := d.ok("--sysctl")
	for _, want := range []string{"kern.iscsi.ping_timeout: 9\n", "kern.iscsi.debug: 1\n", "kern.iscsi.maxtags: 255\n", "kern.iser.debug: 0\n"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in\n%s", want, all)
		}
	}
	d.refused("kern.iscsi.nope", "--sysctl", "kern.iscsi.nope")
	d.refused("must be a number", "--sysctl", "kern.iscsi.ping_timeout=never")
	if got := d.ok("--sysctl", "kern.iscsi.ping_timeout"); got != "kern.iscsi.ping_timeout: 9\n" {
		t.Errorf("after a refused value: %q", got)
	}
}

// TestStop stops iscsid in all states of its sessions. newDaemon checks that it goes
// cleanly; here it is about the time.
func TestStop(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:stops"
	for what, c := range map[string]struct {
		signal os.Signal
		upset  func(*tgtd)
		limit  time.Duration
	}{
		"target up": {syscall.SIGTERM, func(*tgtd) {}, 3 * time.Second},
		"interrupt": {syscall.SIGINT, func(*tgtd) {}, 3 * time.Second},
		// A disk's last writes may have to wait for a connection that will not come.
		"target gone":    {syscall.SIGTERM, (*tgtd).crash, 6 * time.Second},
		"target silent":  {syscall.SIGTERM, (*tgtd).pause, stopTime},
		"without a disk": {syscall.SIGTERM, nil, 3 * time.Second},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g, d := newTgtd(t), newDaemon(t)
			if c.upset != nil {
				tid := g.target(name)
				g.lun(tid, 1, 4)
				d.add(g.portal(), name)
				d.disk(name, 1)
				c.upset(g)
			}
			begun := time.Now()
			d.signal(c.signal)
			status, ok := d.ended(stopTime + 2*time.Second)
			if !ok || status != 0 {
				t.Fatalf("ended %v, status %d", ok, status)
			}
			if took := time.Since(begun); took > c.limit+time.Second {
				t.Errorf("stopped after %v", took)
			}
			d.nothingLeft()
			if !d.says("iscsid: stopped\n") {
				t.Error("the log does not say that it has stopped")
			}
		})
	}
}

// TestStopUnderIO stops iscsid while fio writes. fio's engine would wait for ever for
// a disk that has gone, so nothing is asked of it.
func TestStopUnderIO(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:busy"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	g.lun(tid, 1, 64)
	d.add(g.portal(), name)
	startFio(t, d.dir, d.disk(name, 1), "--bs=16k", "--size=64M", "--iodepth=16", "--rate=4M")
	d.until(name, "I/O", func(s session) bool { return s.BytesWritten > 1<<20 })
	d.stop()
}

// TestPidFile starts iscsid where its pid file cannot be made.
func TestPidFile(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	for path, want := range map[string]string{
		dir + "/missing/pid": "no such file or directory",
		dir:                  "is a directory",
	} {
		got := fails(t, "-d", "-P", path, "--run", dir+"/run")
		if !strings.Contains(got, fmt.Sprintf("cannot open or create pidfile %q: %s", path, want)) {
			t.Errorf("-P %s: %q", path, got)
		}
		// Also where it becomes a daemon: the command tells.
		got = fails(t, "-P", path, "--run", dir+"/run")
		if !strings.Contains(got, "cannot open or create pidfile") {
			t.Errorf("-P %s without -d: %q", path, got)
		}
	}
	if _, err := os.Stat(dir + "/run"); err == nil {
		t.Error("the run directory was made although the pid file comes first")
	}
}

// TestFullDisk starts iscsid on file systems that are full.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := newDir(t)
	full := dir + "/full"
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := attempt("mount", "-t", "tmpfs", "-o", "size=64k", "none", full); err != nil {
		t.Skipf("SKIP: needs to mount a tmpfs: %v\n%s", err, out)
	}
	t.Cleanup(func() { must(t, "umount", full) })
	_ = os.WriteFile(full+"/filler", make([]byte, 1<<20), 0o600)
	got := fails(t, "-d", "-P", full+"/pid", "--run", dir+"/run")
	if !strings.Contains(got, "no space left on device") || !strings.Contains(got, full+"/pid") {
		t.Errorf("iscsid says %q", got)
	}
	if _, err := os.Stat(full + "/pid"); err == nil {
		t.Error("the pid file was left behind")
	}
	if _, err := os.Stat(dir + "/run/control.sock"); err == nil {
		t.Error("the socket was left behind")
	}
	// Where the state finds no room, sessions work all the same, and it is said.
	d := newDaemon(t, "--state", full)
	d.ok("-A", "-p", "127.0.0.1:1", "-t", "iqn.2026-11.example:full")
	eventually(t, "the log tells of the full disk", func() bool { return d.says("no space left on device") })
	d.ok("-R", "-a")
}

// TestDamagedState starts iscsid with a state that it cannot read.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.ok("-A", "-p", "127.0.0.1:1", "-t", "iqn.2026-11.example:damaged")
	path := d.run + "/state/state"
	eventually(t, "the state is saved", func() bool {
		text, _ := os.ReadFile(path)
		return strings.Contains(string(text), "iqn.2026-11.example:damaged")
	})
	d.kill()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(text[:len(text)-10]))
	d.launch()
	if list := d.sessions(); len(list) != 0 {
		t.Errorf("sessions of a damaged state: %+v", list)
	}
	kept, _ := filepath.Glob(path + ".damaged-*")
	if len(kept) != 1 || !d.says(kept[0]) {
		t.Errorf("the damaged state is kept as %q, and the log does not say so", kept)
	}
	for _, name := range kept {
		os.Remove(name)
	}
}

// TestControlSocket lets strangers try to talk to iscsid.
func TestControlSocket(t *testing.T) {
	t.Parallel()
	needRoot(t)
	d := newDaemon(t)
	sock := d.run + "/control.sock"
	info, err := os.Stat(sock)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	// A stranger who comes to the socket: first its mode keeps them away, and where
	// that is opened, iscsid itself.
	for _, dir := range []string{base, d.dir, d.run, base + "/bin"} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	stranger := func() string {
		cmd := exec.Command(program("iscsictl"), "--socket", sock, "-L")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("a stranger was served: %s", out)
		}
		return string(out)
	}
	if out := stranger(); !strings.Contains(out, "Permission denied") {
		t.Errorf("a stranger is told %q", out)
	}
	if err := os.Chmod(sock, 0o666); err != nil {
		t.Fatal(err)
	}
	if out := stranger(); !strings.Contains(strings.ToLower(out), "permission denied") && !strings.Contains(strings.ToLower(out), "not permitted") {
		t.Errorf("a stranger at an open socket is told %q", out)
	}
	d.ok("-L")
	nonsense(t, d, sock)
}

// nonsense says things to the control socket that are no requests.
func nonsense(t *testing.T, d *daemon, sock string) {
	t.Helper()
	for _, text := range []string{"\n", "{", "{}\n", "null\n", strings.Repeat("[", 100_000) + "\n", strings.Repeat("x", 4<<20), "GET / HTTP/1.1\r\n\r\n", "\x00\xff\n"} {
		c, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = c.Write([]byte(text))
		defer c.Close() // and says nothing more
	}
	d.ok("-L")
}

// TestStopWhileAdding has iscsid ended in the middle of many additions.
func TestStopWhileAdding(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "-o", "kern.iscsi.arena_size=4m")
	dead := fmt.Sprintf("127.0.0.1:%d", newPort(t, "127.0.0.1"))
	var conf strings.Builder
	for i := range 200 {
		fmt.Fprintf(&conf, "n%d {\n TargetAddress = %s\n TargetName = iqn.2026-11.example:n%d\n}\n", i, dead, i)
	}
	adding := job(t, d.dir+"/iscsictl.log", program("iscsictl"), "--socket", d.run+"/control.sock", "-A", "-a", "-c", d.conf(conf.String()))
	eventually(t, "some are added", func() bool { return d.says("n3)") || !adding.running() })
	d.stop()
	if _, ok := adding.ended(patience); !ok {
		t.Error("iscsictl hangs")
	}
}
