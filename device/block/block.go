// Package block is what back-ends have in common whose devices are block devices
// of the kernel: their nodes in /dev, their properties in /sys, keeping users
// away, and having the host write what it keeps.
package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/users"
)

const (
	// nodeTime is how long the nodes of a new device may take to appear.
	nodeTime = 2 * time.Second
	// glanceTime is how long others may have a device open that is to be
	// reserved: udev looks at it whenever somebody has written to it.
	glanceTime = 500 * time.Millisecond
	// syncTime bounds the writing of what the host keeps of a device that goes.
	syncTime = time.Minute
)

// Node returns the path of a device: /dev/nbd0.
func Node(name string) string { return "/dev/" + name }

// Await waits until a node is there. The kernel's devtmpfs has it at once.
func Await(ctx context.Context, path string) error {
	for end := time.Now().Add(nodeTime); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Access(path, unix.F_OK)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("there is no %s: a container needs the host's /dev, or that node made with mknod", path)
		}
	}
}

func open(name string, mode int) (int, error) {
	fd, err := unix.Open(Node(name), mode|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: Node(name), Err: err}
	}
	return fd, nil
}

// errStaysReadOnly is of a device that was made read-only, which its driver
// keeps it.
var errStaysReadOnly = errors.New("the disk is writable now; the session has to be removed and added for that")

// SetReadOnly tells the host of write protection.
func SetReadOnly(name string, on bool) error {
	want := strconv.Itoa(map[bool]int{true: 1}[on])
	if Property(name, "ro") == want {
		return nil
	}
	fd, err := open(name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value, _ := strconv.Atoi(want)
	err = unix.IoctlSetPointerInt(fd, unix.BLKROSET, value)
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), err == nil && Property(name, "ro") != want:
		return errStaysReadOnly
	case err != nil:
		return fmt.Errorf("BLKROSET: %w", err)
	}
	return nil
}

// Reserve opens a device for exclusive use, which fails while it is mounted, is
// swap, or belongs to another such device. Processes that have it open without
// that are looked for. Where it is in use, the error is device.ErrInUse.
//
// A process that dies closes its descriptors in their order. Closing the device
// may write to it, which waits until it is taken back, and that in turn for the
// end of the descriptor by which it is served: that has to come first, so that
// the one which is returned is greater.
func Reserve(name string, served int) (int, []device.User, error) {
	fd, err := open(name, unix.O_RDONLY|unix.O_EXCL)
	if errors.Is(err, unix.EBUSY) {
		return -1, users.Find(name), device.ErrInUse
	}
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(fd)
	if found := lasting(name); len(found) > 0 {
		return -1, found, device.ErrInUse
	}
	kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, served+1)
	if err != nil {
		return -1, nil, err
	}
	return kept, nil, nil
}

// lasting returns the users of a device but for this process, and but for those
// who just look at it.
func lasting(name string) (found []device.User) {
	for end := time.Now().Add(glanceTime); ; time.Sleep(50 * time.Millisecond) {
		found = users.Others(name)
		if len(found) == 0 || time.Now().After(end) {
			return found
		}
	}
}

// Sync has the host write what it keeps of a device that is to go. What users
// keep, such as file systems, is not known. A slow disk may take long, as long
// as it does not stop: progress says how many requests are done. Where it stops
// for the time of a step, fail has to end what waits for it.
func Sync(name string, step time.Duration, progress func() uint64, fail func()) error {
	done := make(chan error, 1)
	go func() { done <- flushApart(name) }()
	before, end := progress(), time.Now().Add(syncTime)
	err, ended := Wait(done, step)
	for !ended && progress() != before && time.Now().Before(end) {
		before = progress()
		err, ended = Wait(done, step)
	}
	if !ended {
		fail()
		err, _ = Wait(done, step)
		return errors.Join(errors.New("the disk does not answer in time: what was not written yet is lost"), err)
	}
	if err != nil {
		return fmt.Errorf("what was not written yet is lost: %w", err)
	}
	return nil
}

// flushApart flushes a device by a process apart; where there is none to be had, what
// the host keeps is worth more than what such a process is for.
func flushApart(name string) error {
	err := apart(syncDevice, name)
	if errors.Is(err, errNotStarted) {
		return flush(name)
	}
	return err
}

// Wait waits for the outcome of what may not end in time.
func Wait(done <-chan error, limit time.Duration) (err error, ended bool) {
	select {
	case err := <-done:
		return err, true
	case <-time.After(limit):
		return nil, false
	}
}
