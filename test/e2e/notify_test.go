package e2e

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServiceManager plays systemd: iscsid tells when it is ready, what it does, that
// it is alive and that it stops.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:notify"
	g, d := newTgtd(t), prepareDaemon(t)
	g.lun(g.target(name), 1, 8)
	manager, err := net.ListenPacket("unixgram", d.dir+"/notify")
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	d.env = []string{"NOTIFY_SOCKET=" + d.dir + "/notify", "WATCHDOG_USEC=600000"}
	d.launch()
	told := func(want string) {
		t.Helper()
		until(t, manager, want)
	}
	told("READY=1")
	told("STATUS=0 sessions, 0 connected; 0 disks")
	told("WATCHDOG=1")
	d.add(g.portal(), name)
	d.disk(name, 1)
	told("STATUS=1 session, 1 connected; 1 disk")
	told("WATCHDOG=1")
	g.crash()
	told("STATUS=1 session, 0 connected; 1 disk")
	// A process that does not run does not say that it is alive.
	d.signal(syscall.SIGSTOP)
	for quiet := false; !quiet; {
		_, quiet = hear(t, manager, 2*time.Second)
	}
	d.signal(syscall.SIGCONT)
	told("WATCHDOG=1")
	// Nothing waits long when the host goes down.
	d.signal(syscall.SIGUSR2)
	if out, err := tryQemuIO(t, d.disk(name, 1), "read 0 4096"); err == nil {
		t.Errorf("a read without a target has succeeded:\n%s", out)
	}
	d.signal(syscall.SIGTERM)
	told("STOPPING=1")
}

// until reads what iscsid tells until it tells that.
func until(t *testing.T, manager net.PacketConn, want string) {
	t.Helper()
	var all []string
	for begun := time.Now(); time.Since(begun) < patience; {
		text, quiet := hear(t, manager, patience)
		if quiet {
			break
		}
		if text == want {
			return
		}
		all = append(all, text)
	}
	t.Fatalf("not told %q, but %s", want, strings.Join(all, ", "))
}

// hear returns what comes next, or that nothing does in that time.
func hear(t *testing.T, manager net.PacketConn, limit time.Duration) (text string, quiet bool) {
	t.Helper()
	b := make([]byte, 512)
	_ = manager.SetReadDeadline(time.Now().Add(limit))
	n, _, err := manager.ReadFrom(b)
	return string(b[:n]), err != nil
}
