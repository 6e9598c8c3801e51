package loop

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

// Bounds for the search for users, which is for a message only.
const (
	maxUsers  = 16
	searching = time.Second
)

// root is where to look for users.
type root struct{ proc, sys string }

var hostRoot = root{"/proc", "/sys"}

// findUsers returns who uses a block device ("loop0") or a partition of it, as
// far as can be seen from here: mounts of other mount namespaces are not.
func findUsers(at root, name string) []device.User {
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
		if slices.Contains(nodes, m.source) || slices.Contains(numbers, m.major+":"+m.minor) {
			users = append(users, device.User{What: "mounted on " + m.point})
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
