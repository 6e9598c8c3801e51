package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopTime is within which iscsid must have stopped: iscsid(8) says 15 seconds.
const stopTime = 15 * time.Second

// daemon is an iscsid of a test's own.
type daemon struct {
	*process
	t    *testing.T
	dir  string // the test's
	run  string // --run
	args []string
	env  []string // further environment
	// before are words before the program's own: a command that becomes it.
	before []string
	// died is what the log may say of an end that a test has brought about.
	died []string
}

// newDaemon starts iscsid with the back-end "socket", unless args name another,
// and stops it when the test ends: then it must go cleanly.
func newDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	d := prepareDaemon(t, args...)
	d.launch()
	return d
}

// prepareDaemon is newDaemon without the start.
func prepareDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	dir := newDir(t)
	d := &daemon{t: t, dir: dir, run: dir + "/run"}
	d.args = []string{"-d", "-P", dir + "/pid", "--run", d.run}
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "device=") }) {
		d.args = append(d.args, "-o", "device=socket")
	}
	d.args = append(d.args, args...)
	t.Cleanup(d.finish)
	return d
}

// newLoopDaemon starts iscsid for block devices.
func newLoopDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	d := prepareLoopDaemon(t, args...)
	d.launch()
	return d
}

// prepareLoopDaemon is newLoopDaemon without the start.
func prepareLoopDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	needRoot(t)
	for _, path := range []string{"/dev/fuse", "/dev/loop-control"} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Skipf("SKIP: needs %s: %v", path, err)
		}
		f.Close()
	}
	return prepareDaemon(t, append([]string{"-o", "device=loop"}, args...)...)
}

// in is the daemon for a subtest.
func (d *daemon) in(t *testing.T) *daemon {
	sub := *d
	sub.t = t
	return &sub
}

// launch starts the process and waits until it serves.
func (d *daemon) launch() {
	d.t.Helper()
	old, _ := os.ReadFile(d.dir + "/iscsid.log")
	before := strings.Count(string(old), "is ready at")
	command := slices.Concat(d.before, []string{program("iscsid")}, d.args)
	d.process = start(d.t, d.dir+"/iscsid.log", d.env, command[0], command[1:]...)
	eventually(d.t, "iscsid serves", func() bool {
		return strings.Count(d.output(), "is ready at") > before || !d.running()
	})
	if !d.running() {
		d.t.Fatalf("iscsid has ended:\n%s", d.output())
	}
}

// stop ends the daemon and checks that nothing is left of it.
func (d *daemon) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	status, ok := d.ended(stopTime + 2*time.Second)
	switch {
	case !ok:
		d.signal(syscall.SIGQUIT) // for the stacks of its goroutines
		d.ended(2 * time.Second)
		d.t.Errorf("iscsid has not stopped %v after SIGTERM", stopTime)
	case status != 0:
		d.t.Errorf("iscsid has ended with status %d", status)
	}
	d.nothingLeft()
}

// nothingLeft wants no socket, device, link or pid file of the daemon to be there. Its
// state may stay, for root alone.
func (d *daemon) nothingLeft() {
	d.t.Helper()
	_ = filepath.WalkDir(d.run, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil
		}
		info, err := entry.Info()
		if path != d.run+"/state/state" || err != nil || info.Mode() != 0o600 {
			d.t.Errorf("%s was left behind (%v)", path, entry)
		}
		return nil
	})
	for _, path := range append(mounts(d.dir), loops(d.dir)...) {
		d.t.Errorf("%s was left behind", path)
	}
	if _, err := os.Lstat(d.dir + "/pid"); err == nil {
		d.t.Errorf("the pid file was left behind")
	}
}

// finish is the end of a test.
func (d *daemon) finish() {
	if d.process == nil {
		return
	}
	if d.running() {
		d.stop()
	}
	d.kill()
	said := d.output()
	for _, text := range d.died {
		said = strings.ReplaceAll(said, text, "")
	}
	for _, text := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(said, text) {
			d.t.Errorf("iscsid is broken: %s", text)
		}
	}
	if d.t.Failed() {
		d.t.Logf("log of iscsid:\n%s", tail(d.output(), 100))
	}
}

// tail returns the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// result is what became of an iscsictl.
type result struct {
	stdout, stderr string
	status         int
}

// ctl runs iscsictl.
func (d *daemon) ctl(args ...string) result {
	d.t.Helper()
	return iscsictl(d.t, append([]string{"--socket", d.run + "/control.sock"}, args...)...)
}

