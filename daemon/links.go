package daemon

import (
	"fmt"
	"os"
	"path/filepath"

	"iscsictl/device/names"
)

// links are stable names of devices, sockets among them: by-target/TARGET/lunN
// below the run directory, a symbolic link to what the host sees. (Block devices
// have names below /dev as well: package names.) Nothing depends on them: a
// failure to make one is passed over.
type links struct{ dir string }

func (l links) path(target string, lun uint64) string {
	return filepath.Join(l.dir, names.Escape(target), fmt.Sprintf("lun%d", lun))
}

// set makes the link to a device. A link of another session to the same
// logical unit gives way.
func (l links) set(target string, lun uint64, device string) {
	path := l.path(target, lun)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return
	}
	os.Remove(path)
	_ = os.Symlink(device, path)
}

// drop removes the link, if it still is the device's.
func (l links) drop(target string, lun uint64, device string) {
	path := l.path(target, lun)
	if to, err := os.Readlink(path); err == nil && to == device {
		os.Remove(path)
		os.Remove(filepath.Dir(path)) // where it is empty now
	}
}

// clean removes all links.
func (l links) clean() { os.RemoveAll(l.dir) }
