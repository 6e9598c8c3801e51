// Package conf is a session's configuration: what iscsi.conf(5) and the options
// of iscsictl(8) say, with defaults, validation, names (RFC 7143 §4.2.7),
// addresses, and the tunables of iscsi(4) and iser(4).
//
// iscsictl reads the file and sends whole sessions to the daemon, which
// validates them again.
package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"iscsictl/parser"
)

// DefaultPath is where the configuration is.
const DefaultPath = "/etc/iscsi.conf"

// File is what a configuration file says.
type File struct {
	Path     string
	Sessions []Session
	Warnings []string // to be shown; they refuse nothing
}

// Find returns the session of that nickname, in any case, or nil.
func (f *File) Find(nickname string) *Session {
	for i := range f.Sessions {
		if strings.EqualFold(f.Sessions[i].Nickname, nickname) {
			return &f.Sessions[i]
		}
	}
	return nil
}

// Parse reads and validates the file of iscsi.conf(5) at path. The result is
// never nil: with an error it has the warnings and no sessions. Mistakes in the
// file give a parser.Errors.
func Parse(path string) (*File, error) {
	file := &File{Path: path}
	data, warning, err := readFile(path, parser.MaxSize, fs.ModeNamedPipe|fs.ModeDevice|fs.ModeCharDevice)
	if err != nil {
		return file, fmt.Errorf("unable to open configuration file %s: %w", path, err)
	}
	if warning != "" {
		file.Warnings = append(file.Warnings, warning)
	}
	return file, file.parse(data)
}

// ParseBytes is Parse of a text. The name is for messages.
func ParseBytes(name string, data []byte) (*File, error) {
	file := &File{Path: name}
	return file, file.parse(data)
}

// readFile reads a file of at most limit bytes: a regular one, or one of the
// types allowed. The warning, if any, is about a regular one that others can use.
func readFile(path string, limit int64, allowed fs.FileMode) (data []byte, warning string, err error) {
	// Looking first, since opening alone does something to some devices.
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, "", cause(err)
	case info.IsDir():
		return nil, "", errors.New("is a directory")
	case info.Mode().Type()&^allowed != 0:
		return nil, "", errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, "", cause(err)
	}
	defer f.Close()
	if data, err = io.ReadAll(io.LimitReader(f, limit+1)); err != nil {
		return nil, "", cause(err)
	}
	if int64(len(data)) > limit {
		return nil, "", fmt.Errorf("larger than %d bytes", limit)
	}
	return data, permissionWarning(path, info.Mode()), nil
}

// cause returns an error without the operation and the path that package os
// puts before it: they are in our message already.
func cause(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

func permissionWarning(path string, mode fs.FileMode) string {
	switch {
	case !mode.IsRegular():
		return ""
	case mode&0o002 != 0:
		return path + " is world-writable"
	case mode&0o004 != 0:
		return path + " is world-readable"
	case mode&0o001 != 0:
		return path + " is world-executable"
	}
	return ""
}
