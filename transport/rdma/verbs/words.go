package verbs

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// rejection says why a peer has refused, from the status of the connection
// manager's event: a reason of the InfiniBand Architecture Specification
// (12.6.7.2), or a negative errno on iWARP.
func rejection(status int) string {
	if status < 0 {
		switch errno := syscall.Errno(-status); errno {
		case syscall.ECONNREFUSED:
			return "nothing listens there"
		case syscall.ECONNRESET:
			return ""
		default:
			return errno.Error()
		}
	}
	switch status {
	case 1, 2, 3:
		return "it has no resources left"
	case 4:
		return "it has waited for too long"
	case 8:
		return "nothing listens there"
	case 10:
		return "it takes the connection for one that was before"
	case 28:
		return "" // the consumer's own word
	default:
		return fmt.Sprintf("reason %d", status)
	}
}

// locked explains an error that may come from the limit of locked memory. n is
// how many bytes may have to be locked.
func locked(err error, n int) error {
	if !errors.Is(err, syscall.ENOMEM) {
		return err
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) != nil || limit.Cur == unix.RLIM_INFINITY {
		return err
	}
	return fmt.Errorf("%w: at most %d KiB can be locked in memory, and up to %d KiB are needed for each session: raise the limit (LimitMEMLOCK= of the systemd unit, ulimit -l, or --ulimit memlock= of the container)",
		err, limit.Cur>>10, (n+1023)>>10)
}
