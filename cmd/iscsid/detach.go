package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// A Go program has threads before its first line runs, and cannot fork: to
// become a daemon, iscsid starts itself once more, in a session of its own, and
// waits until that serves.

// detachedVariable tells the second process that it is that, and that the first
// one waits on descriptor 3.
const detachedVariable = "ISCSID_DETACHED"

// detached takes the variable out of the environment, which programs that we
// start do not have to know.
func detached() bool {
	_, is := os.LookupEnv(detachedVariable)
	os.Unsetenv(detachedVariable)
	return is
}

// parent is the process that has started us and waits.
type parent struct{ pipe *os.File }

// waiting returns the parent that waits.
func waiting() *parent {
	unix.CloseOnExec(3)
	return &parent{os.NewFile(3, "parent")}
}

// readyWord is what a daemon that serves says to its parent; all else is an error.
const readyWord = "ready\n"

func (p *parent) ready() {
	io.WriteString(p.pipe, readyWord)
	p.pipe.Close()
}

func (p *parent) failed(err error) {
	io.WriteString(p.pipe, err.Error()+"\n")
	p.pipe.Close()
}

// startDetached starts the daemon, and returns when it serves or has failed to.
func startDetached(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	child := exec.Command(self, args[1:]...)
	child.Args[0] = args[0]
	child.Env = append(os.Environ(), detachedVariable+"=1")
	child.ExtraFiles = []*os.File{w}
	child.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	// Paths of the command line are relative to where it was typed: the
	// directory stays until the child has opened them.
	err = child.Start()
	w.Close()
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(r, 64<<10))
	switch {
	case err != nil:
		return err
	case string(answer) == readyWord:
		return nil
	case len(answer) > 0:
		return errors.New(strings.TrimSpace(string(answer)))
	}
	if err := child.Wait(); err != nil {
		return fmt.Errorf("the daemon ended before it was ready: %w", err)
	}
	return errors.New("the daemon ended before it was ready")
}
