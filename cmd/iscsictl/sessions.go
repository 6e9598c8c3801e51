package main

import (
	"errors"
	"fmt"
	"syscall"

	"iscsictl/conf"
	"iscsictl/control"
)

// add adds sessions: those of the file, one of them, or the one of the options.
func (c *command) add(o *options) error {
	switch {
	case o.all:
		file, err := c.readConf(o.conf)
		if err != nil {
			return err
		}
		for i := range file.Sessions {
			c.addOne(file.Sessions[i])
		}
		return nil
	case o.nickname != nil:
		entry, err := c.entry(o)
		if err != nil {
			return err
		}
		c.addOne(*entry)
		return nil
	}
	session, err := c.described(o)
	if err != nil {
		return err
	}
	c.addOne(session)
	return nil
}

// addOne adds a session. Where it is refused, the command goes on.
func (c *command) addOne(s conf.Session) {
	if _, err := c.client.Add(s); err != nil {
		c.fail(refused("ISCSISADD", err))
	}
}

// readConf reads the configuration file and shows its warnings.
func (c *command) readConf(path string) (*conf.File, error) {
	file, err := conf.Parse(path)
	for _, warning := range file.Warnings {
		c.warn(errors.New(warning))
	}
	return file, err
}

// entry returns the file's entry of the nickname.
func (c *command) entry(o *options) (*conf.Session, error) {
	file, err := c.readConf(o.conf)
	if err != nil {
		return nil, err
	}
	entry := file.Find(*o.nickname)
	if entry == nil {
		return nil, fmt.Errorf("target %s not found in %s", *o.nickname, o.conf)
	}
	return entry, nil
}

// described returns the session that the options describe.
func (c *command) described(o *options) (conf.Session, error) {
	s := conf.NewSession()
	s.ISER = o.iser
	switch {
	case o.given[optDiscover]:
		s.Discovery, s.TargetAddress = true, o.discover
	case o.given["d"]:
		s.Discovery, s.TargetAddress = true, o.discoveryHost
	default:
		s.TargetName, s.TargetAddress = *o.target, *o.portal
	}
	if o.enable != nil {
		s.Enable = *o.enable
	}
	if o.user != nil {
		secret, err := c.secret(o)
		if err != nil {
			return s, err
		}
		s.AuthMethod, s.User, s.Secret = conf.AuthCHAP, *o.user, *secret
	}
	if err := s.Validate(); err != nil {
		return s, err
	}
	for _, warning := range s.Warnings() {
		c.warn(errors.New(warning))
	}
	return s, nil
}

// secret returns the CHAP secret that was given, or nil.
func (c *command) secret(o *options) (*string, error) {
	if o.secretFile == nil {
		return o.secret, nil
	}
	secret, warning, err := conf.ReadSecretFile(*o.secretFile)
	if warning != "" {
		c.warn(errors.New(warning))
	}
	if err != nil {
		return nil, err
	}
	return &secret, nil
}

// modify changes a session.
func (c *command) modify(o *options) error {
	change := control.Modification{Portal: o.portal, Target: o.target, User: o.user, Enable: o.enable}
	if o.nickname != nil {
		entry, err := c.entry(o)
		if err != nil {
			return err
		}
		change.Replace = entry
	}
	var err error
	if change.Secret, err = c.secret(o); err != nil {
		return err
	}
	switch err := c.client.Modify(*o.session, change); {
	case errors.Is(err, syscall.ESRCH):
		return fmt.Errorf("session-id %d not found", *o.session)
	case err != nil:
		return refused("ISCSISMODIFY", err)
	}
	return nil
}

// remove removes the sessions that match.
func (c *command) remove(o *options) error {
	which := control.Selection{All: o.all, Force: o.force}
	switch {
	case o.device != nil:
		which.Device = *o.device
	case o.nickname != nil:
		entry, err := c.entry(o)
		if err != nil {
			return err
		}
		// An entry for discovery has no target: what it has added is at its portal.
		which.Portal, which.Target = entry.TargetAddress, entry.TargetName
	case !o.all:
		if o.portal != nil {
			which.Portal = *o.portal
		}
		if o.target != nil {
			which.Target = *o.target
		}
	}
	if _, err := c.client.Remove(which); err != nil {
		return refused("ISCSISREMOVE", err)
	}
	return nil
}
