//go:build !cgo

package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// confine sets what each thread has for itself and gives to those that it makes,
// for all of them: the mark of PR_SET_IO_FLUSHER, and that none gets more
// privileges than it has, nor does what it executes (PR_SET_NO_NEW_PRIVS). Where
// that fails, protect says what is missing.
func confine() {
	for _, option := range []uintptr{unix.PR_SET_IO_FLUSHER, unix.PR_SET_NO_NEW_PRIVS} {
		_, _, _ = syscall.AllThreadsSyscall6(unix.SYS_PRCTL, option, 1, 0, 0, 0, 0)
	}
}
