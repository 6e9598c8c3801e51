package control_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"iscsictl/control"
	"iscsictl/control/controltest"
)

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestListenMode(t *testing.T) {
	path := filepath.Join(shortDir(t), "run", "iscsid", "control.sock")
	listener, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	listener.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestListenReplacesTheDead(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if _, err := control.Dial(path); !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("Dial to the dead: %v", err)
	}
	listener, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if _, err := control.Dial(path); !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("Dial to nothing: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	live := serve(t, controltest.NewRegistry())
	file := filepath.Join(shortDir(t), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		live:                                  "another iscsid answers there",
		file:                                  "not a socket",
		"/tmp/" + strings.Repeat("x", 200):    "longer than 107 bytes",
		filepath.Join(file, "s"):              "not a directory",
		filepath.Join(live, "below/the.sock"): "not a directory",
	} {
		listener, err := control.Listen(path)
		if err == nil {
			listener.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want …%s…", path, err, want)
		}
	}
	dial(t, live) // which has not suffered
}

// TestListenRace starts many daemons where one has died: one of them gets the socket.
func TestListenRace(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	var group sync.WaitGroup
	var mu sync.Mutex
	var winners []net.Listener
	for range 16 {
		group.Go(func() {
			listener, err := control.Listen(path)
			if err == nil {
				mu.Lock()
				winners = append(winners, listener)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(winners) != 1 {
		t.Errorf("%d daemons have the socket", len(winners))
	}
	for _, listener := range winners {
		listener.Close()
	}
}
