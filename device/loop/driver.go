package loop

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/device"
	"iscsictl/device/block"
)

// Flags of a loop device, of linux/loop.h.
const (
	flagReadOnly = 1
	flagPartScan = 8
	flagDirectIO = 16
)

// configureTries bounds the search for a free loop device, which others may
// take between our asking for its number and using it.
const configureTries = 32

// clearTime is how long a loop device that nobody has open may take to vanish.
const clearTime = time.Second

// configure puts a loop device on a file, and returns its number. It returns
// when the kernel has looked for partitions: when the file's server answered.
func configure(path string, geo device.Geometry) (number int, err error) {
	mode := unix.O_RDWR
	if geo.ReadOnly {
		mode = unix.O_RDONLY
	}
	file, err := unix.Open(path, mode|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(file)
	config := unix.LoopConfig{Fd: uint32(file), Size: uint32(geo.LogicalBlock)}
	config.Info.Flags = flagDirectIO | flagPartScan
	if geo.ReadOnly {
		config.Info.Flags |= flagReadOnly
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], path)
	ctl, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: "/dev/loop-control", Err: err}
	}
	defer unix.Close(ctl)
	for range configureTries {
		number, err = unix.IoctlRetInt(ctl, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return -1, fmt.Errorf("no free loop device: %w", err)
		}
		err = configureOne(number, &config)
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if err != nil {
		return -1, err
	}
	return number, nil
}

func configureOne(number int, config *unix.LoopConfig) error {
	fd, err := openLoop(number, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.IoctlLoopConfigure(fd, config)
	for errors.Is(err, unix.EINTR) {
		err = unix.IoctlLoopConfigure(fd, config)
	}
	if errors.Is(err, unix.ENOTTY) {
		return fmt.Errorf("loop%d: the kernel has no LOOP_CONFIGURE (needs Linux 5.8)", number)
	}
	if err != nil {
		return fmt.Errorf("loop%d: LOOP_CONFIGURE: %w", number, err)
	}
	return nil
}

func openLoop(number, mode int) (int, error) {
	path := fmt.Sprintf("/dev/loop%d", number)
	fd, err := unix.Open(path, mode|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("there is no %s: a container needs the host's /dev, or that node made with mknod", path)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// clearLoop takes a loop device off its file, closes fd, which is one of it,
// and waits until it is gone. It is errStillOpen where others have it open.
func clearLoop(number, fd int) error {
	before := backing(number)
	err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
	unix.Close(fd)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("loop%d: LOOP_CLR_FD: %w", number, err)
	}
	// The driver lets go at the last close, in part after that has returned.
	for end := time.Now().Add(clearTime); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		// A device that has another file by now is somebody else's.
		if now := backing(number); now == "" || now != before {
			return nil
		}
	}
	return fmt.Errorf("loop%d: %w", number, errStillOpen)
}

// backing returns the path of a loop device's file, or "" where it has none.
func backing(number int) string {
	b, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", number))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(bytes.TrimRight(b, "\n")), " (deleted)")
}

func setCapacity(number int) error {
	fd, err := openLoop(number, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("LOOP_SET_CAPACITY: %w", err)
	}
	return nil
}

// tune sets what the driver cannot know. It may fail, as it is about speed only.
// Nothing is set that the driver would not set anew for the device's next file.
func tune(number int, geo device.Geometry) {
	rotational := "0"
	if geo.Rotational {
		rotational = "1"
	}
	_ = block.SetProperties(fmt.Sprintf("loop%d", number), map[string]string{"queue/rotational": rotational})
}
