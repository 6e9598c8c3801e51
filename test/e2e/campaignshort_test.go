package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Faults of a campaign in which there is not enough of something.

// descriptorsShort leaves the daemon without one more descriptor while it needs
// one: it has lost its connection.
func (c *campaign) descriptorsShort() fault {
	var before unix.Rlimit
	return fault{
		name: "no descriptors", class: classAll, hold: 500 * time.Millisecond,
		begin: func() {
			pid := c.d.cmd.Process.Pid
			c.gone.begin() // nobody can open its sockets
			open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			if err == nil {
				err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before)
			}
			if err == nil {
				err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(open)), Max: before.Max}, nil)
			}
			if err != nil {
				c.broken("descriptors of iscsid: %v", err)
			}
			c.peer.stop()
			c.peer.start()
		},
		end: func() {
			if err := unix.Prlimit(c.d.cmd.Process.Pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
				c.broken("descriptors of iscsid: %v", err)
			}
			c.gone.end()
		},
	}
}

// memoryShort gives the daemon no more memory than it has. It may die of that, as Go
// programs do.
func (c *campaign) memoryShort() fault {
	var before unix.Rlimit
	return fault{
		name: "no memory", class: classDaemon, hold: 300 * time.Millisecond,
		begin: func() {
			pid := c.d.cmd.Process.Pid
			c.gone.begin()
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
			pages := uint64(0)
			if fields := strings.Fields(string(text)); err == nil {
				pages, err = strconv.ParseUint(fields[0], 10, 64)
			}
			if err == nil {
				err = unix.Prlimit(pid, unix.RLIMIT_AS, nil, &before)
			}
			if err == nil {
				err = unix.Prlimit(pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: pages * uint64(os.Getpagesize()), Max: before.Max}, nil)
			}
			if err != nil {
				c.broken("memory of iscsid: %v", err)
			}
			c.tune("kern.iscsi.debug", "2") // which takes some
			c.tune("kern.iscsi.debug", "1")
		},
		end: func() {
			if c.d.running() {
				if err := unix.Prlimit(c.d.cmd.Process.Pid, unix.RLIMIT_AS, &before, nil); err == nil {
					time.Sleep(poll)
				}
			}
			if !c.d.running() {
				c.note("iscsid has died of it")
				c.d.launch()
			}
			c.gone.end()
		},
	}
}

// memoryGroup puts the daemon into a control group that has next to no memory, and has
// it connect there. It waits for memory, or the kernel ends it.
func (c *campaign) memoryGroup() (fault, bool) {
	name := fmt.Sprintf("iscsictl-%d-%s", os.Getpid(), filepath.Base(c.d.dir))
	parent, limit, none := "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "-1"
	if _, err := os.Stat(parent); err != nil { // the second version
		parent, limit, none = "/sys/fs/cgroup", "memory.max", "max"
	}
	group := filepath.Join(parent, name)
	err := os.Mkdir(group, 0o700)
	if err == nil {
		c.t.Cleanup(func() {
			if !within(patience, func() bool { return os.Remove(group) == nil }) {
				c.t.Errorf("%s stays", group)
			}
		})
		_, err = os.Stat(filepath.Join(group, limit))
	}
	if err != nil {
		c.note("no control group for memory: %v", err)
		return fault{}, false
	}
	write := func(dir, file, text string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			c.note("%v", err)
		}
	}
	return fault{
		name: "no memory in its control group", class: classAll, hold: time.Second,
		begin: func() {
			c.gone.begin()
			write(group, limit, "1048576")
			write(group, "cgroup.procs", strconv.Itoa(c.d.cmd.Process.Pid))
			c.peer.stop()
			c.peer.start()
		},
		end: func() {
			write(group, limit, none)
			if c.d.running() {
				write(parent, "cgroup.procs", strconv.Itoa(c.d.cmd.Process.Pid))
				time.Sleep(poll)
			}
			if !c.d.running() {
				c.note("iscsid has died of it")
				c.d.launch()
			}
			c.gone.end()
		},
	}, true
}

// stateFull leaves no room for the state file, where the daemon's state has a file
// system of its own.
func (c *campaign) stateFull() (fault, bool) {
	at := slices.Index(c.d.args, "--state")
	if at < 0 {
		return fault{}, false
	}
	filler := c.d.args[at+1] + "/filler"
	return fault{
		name: "state's disk full", class: classState, hold: 200 * time.Millisecond,
		begin: func() {
			f, err := os.Create(filler)
			if err != nil {
				c.broken("%v", err)
				return
			}
			defer f.Close()
			for _, n := range []int{4096, 1} {
				for err = nil; err == nil; _, err = f.Write(make([]byte, n)) {
				}
			}
			// Something that is to be saved.
			c.tune("kern.iscsi.debug", "2")
			c.tune("kern.iscsi.debug", "1")
		},
		end: func() {
			if err := os.Remove(filler); err != nil {
				c.broken("%v", err)
			}
		},
	}, true
}
