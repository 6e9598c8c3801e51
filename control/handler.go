package control

import (
	"context"

	"iscsictl/conf"
)

// Handler is the daemon behind a server. Its methods are called by several
// goroutines at once. Their errors are *Error where the client is to know more than
// "input/output error"; their texts are shown to people and hold no secret.
type Handler interface {
	// Add adds a session, normal or discovery, and returns its id without
	// waiting for the connection. EBUSY: there is one of the same kind,
	// portal and target already; EINVAL: the configuration is not valid.
	Add(conf.Session) (id uint32, err error)
	// Modify changes a session and has it connect anew. ESRCH: there is no
	// such session; EBUSY: it would become a duplicate of another; EINVAL.
	Modify(id uint32, m Modification) error
	// Remove removes all sessions that match and returns their ids, without
	// waiting for the Logout. ESRCH: none matches; EBUSY: a disk is in use,
	// and Force was not given.
	Remove(Selection) (removed []uint32, err error)
	// List returns all sessions in the order of their ids.
	List() []Session
	// Rescan looks for new, changed and removed LUNs of the sessions that
	// match, and returns when that is done. ESRCH: none matches.
	Rescan(context.Context, Selection) error
	// Discover asks a portal for its targets (SendTargets) and returns a
	// configuration for each, which inherits all else from the given one. It
	// adds nothing.
	Discover(context.Context, conf.Session) ([]conf.Session, error)
	// Tunables returns all tunables in the order of their names.
	Tunables() []Tunable
	// SetTunable sets one. ENOENT: there is none of that name; EINVAL: not
	// a value for it.
	SetTunable(name, value string) error
	// Version is the daemon's own version, such as "0.1.0".
	Version() string
}

// Tunable is a setting of the daemon, named as FreeBSD's sysctl(8) names it.
type Tunable struct {
	Name        string `json:"name"`
	Value       string `json:"value"`
	Default     string `json:"default"`
	Description string `json:"description,omitempty"`
}

// Selection says which sessions are meant. One at least of All, ID, Portal, Target
// and Device is given; a session matches when all that are given match.
type Selection struct {
	All    bool   `json:"all,omitempty"`
	ID     uint32 `json:"id,omitempty"`     // 0: not given
	Portal string `json:"portal,omitempty"` // compared byte for byte, as written
	Target string `json:"target,omitempty"` // compared byte for byte
	Force  bool   `json:"force,omitempty"`  // Remove: also where a disk is in use

	// Device is for Remove, and alone: a device ("ublkb0") that a daemon has
	// left which died, and that is of no session.
	Device string `json:"device,omitempty"`
}

// Empty tells whether nothing is given.
func (s Selection) Empty() bool {
	return !s.All && s.ID == 0 && s.Portal == "" && s.Target == "" && s.Device == ""
}

// Match tells whether a session is meant. It has several portals where it was
// redirected: the configured one, and the one it was sent to.
func (s Selection) Match(id uint32, target string, portals ...string) bool {
	if s.Empty() || s.Device != "" || s.ID != 0 && s.ID != id || s.Target != "" && s.Target != target {
		return false
	}
	if s.Portal == "" {
		return true
	}
	for _, portal := range portals {
		if s.Portal == portal {
			return true
		}
	}
	return false
}

// Modification is a change to a session. With Replace the whole configuration is
// exchanged; else just what is not nil. With nothing at all the session connects anew.
type Modification struct {
	Replace *conf.Session
	Portal  *string
	Target  *string
	User    *string
	Secret  *string
	Enable  *bool
}

// Apply returns the configuration after the change. A user or secret turns CHAP
// on; when neither is left, it is off.
func (m Modification) Apply(c conf.Session) conf.Session {
	if m.Replace != nil {
		return *m.Replace
	}
	set := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	set(&c.TargetAddress, m.Portal)
	set(&c.TargetName, m.Target)
	set(&c.User, m.User)
	set(&c.Secret, m.Secret)
	if m.Enable != nil {
		c.Enable = *m.Enable
	}
	if m.User != nil || m.Secret != nil {
		c.AuthMethod = conf.AuthCHAP
		if c.User == "" && c.Secret == "" && c.MutualUser == "" && c.MutualSecret == "" {
			c.AuthMethod = conf.AuthNone
		}
	}
	return c
}
