package session

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"iscsictl/iscsi"
)

func TestReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &portal{}
		s, w := start(t, p, nil)
		if i := s.Info(); !i.Connected || i.Reason != "" || i.Connections != 1 {
			t.Fatalf("%+v", i)
		}
		for n := 2; n <= 4; n++ {
			pass(time.Minute) // long enough for the next attempt to be made at once
			if !s.Info().Connected {
				t.Fatal("not connected")
			}
			p.current.session.Enter()
			p.current.session.Leave()
			before := time.Now()
			mover{p.current}.Close(errors.New("cable pulled"))
			synctest.Wait()
			if i := s.Info(); i.Connections != n || time.Since(before) > 0 {
				t.Fatalf("%d connections after %v, want %d at once", i.Connections, time.Since(before), n)
			}
			if i := s.Info(); i.LastFailure != "connection lost: cable pulled" || i.LastFailureAt.IsZero() {
				t.Errorf("last failure %q", i.LastFailure)
			}
		}
		if len(w.ups) != 4 || w.ups[3] != 4 || len(w.downs) != 3 {
			t.Errorf("ups %v, downs %v", w.ups, w.downs)
		}
	})
}

// TestSilentConnection: pings go unanswered, so that the connection is given up.
func TestSilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, &portal{mute: true}, func(c *Config) { c.Target.PingTimeout = 5 })
		pass(4500 * time.Millisecond)
		if i := s.Info(); i.Connections != 1 || i.LastFailure != "" {
			t.Fatalf("too early: %+v", i)
		}
		pass(4 * time.Second)
		if i := s.Info(); !strings.Contains(i.LastFailure, "no ping reply (NOP-In) after 5 seconds") {
			t.Fatalf("%+v", i)
		}
	})
}

// TestHurry: in a hurry less silence is endured, also where nothing bounds it.
func TestHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, &portal{mute: true}, func(c *Config) { c.Target.PingTimeout = 0 })
		pass(time.Minute)
		if i := s.Info(); i.Connections != 1 || i.LastFailure != "" {
			t.Fatalf("without pings: %+v", i)
		}
		s.Hurry(3 * time.Second)
		pass(3 * time.Second)
		if i := s.Info(); !strings.Contains(i.LastFailure, "no ping reply (NOP-In)") {
			t.Fatalf("%+v", i)
		}
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &portal{refuse: syscall.ECONNREFUSED}
		s, w := start(t, p, func(c *Config) { c.Target.LoginTimeout = 20 })
		if i := s.Info(); i.Connected || i.Reason != "Connection refused" {
			t.Errorf("%+v", i)
		}
		pass(10 * time.Minute)
		for i := 1; i < len(p.seen()); i++ {
			gap := p.seen()[i].at.Sub(p.seen()[i-1].at)
			base := min(time.Second<<min(i-1, 10), 20*time.Second)
			if gap < base/2 || gap > base+base/2 {
				t.Errorf("attempt %d came after %v, want %v or half of it to either side", i, gap, base)
			}
		}
		if n := len(p.seen()); n < 20 || n > 70 || len(w.downs) != n {
			t.Errorf("%d attempts in ten minutes, %d downs", n, len(w.downs))
		}
		// A new configuration is tried at once.
		p.mu.Lock()
		p.refuse = nil
		p.mu.Unlock()
		s.Reconfigure(s.Target())
		synctest.Wait()
		if !s.Info().Connected {
			t.Error("not connected after the configuration has changed")
		}
	})
}

func TestReasons(t *testing.T) {
	for _, c := range []struct {
		status iscsi.LoginStatus
		want   string
	}{
		{0x0200, "Initiator error"},
		{0x0201, "Authentication failure"},
		{0x0202, "Authorization failure"},
		{0x0203, "Not found"},
		{0x0204, "Target removed"},
		{0x0205, "Unsupported version"},
		{0x0206, "Too many connections"},
		{0x0207, "Missing parameter"},
		{0x0208, "Can't include in session"},
		{0x0209, "Session type not supported"},
		{0x020a, "Session does not exist"},
		{0x020b, "Invalid during login"},
		{0x0300, "Target error"},
		{0x0301, "Service unavailable"},
		{0x0302, "Out of resources"},
		{0x0277, "unknown initiator error; Status-Class 0x2, Status-Detail 0x77"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := start(t, &portal{status: func(string) (iscsi.LoginStatus, string) { return c.status, "" }}, nil)
			if got := s.Info().Reason; got != c.want {
				t.Errorf("status %#04x: reason %q, want %q", uint16(c.status), got, c.want)
			}
		})
	}
}

func TestLoginTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, &portal{silent: true}, func(c *Config) { c.Target.LoginTimeout = 7 })
		pass(6 * time.Second)
		if i := s.Info(); i.Reason != "" {
			t.Errorf("reason %q during the attempt", i.Reason)
		}
		pass(1500 * time.Millisecond)
		if i := s.Info(); i.Reason != "Login Phase timeout" {
			t.Errorf("reason %q", i.Reason)
		}
	})
}

func TestAttemptTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := start(t, &portal{silent: true}, func(c *Config) { c.AttemptTimeout = 3 * time.Second })
		pass(3100 * time.Millisecond)
		if i := s.Info(); i.Reason != "Login Phase timeout" {
			t.Errorf("reason %q", i.Reason)
		}
	})
}

