package main

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what this process has used so far, or between two moments.
type usage struct {
	user, system           time.Duration
	voluntary, involuntary int64 // context switches
	allocations            uint64
}

func takeUsage() usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r) // does not fail for oneself
	return usage{
		user: time.Duration(r.Utime.Nano()), system: time.Duration(r.Stime.Nano()),
		voluntary: r.Nvcsw, involuntary: r.Nivcsw,
		allocations: m.Mallocs,
	}
}

func (u usage) since(before usage) usage {
	return usage{
		user: u.user - before.user, system: u.system - before.system,
		voluntary: u.voluntary - before.voluntary, involuntary: u.involuntary - before.involuntary,
		allocations: u.allocations - before.allocations,
	}
}
