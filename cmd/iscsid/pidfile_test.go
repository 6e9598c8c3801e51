package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestForeignPIDFile has another iscsid in the file, which it does not lock, as
// open-iscsi's does: its number is left alone, and the message says whose file that is.
func TestForeignPIDFile(t *testing.T) {
	dir := t.TempDir()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("SKIP: needs sleep")
	}
	if err := os.Symlink(sleep, dir+"/iscsid"); err != nil {
		t.Fatal(err)
	}
	other := exec.Command(dir+"/iscsid", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait() //nolint:errcheck // it is killed
	defer other.Process.Kill()
	number := fmt.Sprintln(other.Process.Pid)
	if err := os.WriteFile(dir+"/pid", []byte(number), 0o600); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("is that of another program, pid: %d, such as open-iscsi's iscsid; stop that first", other.Process.Pid)
	if p, err := openPIDFile(dir + "/pid"); err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("%v, %v, want %q", p, err, want)
	}
	if text, _ := os.ReadFile(dir + "/pid"); string(text) != number {
		t.Errorf("the file has %q now", text)
	}
	// One that has died, or was somebody else's, is no obstacle.
	for _, stale := range []string{"", "x", "4194305\n", "1\n", fmt.Sprintln(os.Getpid())} {
		if err := os.WriteFile(dir+"/pid", []byte(stale), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := openPIDFile(dir + "/pid")
		if err != nil {
			t.Fatalf("%q: %v", stale, err)
		}
		p.remove()
	}
}

// TestPIDFileKeepsOthersAway makes sure that open-iscsi's way to lock finds the file
// in use.
func TestPIDFileKeepsOthersAway(t *testing.T) {
	path := t.TempDir() + "/pid"
	p, err := openPIDFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.write(); err != nil {
		t.Fatal(err)
	}
	if _, err := openPIDFile(path); err == nil || err.Error() != fmt.Sprintf("daemon already running, pid: %d.", os.Getpid()) {
		t.Errorf("a second one: %v", err)
	}
	theirs, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if err := unix.FcntlFlock(theirs.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != unix.EAGAIN && err != unix.EACCES {
		t.Errorf("a record lock: %v, want it refused", err)
	}
	p.remove()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}
