package main

import "golang.org/x/sys/unix"

// setNoNewPrivileges keeps the calling thread, those that it makes, and all that
// it executes from getting more privileges than it has (PR_SET_NO_NEW_PRIVS).
func setNoNewPrivileges() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }

// conceal keeps secrets and the data of disks out of core dumps, and other
// processes of the same user out of our memory (PR_SET_DUMPABLE).
func conceal() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
