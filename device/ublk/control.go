package ublk

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"iscsictl/device/modules"
)

const (
	controlPath = "/dev/ublk-control"
	// noQueue is the queue of commands that are not for one.
	noQueue = 0xffff
	// noID is the number of a device that the driver is to choose.
	noID = 0xffffffff
)

// control carries out one command of /dev/ublk-control, and returns when the
// driver has done it: for some that is when others have done something. Each
// has a ring of its own, so that none waits for another.
func control(name string, number uint32, c ctrlCmd) error {
	err := controlCmd(number, c)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func controlCmd(number uint32, c ctrlCmd) error {
	fd, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: controlPath, Err: err}
	}
	defer unix.Close(fd)
	// The thread's end would cancel the command.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := newRing(1, setupSQE128)
	if err != nil {
		return err
	}
	defer r.close()
	e := r.next()
	e.command(fd, number, 0)
	*(*ctrlCmd)(e.payload()) = c
	for {
		if err := r.enter(1); err != nil {
			return err
		}
		if done, ok := r.take(); ok {
			if done.res < 0 {
				return unix.Errno(-done.res)
			}
			return nil
		}
	}
}

// exchange is control with a buffer, which the driver reads or writes.
func exchange[T any](name string, number, id uint32, buf *T) error {
	var pin runtime.Pinner
	pin.Pin(buf)
	defer pin.Unpin()
	return control(name, number, ctrlCmd{
		devID: id, queueID: noQueue,
		addr: uint64(uintptr(unsafe.Pointer(buf))), length: uint16(unsafe.Sizeof(*buf)),
	})
}

// plain is control with a number instead.
func plain(name string, number, id uint32, data uint64) error {
	return control(name, number, ctrlCmd{devID: id, queueID: noQueue, data: data})
}

// features asks what the driver can do.
func features() (f uint64, err error) {
	err = exchange("GET_FEATURES", cmdGetFeatures, noID, &f)
	return f, err
}

func getInfo(id uint32) (info devInfo, err error) {
	err = exchange("GET_DEV_INFO", cmdGetDevInfo, id, &info)
	return info, err
}

func getParams(id uint32) (p params, err error) {
	p.length = uint32(unsafe.Sizeof(p))
	err = exchange("GET_PARAMS", cmdGetParams, id, &p)
	return p, err
}

// probe returns what the driver can do, or why it cannot be used.
func probe() (uint64, error) {
	fd, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	var needs string
	if err != nil {
		needs = modules.Need("ublk_drv")
		fd, err = unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return 0, fmt.Errorf("ublk: this kernel has no ublk (needs Linux 6.5 with CONFIG_BLK_DEV_UBLK; %s)", needs)
	case err != nil:
		return 0, fmt.Errorf("ublk: %w", &fs.PathError{Op: "open", Path: controlPath, Err: err})
	}
	unix.Close(fd)
	if !modules.Admin() {
		return 0, errors.New("ublk: devices need CAP_SYS_ADMIN: run as root, in a container with that capability")
	}
	f, err := features()
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), err == nil && f&featUserCopy == 0, err == nil && f&featIoctlEncode == 0:
		return 0, errors.New("ublk: this kernel's ublk is too old (needs UBLK_F_USER_COPY: Linux 6.5)")
	case err != nil:
		return 0, fmt.Errorf("ublk: %w", err)
	}
	return f, nil
}
