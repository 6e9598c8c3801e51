package verbs

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRejections(t *testing.T) {
	for status, want := range map[int]string{
		8: "nothing listens there", -int(syscall.ECONNREFUSED): "nothing listens there",
		28: "", -int(syscall.ECONNRESET): "", 77: "reason 77", -int(syscall.EPROTO): "protocol error",
	} {
		if got := rejection(status); got != want {
			t.Errorf("rejection(%d) = %q, want %q", status, got, want)
		}
	}
}

func TestLockedSaysHowMuchIsNeeded(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	err := locked(fmt.Errorf("register: %w", syscall.ENOMEM), 64<<20)
	if !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("the cause is gone: %v", err)
	}
	if limit.Cur != unix.RLIM_INFINITY && !strings.Contains(err.Error(), "65536 KiB") {
		t.Errorf("it does not say how much is needed: %v", err)
	}
	if err := locked(syscall.EINVAL, 1); err != syscall.EINVAL {
		t.Errorf("another error became %v", err)
	}
}
