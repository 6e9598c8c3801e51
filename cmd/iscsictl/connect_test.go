package main

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"iscsictl/control/controltest"
)

// TestStrangersAreToldWhoMay connects as a user who may not: kept out by the socket's
// mode, and, where that lets them in, by the daemon.
func TestStrangersAreToldWhoMay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	stop := daemon(t, path, controltest.NewRegistry())
	defer stop()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want := "failed to open " + path + ": Permission denied: only root and members of the group iscsi may control iscsid"
	for _, mode := range []os.FileMode{0o660, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := connectAs(61002, path); err == nil || err.Error() != want {
			t.Errorf("mode %v: got %v, want %s", mode, err, want)
		}
	}
}

// connectAs connects from a thread that has become another user, and ends after it:
// credentials are a thread's own where the C library has no say.
func connectAs(uid uintptr, path string) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid)
		}
		if errno != 0 {
			result <- errno
			return
		}
		client, err := connect(path)
		if client != nil {
			client.Close()
		}
		result <- err
	}()
	return <-result
}
