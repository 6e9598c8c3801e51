package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"iscsictl/device/users"
)

// mountName matches the directories that Attach makes.
var mountName = regexp.MustCompile(`^[0-9]+-[0-9]+$`)

// Clean is device.Backend's. It looks at nothing that lies on a mount of a
// dead daemon, as that could wait for ever.
func (b *Backend) Clean() []string {
	lines := clean(b.stray)
	entries, _ := os.ReadDir(b.dir)
	for _, e := range entries {
		if dir := filepath.Join(b.dir, e.Name()); b.stray(dir) {
			os.Remove(dir) // only where it is empty
		}
	}
	return lines
}

// clean takes loop devices and mounts away whose directory is a stray one.
func clean(stray func(dir string) bool) (lines []string) {
	loops := stale(stray) // while their files' paths can be seen
	var dead []string
	for _, m := range users.Mounts() {
		if stray(m.Point) && strings.HasPrefix(m.Kind, "fuse") {
			dead = append(dead, m.Point)
			abort(m.Point) // so that nothing below waits for it
		}
	}
	for _, number := range loops {
		lines = append(lines, cleanLoop(number))
	}
	for _, dir := range dead {
		if err := unmount(dir); err != nil {
			lines = append(lines, err.Error())
			continue
		}
		lines = append(lines, "unmounted "+dir+" of a daemon that died")
	}
	return lines
}

// stray reports whether a path is one where we mount, and not in use by us.
func (b *Backend) stray(path string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return filepath.Dir(path) == b.dir && mountName.MatchString(filepath.Base(path)) && !b.live[path]
}

// stale returns the numbers of loop devices on files in stray directories.
func stale(stray func(dir string) bool) (numbers []int) {
	paths, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, p := range paths {
		name := filepath.Base(filepath.Dir(filepath.Dir(p)))
		n, err := strconv.Atoi(strings.TrimPrefix(name, "loop"))
		if err != nil {
			continue
		}
		if file := backing(n); filepath.Base(file) == fileName && stray(filepath.Dir(file)) {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func cleanLoop(number int) string {
	fd, err := openLoop(number, unix.O_RDONLY)
	if err == nil {
		err = clearLoop(number, fd)
	}
	switch {
	case errors.Is(err, errStillOpen):
		return fmt.Sprintf("loop%d of a daemon that died is still in use: unmount it, and it goes away", number)
	case err != nil:
		return fmt.Sprintf("loop%d of a daemon that died: %v", number, err)
	}
	return fmt.Sprintf("removed loop%d of a daemon that died", number)
}
