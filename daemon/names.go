package daemon

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"iscsictl/conf"
	"iscsictl/device"
	"iscsictl/device/names"
	"iscsictl/disk"
)

// initNames prepares the names of block devices below /dev.
func (d *Daemon) initNames() {
	d.names = names.Keeper{
		Dev: d.cfg.DevDir, Sys: "/sys", Dir: filepath.Join(d.cfg.RunDir, "udev"),
		Warn: func(text string) { d.cfg.Log.Warn(text) },
	}
	for _, b := range d.cfg.Backends {
		if a, ok := b.(device.Announcer); ok {
			a.Announce(d.announce)
		}
	}
}

// watchNames keeps links to partitions up to date until the daemon stops.
func (d *Daemon) watchNames() {
	if err := d.names.Watch(d.ctx); err != nil {
		d.cfg.Log.Warn(fmt.Sprintf("links to partitions that are made later need udev: the kernel's events cannot be had: %v", err))
	}
}

// cleanNames takes away the names of devices that went with the daemon before,
// and keeps those of devices that wait.
func (d *Daemon) cleanNames() {
	d.names.Clean(d.waiting())
}

// announce is told by back-ends what a device will be called.
func (d *Daemon) announce(name device.Name, path string) {
	d.mu.Lock()
	e := d.entries[name.Session]
	d.mu.Unlock()
	if e == nil {
		return
	}
	e.devs.announced = path
	d.names.Announce(path, e.devs.attaching)
}

// block returns the kernel's name of a block device, or "" for what is none.
func block(path string) string {
	if strings.Contains(path, "/") {
		return ""
	}
	return path
}

// called returns what is known of a disk for its names.
func called(d *disk.Disk, name device.Name, c conf.Session) names.Disk {
	n := d.Names()
	host, port, err := conf.SplitAddress(c.TargetAddress)
	if err != nil { // is told at the session
		host = c.TargetAddress
	}
	return names.Disk{
		Session: name.Session, Target: name.Target, Host: host, Port: port, LUN: name.LUN, PathLUN: n.PathLUN,
		Vendor: n.Vendor, Product: n.Product, Revision: n.Revision, UnitSerial: n.UnitSerial,
		Serial: n.Serial, Short: n.Short, WWN: n.WWN, Extension: n.Extension,
	}
}

// link makes a device's names.
func (v *devices) link(s *shown) {
	v.e.d.links.set(s.linkedAs, s.name.LUN, nodePath(s.dev))
	if b := block(s.dev.Path()); b != "" {
		v.e.d.names.Show(b, called(s.disk, s.name, v.e.target()))
	}
}

// unlink takes them away.
func (v *devices) unlink(s *shown) {
	v.e.d.links.drop(s.linkedAs, s.name.LUN, nodePath(s.dev))
	if b := block(s.dev.Path()); b != "" {
		v.e.d.names.Drop(b)
	}
}

// rename gives the devices the names that go with another portal.
func (v *devices) rename() {
	v.do(func() {
		v.mu.Lock()
		all := slices.Clone(v.shown)
		v.mu.Unlock()
		for _, s := range all {
			v.link(s)
		}
	})
}

// begin notes which disk a device is attached for, and returns what to do at
// the end of that.
func (v *devices) begin(d *disk.Disk, name device.Name) (end func(ok bool)) {
	v.attaching, v.announced = called(d, name, v.e.target()), ""
	return func(ok bool) {
		if !ok && v.announced != "" {
			v.e.d.names.Drop(v.announced)
		}
	}
}
