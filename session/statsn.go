package session

import (
	"fmt"
	"time"
)

const (
	// statusWindow is how far StatSNs may be from the one that is due where they
	// come in any order: more than a target can have responses under way.
	statusWindow = 1024
	// statusGap is how long one of them may be overdue.
	statusGap = 10 * time.Second
)

// statuses follow the StatSNs of a connection (RFC 7143 §4.2.2.2).
type statuses struct {
	expStatSN uint32 // the one that is due: all before it have come
	loose     bool   // transport.Params.LooseStatSN

	// With loose only:
	ahead   int                       // how many have come that are not due yet
	came    [statusWindow / 64]uint64 // which, by number modulo statusWindow
	overdue uint32                    // what was due at the tick at which since was set
	since   time.Duration             // 0: nothing was overdue at the last tick
}

// status takes in a StatSN. With error recovery level 0 one that is not due means
// that a PDU was lost (§7.9); where they are loose, it does when what is due has
// not come for a while.
func (s *statuses) status(statSN uint32) error {
	switch distance := int32(statSN - s.expStatSN); {
	case distance == 0:
		s.expStatSN++
		for s.ahead > 0 && s.forget(s.expStatSN) {
			s.expStatSN++
		}
		return nil
	case !s.loose || distance >= statusWindow || distance < -statusWindow:
		return fmt.Errorf("StatSN %d where %d is due", statSN, s.expStatSN)
	case distance > 0:
		s.note(statSN)
	}
	return nil
}

func (s *statuses) note(n uint32) {
	word, bit := &s.came[n%statusWindow/64], uint64(1)<<(n%64)
	if *word&bit == 0 {
		*word |= bit
		s.ahead++
	}
}

// forget reports whether n has come, which is not asked again.
func (s *statuses) forget(n uint32) bool {
	word, bit := &s.came[n%statusWindow/64], uint64(1)<<(n%64)
	if *word&bit == 0 {
		return false
	}
	*word &^= bit
	s.ahead--
	return true
}

// watchStatus looks, at a tick, for a status that has been overdue for too long.
func (s *statuses) watchStatus(now time.Duration) error {
	switch {
	case s.ahead == 0:
		s.since = 0
	case s.since == 0 || s.overdue != s.expStatSN:
		s.overdue, s.since = s.expStatSN, now
	case now-s.since >= statusGap:
		return fmt.Errorf("StatSN %d has not come, and %d after it have", s.expStatSN, s.ahead)
	}
	return nil
}
