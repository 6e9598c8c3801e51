package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"iscsictl/conf"
	"iscsictl/control"
)

// discover asks a portal for its targets and prints an entry of iscsi.conf(5) for each.
func (c *command) discover(o *options) error {
	from, err := c.described(o)
	if err != nil {
		return err
	}
	found, err := c.client.Discover(context.Background(), from)
	var why *control.Error
	switch {
	case errors.As(err, &why) && why.Code == syscall.EIO && why.Text != "":
		return errors.New(why.Text) // says more than the code
	case err != nil:
		return fmt.Errorf("discovery at %s: %w", o.discover, err)
	}
	if len(found) == 0 {
		c.warn(fmt.Errorf("%s offers no targets to %s", o.discover, from.InitiatorName))
	}
	secret, err := secretEntry(o)
	if err != nil {
		return err
	}
	c.out.OpenList("target")
	for _, s := range found {
		c.out.OpenInstance("target")
		c.out.Hidden("name", s.TargetName)
		c.out.Hidden("portal", s.TargetAddress)
		c.out.Text(entryText(s, secret))
		c.out.Close()
	}
	c.out.Close()
	return nil
}

// secretEntry returns the line that stands for the secret, which is not printed.
func secretEntry(o *options) (string, error) {
	switch {
	case o.secretFile != nil:
		path, err := filepath.Abs(*o.secretFile)
		return fmt.Sprintf("\tchapSecret = \"file:%s\"\n", path), err
	case o.secret != nil:
		return "\t# chapSecret = what was given with -s\n", nil
	}
	return "", nil
}

// entryText returns an entry with the secret's line at its end.
func entryText(s conf.Session, secret string) string {
	s.Secret, s.MutualSecret = "", ""
	return strings.TrimSuffix(conf.Format(s), "}\n") + secret + "}\n"
}

// rescan looks for new and changed disks.
func (c *command) rescan(o *options) error {
	which := control.Selection{All: true}
	if o.session != nil {
		which = control.Selection{ID: *o.session}
	}
	switch err := c.client.Rescan(context.Background(), which); {
	case errors.Is(err, syscall.ESRCH) && o.session != nil:
		return fmt.Errorf("session-id %d not found", *o.session)
	case err != nil:
		return refused("rescan", err)
	}
	return nil
}

// sysctl shows and sets tunables, in the manner of sysctl(8).
func (c *command) sysctl(o *options) error {
	c.out.OpenList("tunable")
	defer c.out.Close()
	for _, assignment := range o.tunables {
		name, value, set := strings.Cut(assignment, "=")
		known, err := c.client.Tunables()
		if err != nil {
			return err
		}
		found := false
		for _, t := range known {
			if name != "" && name != t.Name {
				continue
			}
			found = true
			if set {
				c.setTunable(t, value)
				continue
			}
			c.showTunable(t.Name, t.Value, "")
		}
		if !found {
			c.fail(fmt.Errorf("unknown oid '%s'; \"iscsictl --sysctl\" lists them all", name))
		}
	}
	return nil
}

func (c *command) setTunable(t control.Tunable, value string) {
	if err := c.client.SetTunable(t.Name, value); err != nil {
		c.fail(fmt.Errorf("%s=%s: %w", t.Name, value, err))
		return
	}
	c.showTunable(t.Name, value, t.Value)
}

// showTunable writes "name: value", or "name: old -> new".
func (c *command) showTunable(name, value, old string) {
	c.out.OpenInstance("tunable")
	c.out.String("name", "%s", name)
	c.out.Text(": ")
	if old != "" {
		c.out.Text(old + " -> ")
	}
	c.out.String("value", "%s", value)
	c.out.Text("\n")
	c.out.Close()
}
