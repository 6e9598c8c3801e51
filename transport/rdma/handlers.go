package rdma

import "sync/atomic"

// Handlers is what a provider keeps of a connection's handler: it may change
// (Conn.Handover) between two batches of events.
type Handlers struct {
	current atomic.Pointer[Handler]
}

// Set makes h the handler. From the second call on, the caller holds the lock of the
// handler so far.
func (s *Handlers) Set(h Handler) { s.current.Store(&h) }

// Current returns the handler, or nil before the first Set.
func (s *Handlers) Current() Handler {
	if p := s.current.Load(); p != nil {
		return *p
	}
	return nil
}

// Enter enters the handler and returns it: a batch of events begins, which is
// to end with its Leave.
func (s *Handlers) Enter() Handler {
	for {
		p := s.current.Load()
		(*p).Enter()
		if s.current.Load() == p {
			return *p
		}
		(*p).Leave() // it has handed over while its lock was waited for
	}
}

// Next is to be called between two events of a batch: where the handler has
// handed over in the first, it ends its batch and enters the new one's.
func (s *Handlers) Next(h Handler) Handler {
	if s.Current() == h {
		return h
	}
	h.Leave()
	return s.Enter()
}