// TestAttemptsAreBounded: no more logins at once than there are places.
func TestAttemptsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &portal{silent: true}
		places := make(chan struct{}, 2)
		for range 5 {
			start(t, p, func(c *Config) { c.Attempts = places; c.Target.LoginTimeout = 10 })
		}
		if len(p.seen()) != 2 {
			t.Errorf("%d attempts at once, want 2", len(p.seen()))
		}
		pass(10*time.Second + time.Millisecond)
		if len(p.seen()) != 4 {
			t.Errorf("%d attempts after the first two have failed, want 4", len(p.seen()))
		}
	})
}

func TestRedirection(t *testing.T) {
	for _, permanent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			moved := iscsi.LoginStatus(0x0101)
			if permanent {
				moved = 0x0102
			}
			p := &portal{status: func(addr string) (iscsi.LoginStatus, string) {
				if addr == "192.0.2.1:3260" {
					return moved, "TargetAddress=192.0.2.2:3261\x00"
				}
				return 0, ""
			}}
			s, _ := start(t, p, nil)
			i := s.Info()
			if !i.Connected || i.TargetPortal.String() != "192.0.2.2:3261" || (i.Moved != "") != permanent {
				t.Fatalf("%+v", i)
			}
			pass(time.Minute)
			p.mu.Lock()
			p.dials = nil
			p.mu.Unlock()
			mover{p.current}.Close(errors.New("gone"))
			synctest.Wait()
			first := "192.0.2.1:3260"
			if permanent {
				first = "192.0.2.2:3261"
			}
			if p.seen()[0].addr != first {
				t.Errorf("reconnected at %s, want %s", p.seen()[0].addr, first)
			}
		})
	}
}

func TestRedirectionFails(t *testing.T) {
	for status, want := range map[iscsi.LoginStatus]string{0x0101: "Target moved temporarily", 0x0102: "Target moved permanently"} {
		synctest.Test(t, func(t *testing.T) {
			p := &portal{status: func(addr string) (iscsi.LoginStatus, string) {
				if addr == "192.0.2.1:3260" {
					return status, "TargetAddress=192.0.2.2:3261\x00"
				}
				return 0x0301, ""
			}}
			s, _ := start(t, p, nil)
			if i := s.Info(); i.Reason != want || !strings.Contains(i.LastFailure, "192.0.2.2:3261: Service unavailable") {
				t.Errorf("%+v", i)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // round and round
		n := 0
		p := &portal{status: func(string) (iscsi.LoginStatus, string) {
			n++
			return 0x0101, fmt.Sprintf("TargetAddress=192.0.2.%d\x00", 1+n%2)
		}}
		s, _ := start(t, p, nil)
		if i := s.Info(); i.Reason != "Target moved temporarily" || len(p.seen()) != maxRedirects {
			t.Errorf("%d connections, %+v", len(p.seen()), i)
		}
	})
}

func TestDisabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &portal{}
		s, _ := start(t, p, func(c *Config) { c.Target.Enable = false })
		pass(time.Hour)
		if len(p.seen()) != 0 {
			t.Error("a disabled session connects")
		}
		c := s.Target()
		c.Enable = true
		s.Reconfigure(c)
		synctest.Wait()
		if !s.Info().Connected {
			t.Error("not connected when enabled")
		}
		c.Enable = false
		s.Reconfigure(c)
		synctest.Wait()
		if s.Info().Connected {
			t.Error("connected when disabled")
		}
	})
}

func TestClose(t *testing.T) {
	for _, c := range []struct {
		portal *portal
		want   time.Duration
	}{
		{&portal{}, 0},
		{&portal{lingers: true}, 2 * tickEvery},
		{&portal{deaf: true}, logoutTimeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, w := start(t, c.portal, nil)
			before := time.Now()
			s.Close()
			s.Close()
			if d := time.Since(before); d != c.want || s.Info().Connected || len(w.downs) != 1 || w.downs[0] != errLoggedOut.Error() {
				t.Errorf("closed after %v, want %v; downs %v", d, c.want, w.downs)
			}
		})
	}
}

// collector is an issuer that keeps what it gets.
type collector struct{ done []*Command }

func (c *collector) Complete(b []*Command) { c.done = append(c.done, b...) }

func TestCommandsOfALostNexus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &portal{}
		s, _ := start(t, p, nil)
		got := &collector{}
		c := &Command{Issuer: got}
		s.Submit([]*Command{c})
		if len(got.done) != 0 {
			t.Fatal("the command has completed")
		}
		p.mu.Lock()
		p.refuse = syscall.ENETUNREACH
		p.mu.Unlock()
		mover{p.current}.Close(errors.New("gone"))
		synctest.Wait()
		if len(got.done) != 1 || c.Err != ErrNexusLost || c.Nexus != 1 {
			t.Fatalf("%d done, %v on nexus %d", len(got.done), c.Err, c.Nexus)
		}
		s.Submit([]*Command{c}) // there is no nexus now
		if len(got.done) != 2 || c.Err != ErrNexusLost || c.Nexus != 1 {
			t.Fatalf("%d done, %v on nexus %d", len(got.done), c.Err, c.Nexus)
		}
	})
}
