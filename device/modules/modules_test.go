package modules

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// program is a modprobe that notes its calls, and what it does.
func program(t *testing.T, does string) (l *Loader, calls func() string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "modprobe")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho \"$*\" >>"+dir+"/calls\n"+does+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return &Loader{Program: path}, func() string {
		b, _ := os.ReadFile(dir + "/calls")
		return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", " ")
	}
}

// TestLoad: an outcome holds for a while, for each module, and then another
// attempt is made.
func TestLoad(t *testing.T) {
	l, calls := program(t, `echo "modprobe: FATAL: Module $1 not found in directory /lib/modules/x" >&2; exit 1`)
	for range 3 {
		if err := l.Load("ublk_drv"); err == nil || err.Error() != "FATAL: Module ublk_drv not found in directory /lib/modules/x" {
			t.Errorf("%v", err)
		}
	}
	l.Load("nbd")
	if got := calls(); got != "ublk_drv nbd" {
		t.Errorf("modprobe was called for %q", got)
	}
	last := l.tried["nbd"]
	last.at = last.at.Add(-again)
	l.tried["nbd"] = last
	l.Load("nbd")
	if got := calls(); got != "ublk_drv nbd nbd" {
		t.Errorf("modprobe was called for %q", got)
	}
}

func TestLoadOutcomes(t *testing.T) {
	l, _ := program(t, "exit 0")
	if err := l.Load("x"); err != nil {
		t.Error(err)
	}
	l, _ = program(t, "exit 3")
	if err := l.Load("x"); err == nil || err.Error() != "modprobe x: exit status 3" {
		t.Errorf("%v", err)
	}
	if err := (&Loader{Program: "/nonexistent"}).Load("x"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
}
