// Package users finds out who uses a block device: what is mounted from it,
// swap on it, devices that are built on it, and processes that have it open.
// It is for messages and for refusing to take a device away; what another
// mount namespace has mounted is not seen.
package users

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"iscsictl/device"
)

// Bounds for the search.
const (
	maxUsers  = 16
	searching = time.Second
)

// root is where to look for users.
type root struct{ proc, sys string }

var host = root{"/proc", "/sys"}

// Find returns who uses a block device, such as "loop0", or a partition of it,
// as far as can be seen from here. It opens neither.
func Find(name string) []device.User { return find(host, name) }

// Others is Find without this process.
func Others(name string) []device.User {
	return slices.DeleteFunc(find(host, name), func(u device.User) bool { return u.PID == os.Getpid() })
}

func find(at root, name string) []device.User {
	nodes, numbers := at.nodes(name)
	users := at.mounted(nodes, numbers)
	users = append(users, at.swapping(nodes)...)
	users = append(users, at.holders(name, nodes)...)
	users = append(users, at.processes(nodes)...)
	return users[:min(len(users), maxUsers)]
}

// nodes returns the paths and the numbers (MAJOR:MINOR) of a device and its
// partitions.
func (at root) nodes(name string) (nodes, numbers []string) {
	dirs, _ := filepath.Glob(filepath.Join(at.sys, "block", name, name+"p*"))
	for _, dir := range append(dirs, filepath.Join(at.sys, "block", name)) {
		nodes = append(nodes, "/dev/"+filepath.Base(dir))
		if b, err := os.ReadFile(filepath.Join(dir, "dev")); err == nil {
			numbers = append(numbers, strings.TrimSpace(string(b)))
		}
	}
	return nodes, numbers
}

func (at root) mounted(nodes, numbers []string) (users []device.User) {
	b, err := os.ReadFile(filepath.Join(at.proc, "self/mountinfo"))
	if err != nil {
		return nil
	}
	for _, m := range parseMounts(string(b)) {
		// Some file systems have numbers of their own, some sources lie.
		if slices.Contains(nodes, m.Source) || slices.Contains(numbers, m.Major+":"+m.Minor) {
			users = append(users, device.User{What: "mounted on " + m.Point})
		}
	}
	return users
}

func (at root) swapping(nodes []string) (users []device.User) {
	f, err := os.Open(filepath.Join(at.proc, "swaps"))
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		path, _, _ := strings.Cut(lines.Text(), " ")
		if path = unescape(path); slices.Contains(nodes, path) {
			users = append(users, device.User{What: "swap on " + path})
		}
	}
	return users
}

// holders returns the devices (device mapper, md) that are built on this one.
func (at root) holders(name string, nodes []string) (users []device.User) {
	for _, node := range nodes {
		dir := filepath.Join(at.sys, "block", name)
		if part := filepath.Base(node); part != name {
			dir = filepath.Join(dir, part)
		}
		entries, _ := os.ReadDir(filepath.Join(dir, "holders"))
		for _, e := range entries {
			users = append(users, device.User{What: "held by " + e.Name()})
		}
	}
	return users
}

// processes returns who has the device open. It reads links only, and no file
// that they lead to.
func (at root) processes(nodes []string) (users []device.User) {
	end := time.Now().Add(searching)
	entries, err := os.ReadDir(at.proc)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if time.Now().After(end) || len(users) == maxUsers {
			break
		}
		if at.hasOpen(pid, nodes, end) {
			comm, _ := os.ReadFile(filepath.Join(at.proc, e.Name(), "comm"))
			users = append(users, device.User{PID: pid, What: "process " + strings.TrimSpace(string(comm))})
		}
	}
	return users
}

func (at root) hasOpen(pid int, nodes []string, end time.Time) bool {
	dir := filepath.Join(at.proc, strconv.Itoa(pid), "fd")
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	for time.Now().Before(end) {
		names, err := f.Readdirnames(256)
		for _, n := range names {
			if path, err := os.Readlink(filepath.Join(dir, n)); err == nil && slices.Contains(nodes, path) {
				return true
			}
		}
		if err != nil {
			break
		}
	}
	return false
}
