package session

import (
	"slices"

	"iscsictl/wait"
)

// Attend implements wait.Attended: the thread waits for the session's
// connection, and for those that come after it.
func (s *Session) Attend(t wait.Thread) {
	s.mu.Lock()
	s.threads = append(s.threads, t)
	first := len(s.threads) == 1
	s.mu.Unlock()
	if first {
		s.lend()
	}
}

// Dismiss implements wait.Attended.
func (s *Session) Dismiss(t wait.Thread) {
	s.mu.Lock()
	i := slices.Index(s.threads, t)
	if i >= 0 {
		s.threads = slices.Delete(s.threads, i, i+1)
	}
	s.mu.Unlock()
	if i == 0 {
		s.lend()
	}
}

// lend has the first thread, if there is one, wait for the connection, if there
// is one.
func (s *Session) lend() {
	s.lending.Lock() // so that the last word is that of the last call
	defer s.lending.Unlock()
	s.mu.Lock()
	var lender wait.Lender
	if s.n != nil {
		lender, _ = s.n.mover.(wait.Lender)
	}
	var first wait.Thread
	if len(s.threads) > 0 {
		first = s.threads[0]
	}
	s.mu.Unlock()
	if lender != nil {
		lender.Lend(first)
	}
}
