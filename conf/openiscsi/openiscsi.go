// Package openiscsi reads the records of open-iscsi, Linux's initiator in the
// kernel, and makes entries of iscsi.conf(5) of them.
//
// A record is a text of lines "key = value". Those of sessions are at
// nodes/TARGET/ADDRESS,PORT, as a file or, with the number of a portal group
// after the port, as a directory with a file for each interface that open-iscsi
// is to use; those of discoveries are at send_targets/ADDRESS,PORT/st_config.
package openiscsi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"iscsictl/conf"
)

// Dirs are where distributions keep the records.
var Dirs = []string{"/etc/iscsi", "/var/lib/iscsi"}

// An Entry is what became of a record.
type Entry struct {
	Session conf.Session
	Notes   []string // what has no equal, and what to know
	Unused  string   // why the entry is to be a comment, or ""
}

// Import reads the records below each of dirs. A record that cannot be read is
// among the problems, and the others are returned nevertheless.
func Import(dirs []string) (entries []Entry, problems []error) {
	im := &importer{nicknames: map[string]bool{}, sessions: map[[2]string]bool{}, targets: map[string]bool{}}
	found := false
	for i, dir := range dirs {
		if i > 0 && sameDir(filepath.Join(dir, "nodes"), filepath.Join(dirs[0], "nodes")) {
			continue
		}
		found = im.readDir(dir) || found
	}
	if !found && im.problems == nil {
		im.problem(fmt.Errorf("no records of open-iscsi (nodes, send_targets) in %s", strings.Join(dirs, " and ")))
	}
	return im.entries, im.problems
}

// importer gathers the entries.
type importer struct {
	entries  []Entry
	problems []error

	host      record             // initiatorname.iscsi
	nicknames map[string]bool    // in lower case
	sessions  map[[2]string]bool // target and portal
	targets   map[string]bool
}

func (im *importer) problem(err error) {
	if err != nil {
		im.problems = append(im.problems, err)
	}
}

// readDir reads what is below one directory, and tells whether anything is.
func (im *importer) readDir(dir string) (found bool) {
	im.host = nil
	for _, name := range []string{filepath.Join(dir, filepath.Base(conf.InitiatorNameFile)), conf.InitiatorNameFile} {
		host, err := readRecord(name)
		if err == nil {
			im.host = host
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			im.problem(err)
		}
	}
	for _, path := range im.files(filepath.Join(dir, "nodes")) {
		im.read(path, im.node)
		found = true
	}
	for _, path := range im.files(filepath.Join(dir, "send_targets")) {
		if filepath.Base(path) == "st_config" { // the rest are links to records of sessions
			im.read(path, im.discovery)
			found = true
		}
	}
	return found
}

// files returns the files two and three levels below a directory.
func (im *importer) files(top string) (paths []string) {
	var walk func(dir string, depth int)
	walk = func(dir string, depth int) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			im.problem(err)
		}
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			switch {
			case entry.IsDir() && depth < 3:
				walk(path, depth+1)
			case !entry.IsDir() && depth > 1:
				paths = append(paths, path)
			}
		}
	}
	walk(top, 1)
	return paths
}

// read makes an entry of one file.
func (im *importer) read(path string, fill func(record, *Entry)) {
	r, err := readRecord(path)
	if err != nil {
		im.problem(err)
		return
	}
	entry := Entry{Session: conf.NewSession()}
	im.initiator(r, &entry)
	fill(r, &entry)
	im.add(entry, path)
}

// add checks an entry and gives it a nickname of its own.
func (im *importer) add(e Entry, path string) {
	s := &e.Session
	if s.TargetAddress == "" || s.TargetName == "" && !s.Discovery {
		im.problem(fmt.Errorf("%s: a record without a target or an address", path))
		return
	}
	key := [2]string{s.TargetName, s.TargetAddress}
	switch {
	case e.Unused != "":
	case im.sessions[key]:
		e.Unused = "there can be one session to a target at one portal, and the entry above is it"
	case im.targets[s.TargetName]:
		e.Notes = append(e.Notes, "another portal of a target above: another path to the same disks")
	}
	im.name(s)
	if e.Unused == "" {
		e.Unused = fault(s)
	}
	if e.Unused == "" {
		im.sessions[key], im.targets[s.TargetName] = true, true
	}
	im.entries = append(im.entries, e)
}

// fault tells why a session cannot be an entry, or "".
func fault(s *conf.Session) string {
	if err := s.Validate(); err != nil {
		return err.Error()
	}
	if _, err := conf.ParseBytes("", []byte(conf.Format(*s))); err != nil {
		return "iscsi.conf(5) cannot hold all of it"
	}
	return ""
}

// name gives a session the last part of its target's name, and a number where
// that is taken.
func (im *importer) name(s *conf.Session) {
	base := s.TargetName[strings.LastIndex(s.TargetName, ":")+1:]
	if base == "" {
		base = s.TargetName
	}
	if s.Discovery {
		base = "discovery"
	}
	s.Nickname = base
	for n := 2; im.nicknames[strings.ToLower(s.Nickname)]; n++ {
		s.Nickname = fmt.Sprintf("%s-%d", base, n)
	}
	im.nicknames[strings.ToLower(s.Nickname)] = true
}

// Text returns the entry as it stands in the file, after its notes. One that is
// not to be used is a comment from its first line to its last.
func (e *Entry) Text() string {
	var b strings.Builder
	for _, note := range e.Notes {
		b.WriteString("# " + oneLine(note) + "\n")
	}
	if e.Unused == "" {
		b.WriteString(conf.Format(e.Session))
		return b.String()
	}
	b.WriteString("# Not used: " + oneLine(e.Unused) + "\n")
	for line := range strings.Lines(conf.Format(e.Session)) {
		b.WriteString("#" + line)
	}
	return b.String()
}

// oneLine makes a text fit a comment.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

func sameDir(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
