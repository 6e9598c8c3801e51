package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"
)

// notifier tells a service manager how the daemon fares: sd_notify(3). Nil is
// none.
type notifier struct {
	conn     net.Conn
	watchdog time.Duration // by when it must hear of us again; 0: it does not care
}

// newNotifier returns the notifier of the environment, which it clears: programs
// that we start have nothing to tell.
func newNotifier() *notifier {
	socket, limit, pid := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
	if socket == "" {
		return nil
	}
	// Package net knows that "@" stands for the abstract namespace.
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return nil
	}
	n := &notifier{conn: conn}
	if us, err := strconv.ParseInt(limit, 10, 64); err == nil && us > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	return n
}

// tell sends an assignment, such as READY=1; nothing depends on its arrival.
func (n *notifier) tell(assignment string) {
	if n != nil {
		_, _ = n.conn.Write([]byte(assignment))
	}
}

// statusEvery is how often the status is looked at, at least.
const statusEvery = 5 * time.Second

// attend keeps the service manager informed until ctx ends: of the status where
// it has changed, and that the daemon is alive, each time that it has answered to
// look. One that hangs is not said to be alive.
func attend(ctx context.Context, tell func(string), watchdog time.Duration, look func() string) {
	every := statusEvery
	if watchdog > 0 {
		every = min(every, watchdog/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last := ""; ; {
		if status := look(); status != last {
			tell("STATUS=" + status)
			last = status
		}
		if watchdog > 0 {
			tell("WATCHDOG=1")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
