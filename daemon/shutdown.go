package daemon

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// shutdownPatience is how long a session may have been away when the host
	// goes down, before its requests fail: what is to be unmounted waits for
	// them.
	shutdownPatience = 5 * time.Second
	// syncTimeout bounds the last writing of what is still in use then.
	syncTimeout = 5 * time.Second
)

// GoingDown tells the daemon that the host shuts down. From then on sessions
// that are not connected fail their requests after shutdownPatience, unless
// kern.iscsi.fail_on_shutdown says that they are to wait.
func (d *Daemon) GoingDown() {
	d.goingDown.Store(true)
	for _, e := range d.all() {
		e.armRecovery()
	}
}

// failsForShutdown reports whether the host goes down and does not wait.
func (d *Daemon) failsForShutdown() bool {
	return d.goingDown.Load() && d.cfg.Tunables.FailOnShutdown()
}

// writeOut has the kernel write what file systems hold, ours among them, for as
// long as we serve them.
func writeOut() {
	done := make(chan struct{})
	go func() {
		unix.Sync()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(syncTimeout):
	}
}
