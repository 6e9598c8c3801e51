package main

import (
	"strings"

	"iscsictl/conf/openiscsi"
)

// importRecords prints entries of iscsi.conf(5) from open-iscsi's records. It
// changes nothing, and does not need the daemon.
func (c *command) importRecords(o *options) error {
	dirs := openiscsi.Dirs
	if o.importDir != "" {
		dirs = []string{o.importDir}
	}
	entries, problems := openiscsi.Import(dirs)
	for _, err := range problems {
		c.fail(err)
	}
	if len(entries) == 0 {
		return nil
	}
	c.out.Text("# Made by iscsictl --import-open-iscsi from the records in " + strings.Join(dirs, ", ") + ".\n" +
		"# It may have secrets: keep it with the mode 0600.\n")
	c.out.OpenList("target")
	for i := range entries {
		s := &entries[i].Session
		c.out.OpenInstance("target")
		c.out.Hidden("name", s.TargetName)
		c.out.Hidden("portal", s.TargetAddress)
		c.out.Text("\n" + entries[i].Text())
		c.out.Close()
	}
	c.out.Close()
	return nil
}
