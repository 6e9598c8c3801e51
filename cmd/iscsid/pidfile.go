package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// pidFile is the file that keeps a second daemon away: it is locked for as long
// as the daemon lives.
type pidFile struct {
	path string
	file *os.File
}

// openPIDFile opens and locks the file.
func openPIDFile(path string) (*pidFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open or create pidfile %q: %w", path, unwrap(err))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if err == unix.EWOULDBLOCK {
			head, _ := io.ReadAll(io.LimitReader(f, 32))
			return nil, fmt.Errorf("daemon already running, pid: %s.", strings.TrimSpace(string(head))) //nolint:staticcheck // iscsid(8)'s words
		}
		return nil, fmt.Errorf("cannot open or create pidfile %q: lock: %w", path, err)
	}
	if err := f.Chmod(0o600); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot open or create pidfile %q: %w", path, unwrap(err))
	}
	return &pidFile{path, f}, nil
}

// write notes our process id.
func (p *pidFile) write() error {
	text := fmt.Sprintf("%d\n", os.Getpid())
	if err := p.file.Truncate(0); err != nil {
		return fmt.Errorf("cannot write pidfile %q: %w", p.path, unwrap(err))
	}
	if _, err := p.file.WriteAt([]byte(text), 0); err != nil {
		return fmt.Errorf("cannot write pidfile %q: %w", p.path, unwrap(err))
	}
	return nil
}

// remove takes the file away, while it is still locked.
func (p *pidFile) remove() {
	os.Remove(p.path)
	p.file.Close()
}

// unwrap takes the operation and the path off an error, which the caller names.
func unwrap(err error) error {
	if e := (*os.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}
