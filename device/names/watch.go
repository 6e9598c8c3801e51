package names

import (
	"context"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Watch keeps links to partitions up to date until ctx ends, as the kernel tells
// of them. It does not tell network namespaces of a user namespace: there,
// partitions are looked for when a disk comes or changes.
func (k *Keeper) Watch(ctx context.Context) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const fromKernel = 1 // the group; udev's own is 2
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: fromKernel}); err != nil {
		return err
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(stop)
	ended := context.AfterFunc(ctx, func() { unix.Write(stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer ended()
	buf := make([]byte, 16<<10)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}, -1)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			continue // EINTR
		}
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == unix.ENOBUFS { // some were lost
			k.refreshAll()
			continue
		}
		if sender, ok := from.(*unix.SockaddrNetlink); err != nil || !ok || sender.Pid != 0 {
			continue
		}
		if device := partitionOf(string(buf[:n])); device != "" {
			k.Refresh(device)
		}
	}
}

func (k *Keeper) refreshAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for device := range k.shown {
		k.link(device)
	}
}

// partitionOf returns the disk whose partition an event of the kernel is about,
// or "".
func partitionOf(event string) string {
	head, rest, _ := strings.Cut(event, "\x00")
	_, path, ok := strings.Cut(head, "@")
	if !ok || !strings.Contains("\x00"+rest, "\x00DEVTYPE=partition\x00") {
		return ""
	}
	return filepath.Base(filepath.Dir(path))
}
