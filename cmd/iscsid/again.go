package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// A Go program has threads before its first line runs: it can neither fork, nor
// set for all of them what each thread has for itself and gives to those that it
// makes. So iscsid starts itself once more. The first process sets, on one
// thread, what threads inherit, and then becomes the second (-d: whoever has
// started it goes on to know it by its number), or starts that in a session of
// its own and waits until it serves.

// stageVariable tells the second process that it is that, and of which kind.
const stageVariable = "ISCSID_STAGE"

const (
	stageHere     = "here"
	stageDetached = "detached" // the first one waits on descriptor 3
)

// stage takes the variable out of the environment, which programs that we start
// do not have to know.
func stage() string {
	s := os.Getenv(stageVariable)
	os.Unsetenv(stageVariable)
	return s
}

// again starts iscsid once more. It returns ended, with the exit status, where
// this process has nothing more to do, and else nothing: it goes on as it is.
func again(o *options, args []string, stderr io.Writer) (status int, ended bool) {
	// Never unlocked: what is set for the thread is for those that come of it.
	runtime.LockOSThread()
	inherits := setIOFlusher() == nil
	inherits = setNoNewPrivileges() == nil || inherits
	if !o.foreground {
		if err := startDetached(args); err != nil {
			fmt.Fprintf(stderr, "iscsid: %v\n", err)
			return 1, true
		}
		return 0, true
	}
	if inherits {
		// Where this fails, protect says what is missing.
		if self, err := os.Executable(); err == nil {
			_ = unix.Exec(self, args, append(os.Environ(), stageVariable+"="+stageHere))
		}
	}
	runtime.UnlockOSThread()
	return 0, false
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
	child.Env = append(os.Environ(), stageVariable+"="+stageDetached)
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
