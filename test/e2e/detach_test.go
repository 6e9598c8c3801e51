package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDetach lets iscsid become a daemon. It logs to syslog, so the test plays that, in
// a mount namespace where nobody else is disturbed.
func TestDetach(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := newDir(t)
	args := []string{"-P", dir + "/pid", "--run", dir + "/run", "-o", "device=socket"}
	// Where there is no syslog, as in most containers, the start fails and says so.
	out, err := alone(t, dir, args...).CombinedOutput()
	if strings.Contains(string(out), "unshare") {
		t.Skipf("SKIP: needs a mount namespace: %s", out)
	}
	if err == nil || !strings.HasPrefix(string(out), "iscsid: no syslog: ") || !strings.Contains(string(out), "-d") {
		t.Errorf("without syslog: %v, %q", err, out)
	}
	if _, err := os.Stat(dir + "/pid"); err == nil {
		t.Error("the pid file was left behind")
	}

	syslog, err := net.ListenPacket("unixgram", dir+"/var/log")
	if err != nil {
		t.Fatal(err)
	}
	defer syslog.Close()
	begun := time.Now()
	if out, err := alone(t, dir, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("iscsid: %v, %q", err, out)
	}
	if took := time.Since(begun); took > patience {
		t.Errorf("the start has taken %v", took)
	}
	text, err := os.ReadFile(dir + "/pid")
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		t.Fatalf("the pid file has %q, %v", text, err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	if r := iscsictl(t, "--socket", dir+"/run/control.sock", "-L"); r.status != 0 {
		t.Errorf("iscsictl: %+v", r)
	}
	wantDetached(t, pid)
	wantSyslog(t, syslog, fmt.Sprintf("iscsid[%d]: ", pid), "is ready at")
	if got := fails(t, args...); got != fmt.Sprintf("iscsid: daemon already running, pid: %d.\n", pid) {
		t.Errorf("a second one says %q", got)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stops", func() bool {
		_, err := os.Stat(dir + "/pid")
		return os.IsNotExist(err)
	})
	wantSyslog(t, syslog, "iscsid", "stopped")
	eventually(t, "the process has ended", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// alone is an iscsid with a /run of its own, and no /dev/log, in which syslog(3) finds
// what is listening at log below dir/var.
func alone(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	const script = `mount --bind "$1/var" /run && if [ -e /dev/log ]; then mount --bind "$1/dev" /dev; fi && shift && exec "$@"`
	for _, sub := range []string{"/var", "/dev"} {
		if err := os.MkdirAll(dir+sub, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"--mount", "--propagation", "private", "sh", "-c", script, "sh", dir, program("iscsid")}
	return exec.Command(tool(t, "unshare", "util-linux"), append(all, args...)...)
}

// wantDetached wants a process to be away from where it was started: in a session of
// its own, and with nothing held open.
func wantDetached(t *testing.T, pid int) {
	t.Helper()
	if sid, _, _ := syscall.RawSyscall(syscall.SYS_GETSID, uintptr(pid), 0, 0); int(sid) != pid {
		t.Errorf("process %d is in the session %d", pid, sid)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
		t.Errorf("its directory is %q, %v", cwd, err)
	}
	for fd := range 3 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || to != "/dev/null" {
			t.Errorf("descriptor %d is %q, %v", fd, to, err)
		}
	}
}

// wantSyslog reads what is sent to syslog until a line has two texts: facility daemon,
// any priority.
func wantSyslog(t *testing.T, syslog net.PacketConn, tag, text string) {
	t.Helper()
	_ = syslog.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	for {
		n, _, err := syslog.ReadFrom(buf)
		if err != nil {
			t.Fatalf("%q does not come: %v", text, err)
		}
		line := string(buf[:n])
		if !strings.HasPrefix(line, "<3") && !strings.HasPrefix(line, "<2") {
			t.Errorf("facility daemon is 24 to 31, not that of %q", line)
		}
		if strings.Contains(line, tag) && strings.Contains(line, text) {
			return
		}
	}
}
