package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// listen opens a port for a server of the test's own.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// server handles each connection that comes to a port, and counts them.
type server struct {
	portal   string
	accepted atomic.Int32
}

func newHandler(t *testing.T, handle func(net.Conn)) *server {
	t.Helper()
	l := listen(t)
	s := &server{portal: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(2 * patience))
				handle(conn)
			}()
		}
	}()
	return s
}

// TestOtherServices points sessions at portals that speak something else, or nothing.
func TestOtherServices(t *testing.T) {
	t.Parallel()
	says := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, text)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	answers := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, text)
		}
	}
	d := newDaemon(t, "-t", "3", "-o", "kern.iscsi.login_timeout=2", "-o", "kern.iscsi.arena_size=4m")
	services := map[string]func(net.Conn){
		"ssh":              says("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"),
		"smtp":             says("220 mail.example ESMTP\r\n"),
		"http":             answers("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nBad Request"),
		"zeroes":           answers(strings.Repeat("\x00", 1<<16)),
		"ones":             answers(strings.Repeat("\xff", 1<<16)),
		"garbage":          answers(strings.Repeat("\x23\xde\xad\xbe\xef\x01", 1<<14)),
		"silence":          says(""),
		"closes":           func(net.Conn) {},
		"closes when told": func(c net.Conn) { _, _ = c.Read(make([]byte, 48)) },
		"half a header":    answers("\x23\x80\x00\x00\x00\x00\x00\x00"),
		"echo":             func(c net.Conn) { _, _ = io.Copy(c, c) },
		"one byte a time": func(c net.Conn) {
			for {
				if _, err := c.Write([]byte{0x23}); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		},
	}
	for name, handle := range services {
		s := newHandler(t, handle)
		r := d.ctl("--discover", s.portal)
		if r.status != 1 || r.stdout != "" || !strings.HasPrefix(r.stderr, "iscsictl: ") || !strings.Contains(r.stderr, s.portal) {
			t.Errorf("%s: --discover: %+v", name, r)
		}
	}
	wantRepelled(t, d, services)
}

// TestNoPortal uses portals that are not there.
func TestNoPortal(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:no-portal"
	d := newDaemon(t)
	for _, c := range []struct{ portal, reason string }{
		{fmt.Sprintf("127.0.0.1:%d", newPort(t, "127.0.0.1")), "onnection refused"},
		{"no-such-host.invalid", "no-such-host.invalid"},
	} {
		d.ok("-A", "-p", c.portal, "-t", name)
		s := d.until(name, "a reason", func(s session) bool { return s.FailureReason != "" && s.LastFailure != "" })
		if !strings.Contains(s.FailureReason, c.reason) {
			t.Errorf("the reason is %q, want %q", s.FailureReason, c.reason)
		}
		r := d.ctl("-L", "-w", "1")
		if r.status != 1 || !strings.Contains(r.stderr, "timed out after 1") || !strings.Contains(r.stderr, c.reason) {
			t.Errorf("iscsictl -L -w 1: %+v", r)
		}
		d.ok("-R", "-p", c.portal)
	}
	// As with FreeBSD, a session is made of them, which says what is wrong.
	for _, portal := range []string{"127.0.0.1:99999", "127.0.0.1:http", "[::1", "a b"} {
		if r := d.ctl("-A", "-p", portal, "-t", name); !strings.Contains(r.stderr, "malformed address") {
			t.Errorf("the portal %q: %+v", portal, r)
		}
		d.failing(name, "malformed address")
		d.ok("-R", "-p", portal)
	}
	if r := d.ctl("-A", "-p", "", "-t", name); r.status != 1 || r.stderr == "" {
		t.Errorf("an empty portal: %+v", r)
	}
	for _, target := range []string{"", "iqn.2026-11.example:" + strings.Repeat("x", 204)} {
		if r := d.ctl("-A", "-p", "127.0.0.1", "-t", target); r.status != 1 || r.stderr == "" {
			t.Errorf("the target %q: %+v", target, r)
		}
	}
	if list := d.sessions(); len(list) != 0 {
		t.Errorf("sessions were made of nonsense: %+v", list)
	}
}

// TestInitiatorAddress connects from an address of its own, and from one that this
// host does not have.
func TestInitiatorAddress(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:from"
	from := make(chan string, 100)
	s := newHandler(t, func(c net.Conn) {
		select {
		case from <- c.RemoteAddr().(*net.TCPAddr).IP.String():
		default:
		}
	})
	d := newDaemon(t)
	entry := func(address string) string {
		return d.conf("n {\n TargetAddress = " + s.portal + "\n TargetName = " + name + "\n InitiatorAddress = " + address + "\n}\n")
	}
	d.ok("-A", "-n", "n", "-c", entry("127.0.0.3"))
	select {
	case got := <-from:
		if got != "127.0.0.3" {
			t.Errorf("the connection comes from %s", got)
		}
	case <-time.After(patience):
		t.Error("no connection comes")
	}
	d.ok("-R", "-a")
	d.ok("-A", "-n", "n", "-c", entry("192.0.2.1"))
	d.until(name, "a reason", func(s session) bool { return strings.Contains(s.FailureReason, "assign requested address") })
}
