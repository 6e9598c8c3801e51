package daemon

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// shutdownSilence is how long nothing may be heard of a target when the
	// host goes down, until it counts as away, and shutdownPatience is how long
	// it may be away before requests fail. What is to be unmounted waits for
	// both, one after the other.
	shutdownSilence  = 3 * time.Second
	shutdownPatience = 4 * time.Second
	// syncTimeout bounds the last writing of what is still in use then.
	syncTimeout = 5 * time.Second
)

// GoingDown tells the daemon that the host shuts down. From then on sessions whose
// target is away fail their requests soon, unless kern.iscsi.fail_on_shutdown says
// that they are to wait.
func (d *Daemon) GoingDown() {
	d.goingDown.Store(true)
	hurry := d.failsForShutdown()
	for _, e := range d.all() {
		if hurry && e.conn != nil {
			e.conn.Hurry(shutdownSilence)
		}
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
