package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"iscsictl/conf"
	"iscsictl/device"
	"iscsictl/disk"
)

// choice is which kind of device a disk becomes: the first of the back-ends that
// can be had here, or the one that the session or the command line asks for.
type choice struct {
	backends []device.Backend
	device   string // of the command line, for sessions that ask for none
	say      func(string)

	mu   sync.Mutex
	said map[string]string // by back-end: the last outcome that was logged
}

// kinds returns the back-ends that may show a session's disks, and who has asked
// for the only one, or "".
func (c *choice) kinds(s conf.Session) (list []device.Backend, asked string) {
	name := s.Device
	switch {
	case name != "":
		asked = "Device = " + name
	case c.device != "":
		name, asked = c.device, "-o device="+c.device
	default:
		return c.backends, ""
	}
	for _, b := range c.backends {
		if b.Name() == name {
			list = append(list, b)
		}
	}
	return list, asked
}

// probe asks whether a back-end can be used now. The log has each outcome that
// is not the last one's.
func (c *choice) probe(b device.Backend) error {
	err := b.Probe()
	text := fmt.Sprintf("devices of the kind %s can be had", b.Name())
	if err != nil {
		text = fmt.Sprintf("devices of the kind %s are passed over: %v", b.Name(), err)
	}
	c.mu.Lock()
	changed := c.said[b.Name()] != text
	c.said[b.Name()] = text
	c.mu.Unlock()
	if changed {
		c.say(text)
	}
	return err
}

// make shows a disk by the first back-end that can.
func (v *devices) make(ctx context.Context, d *disk.Disk, name device.Name) (device.Device, string, error) {
	kinds, asked := v.e.d.choice.kinds(v.e.target())
	var errs []error
	for _, b := range kinds {
		if err := v.e.d.choice.probe(b); err != nil {
			errs = append(errs, err)
			continue
		}
		end := v.begin(d, name)
		dev, err := b.Attach(ctx, d, name)
		end(err == nil)
		if err == nil {
			return dev, b.Name(), nil
		}
		if asked == "" {
			v.e.log.Warn(fmt.Sprintf("LUN %d cannot be shown as %s: %v", name.LUN, b.Name(), err))
		}
		errs = append(errs, err)
	}
	if asked == "" {
		return nil, "", errors.Join(errs...)
	}
	if len(kinds) == 0 {
		errs = append(errs, errors.New("this iscsid has no devices of that kind"))
	}
	return nil, "", fmt.Errorf("%s cannot be had: %w; mend that and run iscsictl --rescan, or ask for another kind", asked, errors.Join(errs...))
}
