package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
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
	if other := foreign(f); other != 0 {
		f.Close()
		return nil, fmt.Errorf("pidfile %q is that of another program, pid: %d, such as open-iscsi's iscsid; "+
			"stop that first (systemctl stop iscsid.socket iscsid.service), or use another file with -P", path, other)
	}
	if err := f.Chmod(0o600); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot open or create pidfile %q: %w", path, unwrap(err))
	}
	return &pidFile{path, f}, nil
}

// foreign returns the process that uses the pid file and is none of us, or 0: an
// iscsid that does not hold the lock, such as open-iscsi's, whose file has the same
// name by default. A record lock is taken besides, which is the one that open-iscsi
// tries when it starts.
func foreign(f *os.File) (pid int) {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err == unix.EAGAIN || err == unix.EACCES {
		lock = unix.Flock_t{Type: unix.F_WRLCK}
		if unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock) == nil && lock.Pid > 0 {
			return int(lock.Pid)
		}
	}
	head, _ := io.ReadAll(io.NewSectionReader(f, 0, 32))
	pid, err := strconv.Atoi(strings.TrimSpace(string(head)))
	if err != nil || pid == os.Getpid() {
		return 0
	}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && string(comm) == "iscsid\n" {
		return pid
	}
	return 0
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
