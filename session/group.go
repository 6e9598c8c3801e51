package session

import (
	"fmt"
	"time"

	"iscsictl/iscsi"
	"iscsictl/session/login"
)

// oldGroup is the portal group of the target that the last connection was with,
// where that ended without a logout.
type oldGroup struct {
	target string
	tag    int
	gone   time.Time // when the target has given up what was with it
}

// groupError says that a target has come back as another portal group.
type groupError struct{ was, is int }

func (e *groupError) Error() string {
	return fmt.Sprintf("the target answers as portal group %d and was %d: waiting until it has given up the old session", e.is, e.was)
}

// noticed is how long a target may take to notice that a connection is lost: with
// its default settings, Linux's asks after 15 s and waits 30 s for the answer.
const noticed = 45 * time.Second

// lostGroup notes which portal group has lost us. When it has noticed, it gives up
// the session after DefaultTime2Wait and DefaultTime2Retain (RFC 7143 §13.15, §13.16).
func (s *Session) lostGroup(n *nexus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login.old = oldGroup{tag: iscsi.NoPortalGroup}
	if !n.bye.answered {
		s.login.old = oldGroup{s.target.TargetName, s.info.PortalGroupTag, time.Now().Add(noticed + n.params.DefaultTime2Wait + n.params.DefaultTime2Retain)}
	}
}

// checkGroup refuses a login that has not made the target give up our session
// before: a login does that to one with the same portal group only (RFC 7143
// §6.3.5). What the old one has of our writes could be done after the same
// writes were sent again, and others after them.
func (s *Session) checkGroup(r login.Result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.login.old
	if !time.Now().Before(old.gone) || old.target != s.target.TargetName || old.tag == r.TargetPortalGroupTag ||
		old.tag == iscsi.NoPortalGroup || r.TargetPortalGroupTag == iscsi.NoPortalGroup {
		return nil
	}
	return &groupError{old.tag, r.TargetPortalGroupTag}
}
