package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// sessionReserve is how much of the memory for its data a session with
	// block devices has from the beginning: enough for the largest request that the
	// kernel makes by itself, so that none ever waits for what only its
	// end could free.
	sessionReserve = 4 << 20
	// reserveShare is the part of the host's memory that may be set aside so;
	// sessions beyond that have what they come to use.
	reserveShare = 16
)

// reserveMemory sets the session's reserve aside, once.
func (e *entry) reserveMemory() {
	if e.d.takeReserve(e) {
		e.arena.Reserve(sessionReserve)
	}
}

// takeReserve reports whether a session is to have its reserve, and has not yet.
func (d *Daemon) takeReserve(e *entry) bool {
	var host unix.Sysinfo_t
	if unix.Sysinfo(&host) != nil {
		return false
	}
	most := int64(host.Totalram) * int64(host.Unit) / reserveShare
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.reserved {
		return false
	}
	if d.reserved+sessionReserve > most {
		if !d.scarce {
			d.scarce = true
			d.cfg.Log.Info(fmt.Sprintf("%d MiB are set aside for the data of sessions; further ones have what they come to use", d.reserved>>20))
		}
		return false
	}
	e.reserved = true
	d.reserved += sessionReserve
	return true
}

// giveReserve ends a session's part of the reserve.
func (d *Daemon) giveReserve(e *entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.reserved {
		e.reserved = false
		d.reserved -= sessionReserve
	}
}
