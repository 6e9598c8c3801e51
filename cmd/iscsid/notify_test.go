package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNotifier(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "notify"), "@iscsid-test-" + strconv.Itoa(os.Getpid())} {
		server, err := net.ListenPacket("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		for _, c := range []struct {
			usec, pid string
			want      time.Duration
		}{
			{"", "", 0},
			{"2000000", strconv.Itoa(os.Getpid()), 2 * time.Second},
			{"2000000", "", 2 * time.Second},
			{"2000000", "1", 0}, // another's
			{"-1", "", 0},
			{"many", "", 0},
		} {
			t.Setenv("NOTIFY_SOCKET", path)
			t.Setenv("WATCHDOG_USEC", c.usec)
			t.Setenv("WATCHDOG_PID", c.pid)
			n := newNotifier()
			if n == nil || n.watchdog != c.want {
				t.Fatalf("%s: %+v: %+v", path, c, n)
			}
			if v, set := os.LookupEnv("NOTIFY_SOCKET"); set {
				t.Errorf("NOTIFY_SOCKET is still %q", v)
			}
			n.tell("READY=1")
			b := make([]byte, 64)
			k, _, err := server.ReadFrom(b)
			if string(b[:k]) != "READY=1" || err != nil {
				t.Errorf("%q, %v", b[:k], err)
			}
		}
	}
}

func TestNoNotifier(t *testing.T) {
	for _, path := range []string{"", filepath.Join(t.TempDir(), "nobody")} {
		t.Setenv("NOTIFY_SOCKET", path)
		n := newNotifier()
		if n != nil {
			t.Errorf("%q: %+v", path, n)
		}
		n.tell("READY=1")
	}
}

// TestAttend has a daemon that answers, then hangs, and then answers again.
func TestAttend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told, looks, answers := make(chan string, 16), make(chan struct{}, 1), make(chan string)
		ctx, cancel := context.WithCancel(t.Context())
		go attend(ctx, func(s string) { told <- s }, 3*time.Second, func() string {
			looks <- struct{}{}
			return <-answers
		})
		expect := func(answer string, want ...string) {
			t.Helper()
			<-looks
			answers <- answer
			synctest.Wait()
			var got []string
			for len(told) > 0 {
				got = append(got, <-told)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		}
		begin := time.Now()
		expect("one", "STATUS=one", "WATCHDOG=1")
		expect("one", "WATCHDOG=1")
		expect("two", "STATUS=two", "WATCHDOG=1")
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("told three times in %v", d)
		}
		time.Sleep(time.Hour)
		if len(told) > 0 {
			t.Errorf("while it hangs: %s", <-told)
		}
		expect("two", "WATCHDOG=1")
		cancel()
		synctest.Wait()
		select { // it may look once more
		case <-looks:
			answers <- "two"
		default:
		}
	})
}

// TestAttendWithoutWatchdog tells the status alone.
func TestAttendWithoutWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		looks := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		attend(ctx, func(s string) { told = append(told, s) }, 0, func() string { looks++; return "the same" })
		if d := cmp.Diff([]string{"STATUS=the same"}, told); d != "" || looks < 10 {
			t.Errorf("%d looks; (-want +got):\n%s", looks, d)
		}
	})
}
