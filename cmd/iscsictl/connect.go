package main

import (
	"errors"
	"fmt"
	"os"

	"iscsictl/control"
)

// connect reaches the daemon, or says what to do.
func connect(socket string) (*control.Client, error) {
	client, err := control.Dial(socket)
	var refused *control.Error
	switch {
	case err == nil:
		return client, nil
	case errors.Is(err, control.ErrNotRunning):
		return nil, fmt.Errorf(`iscsid is not running (nothing answers at %s); start it with "systemctl start iscsid", or with "iscsid"`, socket)
	case errors.As(err, &refused) && !errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("iscsid at %s: %w", socket, refused)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("failed to open %s: Permission denied: only root and members of the group %s may control iscsid", socket, control.Group)
	}
	return nil, fmt.Errorf("failed to open %s: %w", socket, err)
}

// refused gives an error of the daemon the name of the request, as FreeBSD does
// with that of the ioctl(2): "ISCSISADD: Device or resource busy: …".
func refused(request string, err error) error {
	return fmt.Errorf("%s: %w", request, err)
}
