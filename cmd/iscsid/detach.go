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

// readyVariable tells a daemon's process that its starter waits on descriptor 3
// to learn how the start went.
const readyVariable = "ISCSID_DETACHED"

// parent is the process that has started us and waits.
type parent struct{ pipe *os.File }

// parentOf returns the waiting parent, or nil where there is none.
func parentOf() *parent {
	if os.Getenv(readyVariable) == "" {
		return nil
	}
	os.Unsetenv(readyVariable)
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

// detach starts the daemon as a process of a session of its own, and returns
// its exit status: when it serves, or has failed to.
func detach(args []string, stderr io.Writer) int {
	if err := startDetached(args); err != nil {
		fmt.Fprintf(stderr, "iscsid: %v\n", err)
		return 1
	}
	return 0
}

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
	child.Env = append(os.Environ(), readyVariable+"=1")
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
