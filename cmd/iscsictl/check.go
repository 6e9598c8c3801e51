package main

import (
	"errors"
	"fmt"
)

// check refuses wrong combinations of options, in FreeBSD's order and words.
func (o *options) check() error {
	if len(o.actions) > 1 {
		for _, act := range o.actions {
			switch act {
			case actDiscover, actRescan, actSysctl, actImport:
				return errors.New("at most one of -A, -M, -R, -L, --discover, --rescan, --sysctl, or --import-open-iscsi may be specified")
			}
		}
		return errors.New("at most one of -A, -M, -R, or -L may be specified")
	}
	switch o.action {
	case actAdd:
		return o.checkAdd()
	case actModify:
		return o.checkModify()
	case actRemove:
		return o.checkRemove()
	case actDiscover:
		return o.checkDiscover()
	case actRescan:
		return o.foreign("a", "d", "e", "n", "p", "r", "t", "u", "s", optSecretFile, "v", "w", optForce, optDevice)
	case actSysctl, actImport:
		return o.foreign("a", "d", "e", "i", "n", "p", "r", "t", "u", "s", optSecretFile, "v", "w", optForce, optDevice)
	}
	return o.foreign("d", "i", "n", "p", "r", "t", "u", "s", optSecretFile, optForce, optDevice)
}

func (o *options) checkAdd() error {
	if err := o.checkWhatToAdd(); err != nil {
		return err
	}
	if err := o.checkSecret(); err != nil {
		return err
	}
	return o.foreign("i", "v", optForce, optDevice)
}

func (o *options) checkWhatToAdd() error {
	switch {
	case o.all:
		return o.exclusive("a", "e", "p", "t", "u", "s", optSecretFile, "n", "d", "r")
	case o.nickname != nil:
		return o.exclusive("n", "e", "p", "t", "u", "s", optSecretFile, "d", "r")
	case o.given["d"]:
		return o.exclusive("d", "p", "t")
	case o.target == nil && o.portal == nil:
		return errors.New("must specify -a, -n or -t/-p")
	case o.portal == nil:
		return errors.New("-t must always be used with -p")
	case o.target == nil:
		return errors.New("-p must always be used with -t")
	}
	return nil
}

// checkSecret wants a user and a secret together; --secret-file is as good as -s.
func (o *options) checkSecret() error {
	secret := o.secret != nil || o.secretFile != nil
	switch {
	case o.secret != nil && o.secretFile != nil:
		return errors.New("-s and --secret-file are mutually exclusive")
	case o.user != nil && !secret:
		return errors.New("-u must always be used with -s")
	case o.user == nil && o.secret != nil:
		return errors.New("-s must always be used with -u")
	case o.user == nil && secret:
		return errors.New("--secret-file must always be used with -u")
	}
	return nil
}

func (o *options) checkModify() error {
	if o.session == nil {
		return errors.New("-M requires -i")
	}
	if o.nickname != nil {
		if err := o.exclusive("n", "e", "p", "t", "u", "s", optSecretFile); err != nil {
			return err
		}
	}
	if o.secret != nil && o.secretFile != nil {
		return errors.New("-s and --secret-file are mutually exclusive")
	}
	return o.foreign("a", "d", "r", "v", "w", optForce, optDevice)
}

func (o *options) checkRemove() error {
	var err error
	switch {
	case o.device != nil:
		err = o.exclusive(optDevice, "a", "n", "p", "t")
	case o.all:
		err = o.exclusive("a", "p", "t", "n")
	case o.nickname != nil:
		err = o.exclusive("n", "p", "t")
	case empty(o.target) && empty(o.portal):
		// Also where they are empty, which FreeBSD takes for all sessions.
		err = errors.New("must specify either -a, -n, -t, or -p")
	}
	if err != nil {
		return err
	}
	return o.foreign("d", "e", "i", "r", "u", "s", optSecretFile, "v", "w")
}

func (o *options) checkDiscover() error {
	if err := o.checkSecret(); err != nil {
		return err
	}
	return o.foreign("a", "d", "e", "i", "n", "p", "t", "v", "w", optForce, optDevice)
}

// exclusive refuses the first of others that was given.
func (o *options) exclusive(name string, others ...string) error {
	for _, other := range others {
		if o.given[other] {
			return fmt.Errorf("%s and %s are mutually exclusive", dashed(name), dashed(other))
		}
	}
	return nil
}

// foreign refuses the first of others that was given.
func (o *options) foreign(others ...string) error {
	for _, other := range others {
		if o.given[other] {
			return fmt.Errorf("%s cannot be used with %s", dashed(other), o.action)
		}
	}
	return nil
}

func empty(value *string) bool { return value == nil || *value == "" }

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
