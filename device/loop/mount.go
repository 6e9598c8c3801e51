package loop

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"iscsictl/device/users"
)

const (
	fuseType = "fuse.iscsid"
	// maxBackground is how many requests FUSE has us work on at a time; the
	// loop driver has 128.
	maxBackground = 256
)

// mount mounts the file system and begins to serve it. The library could mount
// too, but would let children of the process have the descriptor, which keeps
// a dead daemon's mount alive.
func (d *Device) mount() error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	d.fuseFD = fd
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d",
		fd, os.Geteuid(), os.Getegid(), d.files.whole)
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME)
	if err := unix.Mount("iscsid", d.dir, fuseType, flags, options); err != nil {
		unix.Close(fd)
		return fmt.Errorf("mounting FUSE on %s: %w", d.dir, err)
	}
	server, err := fuse.NewServer(d.files, "/dev/fd/"+strconv.Itoa(fd), &fuse.MountOptions{
		MaxWrite:            d.files.whole,
		MaxBackground:       maxBackground,
		DisableXAttrs:       true,
		DisableReadDirPlus:  true,
		DisableSplice:       true, // there is no file below to splice from
		ExtraCapabilities:   fuse.CAP_ASYNC_DIO,
		CongestionThreshold: maxBackground,
		Logger:              d.backend.fuseLogger(),
	})
	if err != nil {
		unmount(d.dir)
		return fmt.Errorf("serving FUSE on %s: %w", d.dir, err)
	}
	d.served = make(chan struct{})
	go func() {
		defer close(d.served)
		server.Serve()
	}()
	return nil
}

func (b *Backend) fuseLogger() *log.Logger {
	if b.log == nil {
		return log.New(io.Discard, "", 0)
	}
	return slog.NewLogLogger(b.log.With("what", "fuse").Handler(), slog.LevelDebug)
}

// abort ends the FUSE connection of a mount: all that waits for its server
// fails. It does not wait for the server, and not for users of the mount.
func abort(dir string) {
	for _, m := range users.Mounts() {
		if m.Point == dir {
			// Where fusectl is mounted, this is its plain way.
			os.WriteFile(filepath.Join("/sys/fs/fuse/connections", m.Minor, "abort"), []byte("1"), 0)
		}
	}
	// To unmount by force begins with the same; that it fails where the
	// mount is in use does not matter.
	unix.Unmount(dir, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
}

// unmount takes a mount away; where it is in use, from sight at least. It
// never waits for a file system's server.
func unmount(dir string) error {
	err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: not mounted
		return fmt.Errorf("unmounting %s: %w", dir, err)
	}
	return nil
}
