package block

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// What this program does under other names, and nothing else.
const (
	writeFiles = "iscsid-write" // files, each followed by its content
	syncDevice = "iscsid-sync"  // a device
)

// self is this program. Tests have another.
var self = "/proc/self/exe"

// errNotStarted is of a process that could not be had.
var errNotStarted = errors.New("no process could be started")

// apart does something by a process of its own, which has none of our descriptors:
// what waits for a disk of ours without an end, and no signal ends that. If a
// thread of this process did it, and the process died, then the thread would wait
// for a daemon to take the disk back, and that daemon for this process to be gone:
// for ever. Where it takes long, it goes on without us.
func apart(what string, args ...string) error {
	var said bytes.Buffer
	c := exec.Cmd{Path: self, Args: append([]string{what}, args...), Stderr: &said}
	if err := c.Start(); err != nil {
		return fmt.Errorf("%w: %w", errNotStarted, err)
	}
	err := c.Wait()
	if err != nil && said.Len() > 0 {
		return errors.New(strings.ReplaceAll(strings.TrimSpace(said.String()), "\n", "; "))
	}
	return err
}

// init is that process.
func init() {
	if len(os.Args) < 2 {
		return
	}
	var err error
	switch args := os.Args[1:]; os.Args[0] {
	case writeFiles:
		for ; len(args) > 1; args = args[2:] {
			err = errors.Join(err, os.WriteFile(args[0], []byte(args[1]), 0))
		}
	case syncDevice:
		err = flush(args[0])
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// flush has the host write what it keeps of a device.
func flush(name string) error {
	fd, err := open(name, unix.O_RDONLY)
	if err != nil {
		return nil // it was never started
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}
