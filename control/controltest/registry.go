// Package controltest has a daemon for tests of the control protocol and of its
// clients: sessions that are only remembered, in states that the test sets.
package controltest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"

	"iscsictl/conf"
	"iscsictl/control"
)

// Registry is a control.Handler that keeps sessions in memory and connects nowhere.
// It refuses what iscsid refuses, in its words.
type Registry struct {
	mu       sync.Mutex // guards the following
	lastID   uint32
	entries  []*entry
	offered  []conf.Session
	tunables []control.Tunable
	rescans  int
	lists    int
	awaited  map[uint32]int // sessions to be connected after so many lists
}

type entry struct {
	conf    conf.Session
	session control.Session
}

// NewRegistry returns one without sessions and with two tunables.
func NewRegistry() *Registry {
	return &Registry{tunables: []control.Tunable{
		{Name: "kern.iscsi.maxtags", Value: "255", Default: "255"},
		{Name: "kern.iscsi.ping_timeout", Value: "5", Default: "5"},
	}}
}

// Change changes what is told of a session. It reports whether there is one.
func (r *Registry) Change(id uint32, change func(*control.Session)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.find(id)
	if e != nil {
		change(&e.session)
	}
	return e != nil
}

// ConnectAfter connects a session when the sessions were listed n times more.
func (r *Registry) ConnectAfter(n int, id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.awaited == nil {
		r.awaited = map[uint32]int{}
	}
	r.awaited[id] = r.lists + n
}

// Offer sets what discovery finds.
func (r *Registry) Offer(targets ...conf.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offered = targets
}

// Conf returns a session's configuration, secrets included.
func (r *Registry) Conf(id uint32) (conf.Session, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.find(id); e != nil {
		return e.conf, true
	}
	return conf.Session{}, false
}

// Rescans counts the sessions that were rescanned.
func (r *Registry) Rescans() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rescans
}

// Lists counts how often the sessions were listed.
func (r *Registry) Lists() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lists
}

func (r *Registry) find(id uint32) *entry {
	for _, e := range r.entries {
		if e.session.ID == id {
			return e
		}
	}
	return nil
}

// duplicate refuses a configuration that another session than id has.
func (r *Registry) duplicate(c conf.Session, id uint32) error {
	for _, e := range r.entries {
		if e.session.ID != id && e.conf.Discovery == c.Discovery &&
			e.conf.TargetAddress == c.TargetAddress && e.conf.TargetName == c.TargetName {
			return control.Errorf(syscall.EBUSY, "a session to %s at %s exists (session %d)",
				c.TargetName, c.TargetAddress, e.session.ID)
		}
	}
	return nil
}

// Add implements control.Handler.
func (r *Registry) Add(c conf.Session) (uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.duplicate(c, 0); err != nil {
		return 0, err
	}
	r.lastID++
	e := &entry{session: control.NewSession()}
	e.session.ID = r.lastID
	e.set(c)
	r.entries = append(r.entries, e)
	return r.lastID, nil
}

// set makes the listing say what is configured.
func (e *entry) set(c conf.Session) {
	e.conf = c
	s := &e.session
	s.Nickname = c.Nickname
	s.InitiatorName, s.InitiatorAddress, s.InitiatorAlias = c.InitiatorName, c.InitiatorAddress, c.InitiatorAlias
	s.TargetName, s.TargetAddress = c.TargetName, c.TargetAddress
	s.DSCP, s.PCP, s.PingTimeout, s.LoginTimeout = c.DSCP, c.PCP, c.PingTimeout, c.LoginTimeout
	s.CommandTimeout, s.RecoveryTimeout = c.CommandTimeout, c.RecoveryTimeout
	s.Device = c.Device
	s.User, s.SecretSet = c.User, c.Secret != ""
	s.MutualUser, s.MutualSecretSet = c.MutualUser, c.MutualSecret != ""
	s.Discovery, s.Enable, s.ISER = c.Discovery, c.Enable, c.ISER
	s.Connected, s.Reason = false, "Waiting for iscsid(8)"
}

// Modify implements control.Handler.
func (r *Registry) Modify(id uint32, m control.Modification) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.find(id)
	if e == nil {
		return control.Errorf(syscall.ESRCH, "session-id %d not found", id)
	}
	c := m.Apply(e.conf)
	if err := c.Validate(); err != nil {
		return control.Errorf(syscall.EINVAL, "%v", err)
	}
	if err := r.duplicate(c, id); err != nil {
		return err
	}
	e.set(c)
	return nil
}

// Remove implements control.Handler.
func (r *Registry) Remove(which control.Selection) ([]uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var removed []uint32
	for _, e := range r.matching(which) {
		if slices.ContainsFunc(e.session.Devices, inUse) && !which.Force {
			return nil, control.Errorf(syscall.EBUSY, "%s of session %d is mounted; unmount it, or use --force",
				e.session.Devices[0].Name, e.session.ID)
		}
		removed = append(removed, e.session.ID)
	}
	if removed == nil {
		return nil, control.Errorf(syscall.ESRCH, "no session matches")
	}
	r.entries = slices.DeleteFunc(r.entries, func(e *entry) bool {
		return slices.Contains(removed, e.session.ID)
	})
	return removed, nil
}

// inUse is what a test says with a device's note.
func inUse(d control.Device) bool { return d.Note == "mounted" }

func (r *Registry) matching(which control.Selection) (matching []*entry) {
	for _, e := range r.entries {
		if which.Match(e.session.ID, e.conf.TargetName, e.conf.TargetAddress, e.session.Redirect) {
			matching = append(matching, e)
		}
	}
	return matching
}

// List implements control.Handler.
func (r *Registry) List() []control.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lists++
	sessions := make([]control.Session, len(r.entries))
	for i, e := range r.entries {
		sessions[i] = e.session
		sessions[i].Devices = slices.Clone(e.session.Devices)
		if r.awaited[e.session.ID] == r.lists {
			e.session.Connected, e.session.Reason = true, ""
		}
	}
	return sessions
}

// Rescan implements control.Handler.
func (r *Registry) Rescan(_ context.Context, which control.Selection) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.matching(which))
	if r.rescans += n; n == 0 {
		return control.Errorf(syscall.ESRCH, "no session matches")
	}
	return nil
}

// Discover implements control.Handler: it finds what is offered, or fails where the
// portal is "dead" or "deaf".
func (r *Registry) Discover(_ context.Context, from conf.Session) ([]conf.Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch from.TargetAddress {
	case "dead":
		return nil, syscall.ECONNREFUSED
	case "deaf":
		return nil, errors.New("discovery at deaf: Login Phase timeout")
	}
	found := make([]conf.Session, len(r.offered))
	for i, target := range r.offered {
		found[i] = from
		found[i].Discovery = false
		found[i].TargetName, found[i].TargetAddress = target.TargetName, target.TargetAddress
	}
	return found, nil
}

// Tunables implements control.Handler.
func (r *Registry) Tunables() []control.Tunable {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.tunables)
}

// SetTunable implements control.Handler.
func (r *Registry) SetTunable(name, value string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.tunables {
		switch {
		case r.tunables[i].Name != name:
		case value == "" || strings.Trim(value, "0123456789") != "":
			return control.Errorf(syscall.EINVAL, "%s takes a number", name)
		default:
			r.tunables[i].Value = value
			return nil
		}
	}
	return control.Errorf(syscall.ENOENT, "no tunable %s", name)
}

// Version implements control.Handler.
func (r *Registry) Version() string { return "test" }