// iscsictl runs iscsictl with just these arguments.
func iscsictl(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(program("iscsictl"), args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("iscsictl %q does not end", args)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok runs an iscsictl that must succeed and complain of nothing.
func (d *daemon) ok(args ...string) string {
	d.t.Helper()
	r := d.ctl(args...)
	if r.status != 0 || r.stderr != "" {
		d.t.Fatalf("iscsictl %q: status %d\n%s%s", args, r.status, r.stdout, r.stderr)
	}
	return r.stdout
}

// refused runs an iscsictl that must fail with status 1 and say why.
func (d *daemon) refused(why string, args ...string) {
	d.t.Helper()
	r := d.ctl(args...)
	if r.status != 1 || !strings.HasPrefix(r.stderr, "iscsictl: ") || !strings.Contains(r.stderr, why) {
		d.t.Errorf("iscsictl %q: status %d and %q, want 1 and %q", args, r.status, r.stderr, why)
	}
}

// session is what iscsictl -L -v tells of a session, under its names.
type session struct {
	ID        uint32 `json:"sessionId"`
	Initiator struct{ Name, Portal, Alias string }
	Target    struct{ Name, Portal, Alias string }
	Auth      struct{ User, Secret, MutualUser, MutualSecret string }

	Type, Enable, State      string
	FailureReason            string
	HeaderDigest, DataDigest string
	MaxBurstLen              int
	FirstBurstLen            int
	RecvDataSegmentLen       int
	SendDataSegmentLen       int
	ImmediateData            string
	ConfiguredPortal         string

	Devices struct {
		LUN []struct {
			LUN    int
			Device string
		}
	}
	Disk []struct {
		LUN                   int
		Device, Backend, Note string
	}
	Note []struct{ Text string }

	Requests, BytesRead, BytesWritten uint64
	Errors, Reconnections             uint64
	LastFailure                       string
}

// sessions lists the sessions.
func (d *daemon) sessions() []session {
	d.t.Helper()
	text := d.ok("--libxo=json", "-L", "-v")
	var list struct {
		Iscsictl struct{ Session []session }
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		d.t.Fatalf("iscsictl --libxo=json -L -v: %v\n%s", err, text)
	}
	return list.Iscsictl.Session
}

// session returns the session to a target; an empty one where there is none.
func (d *daemon) session(target string) session {
	d.t.Helper()
	for _, s := range d.sessions() {
		if s.Target.Name == target {
			return s
		}
	}
	return session{}
}

// until waits until something is true of a session, and returns it.
func (d *daemon) until(target, what string, holds func(session) bool) (s session) {
	d.t.Helper()
	if !within(patience, func() bool { s = d.session(target); return holds(s) }) {
		d.t.Fatalf("session to %s: %s: not within %v\n%s", target, what, patience, d.ok("-L", "-v"))
	}
	return s
}

// connected waits until a session is up.
func (d *daemon) connected(target string) session {
	d.t.Helper()
	return d.until(target, "connected", func(s session) bool { return s.State == "Connected" })
}

// failing waits until a session has a reason for not being up.
func (d *daemon) failing(target, reason string) session {
	d.t.Helper()
	return d.until(target, "failure reason "+reason, func(s session) bool { return s.FailureReason == reason })
}

// disk waits until a logical unit has a device, and returns its path.
func (d *daemon) disk(target string, lun int) (path string) {
	d.t.Helper()
	d.until(target, fmt.Sprintf("LUN %d has a device", lun), func(s session) bool {
		path = s.disk(lun)
		return path != ""
	})
	return path
}

// disk returns the path of a logical unit's device, or "".
func (s session) disk(lun int) string {
	for _, unit := range s.Devices.LUN {
		switch {
		case unit.LUN != lun:
		case strings.HasPrefix(unit.Device, "/"):
			return unit.Device
		default:
			return "/dev/" + unit.Device
		}
	}
	return ""
}

// add adds a session and waits until it is up.
func (d *daemon) add(portal, target string) session {
	d.t.Helper()
	d.ok("-A", "-p", portal, "-t", target, "-w", "30")
	return d.connected(target)
}

// conf writes an iscsi.conf and returns its path.
func (d *daemon) conf(text string) string {
	d.t.Helper()
	return writeFile(d.t, d.dir+"/iscsi.conf", text)
}
