package disk

import "sync/atomic"

// Stats are counters of a disk since it was found. Bytes are those of requests
// that succeeded.
type Stats struct {
	Requests     uint64 // completed
	BytesRead    uint64
	BytesWritten uint64
	Errors       uint64 // requests that failed
	Retries      uint64 // commands sent again
}

// Add adds o to s.
func (s *Stats) Add(o Stats) {
	s.Requests += o.Requests
	s.BytesRead += o.BytesRead
	s.BytesWritten += o.BytesWritten
	s.Errors += o.Errors
	s.Retries += o.Retries
}

type counters struct {
	requests, read, written, errors, retries atomic.Uint64
}

func (c *counters) stats() Stats {
	return Stats{
		Requests:     c.requests.Load(),
		BytesRead:    c.read.Load(),
		BytesWritten: c.written.Load(),
		Errors:       c.errors.Load(),
		Retries:      c.retries.Load(),
	}
}
