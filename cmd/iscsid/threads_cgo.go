//go:build cgo

package main

// Beside threads of C's, Go's runtime cannot have all threads make a system call.
// So this runs before it, in the one thread that all others come of.

/*
#include <sys/prctl.h>

__attribute__((constructor)) static void confine_first_thread(void)
{
	prctl(57, 1, 0, 0, 0); // PR_SET_IO_FLUSHER, which the headers may not have yet
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
*/
import "C"

// confine is done already: see threads.go.
func confine() {}
