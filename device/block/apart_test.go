package block

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestApart: all is written that can be, and what cannot is named.
func TestApart(t *testing.T) {
	dir := t.TempDir()
	a, b, missing := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "none", "c")
	for _, file := range []string{a, b} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := apart(writeFiles, a, "1000", missing, "x", b, "write back")
	if err == nil || !strings.Contains(err.Error(), missing) || strings.Contains(err.Error(), a) {
		t.Errorf("%v, want an error that names %s alone", err, missing)
	}
	for file, want := range map[string]string{a: "1000", b: "write back"} {
		if got, _ := os.ReadFile(file); string(got) != want {
			t.Errorf("%s has %q, want %q", file, got, want)
		}
	}
	if err := apart(writeFiles, a, "500"); err != nil {
		t.Error(err)
	}
}

// TestNotApart: it is told apart from a failure that there was no process, and a
// device is flushed all the same.
func TestNotApart(t *testing.T) {
	was := self
	self = filepath.Join(t.TempDir(), "none")
	defer func() { self = was }()
	if err := apart(writeFiles, "a", "b"); !errors.Is(err, errNotStarted) {
		t.Errorf("%v, want %v", err, errNotStarted)
	}
	if err := flushApart("there-is-no-such-device"); err != nil {
		t.Errorf("a device that was never started: %v", err)
	}
}
