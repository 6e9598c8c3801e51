package loop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device/block"
)

// Detach is device.Device's. Each step that the disk could keep from ending is
// bounded; after that the FUSE connection is aborted, which ends it.
func (d *Device) Detach() error {
	var err error
	d.once.Do(func() {
		err = d.detach()
		d.backend.unclaim(d.dir)
	})
	return err
}

func (d *Device) detach() error {
	var errs []error
	cleared := make(chan error, 1)
	go func() { cleared <- d.clear() }()
	err, ended := block.Wait(cleared, d.backend.step)
	if !ended || errors.Is(err, errStillOpen) {
		// What is under way completes first, what comes from now on fails.
		d.files.stop()
		d.files.drain(d.backend.step)
		abort(d.dir)
		if !ended {
			if err, ended = block.Wait(cleared, d.backend.step); !ended {
				err = fmt.Errorf("%s does not let go of the file", d.Path())
			}
		}
	}
	errs = append(errs, err)
	if d.served != nil {
		errs = append(errs, unmount(d.dir))
		d.files.stop()
		errs = append(errs, d.ended())
	}
	if err := os.Remove(d.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("loop: detaching %s: %w", d.Path(), err)
	}
	return nil
}

// ended waits until nothing is under way any more.
func (d *Device) ended() error {
	if n := d.files.drain(d.backend.step); n > 0 {
		return fmt.Errorf("%d requests are still with the disk", n)
	}
	select {
	case <-d.served:
	case <-time.After(d.backend.step):
		return fmt.Errorf("the kernel does not let go of %s", d.dir)
	}
	return nil
}

// errStillOpen is returned for a loop device that others have open: it is
// cleared when they close it.
var errStillOpen = errors.New("still open; it goes away when it is closed")

// clear takes the loop device off the file.
func (d *Device) clear() error {
	if d.number < 0 {
		return nil
	}
	d.mu.Lock()
	fd := d.exclusive
	d.exclusive = -1
	d.mu.Unlock()
	if fd < 0 {
		var err error
		if fd, err = openLoop(d.number, unix.O_RDONLY); err != nil {
			return err
		}
	}
	return clearLoop(d.number, fd)
}
