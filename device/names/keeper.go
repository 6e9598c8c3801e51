package names

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Keeper keeps the names of a daemon's disks. Nothing depends on them: what
// cannot be made is told to Warn.
type Keeper struct {
	Dev  string // /dev, where devices are
	Sys  string // /sys
	Dir  string // of the files for udev
	Warn func(string)

	mu    sync.Mutex
	shown map[string]string // by block device: its file
}

// Announce writes down what a block device will be called. It reports whether
// that is news to udev.
func (k *Keeper) Announce(device string, d Disk) (news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.announce(device, d.file())
}

func (k *Keeper) announce(device, text string) (news bool) {
	path := filepath.Join(k.Dir, device)
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return false
	}
	if err := k.write(path, text); err != nil {
		k.Warn(fmt.Sprintf("udev is not told of %s: %v", device, err))
	}
	return true
}

func (k *Keeper) write(path, text string) error {
	if err := os.MkdirAll(k.Dir, 0o755); err != nil {
		return err
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// Show makes the names of a block device that is there, in place of those that
// it had.
func (k *Keeper) Show(device string, d Disk) {
	k.mu.Lock()
	defer k.mu.Unlock()
	text := d.file()
	if old := k.shown[device]; old != "" && old != text {
		k.unlink(device, old)
	}
	if k.shown == nil {
		k.shown = map[string]string{}
	}
	k.shown[device] = text
	news := k.announce(device, text)
	k.link(device)
	if news {
		k.poke(device)
	}
}

// Drop takes the names of a block device away. It comes before the device goes,
// and Gone after that.
func (k *Keeper) Drop(device string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(device)
}

func (k *Keeper) drop(device string) {
	path := filepath.Join(k.Dir, device)
	text := k.shown[device]
	if text == "" { // a name that a daemon before has left, or that was announced only
		old, err := os.ReadFile(path)
		if err != nil {
			return
		}
		text = string(old)
	}
	delete(k.shown, device)
	os.Remove(path)
	gone := k.unlink(device, text)
	for other, text := range k.shown { // a name that two disks have goes to the other
		if slices.ContainsFunc(links(text), func(l string) bool { return slices.Contains(gone, l) }) {
			k.link(other)
		}
	}
}

// Gone has udev look once more at a device whose disk is gone: those of some
// kinds stay, without one.
func (k *Keeper) Gone(device string) { k.poke(device) }

// Clean takes away the names of devices that a daemon before has left, but for
// those that are kept.
func (k *Keeper) Clean(kept []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	entries, _ := os.ReadDir(k.Dir)
	for _, e := range entries {
		if name := e.Name(); !slices.Contains(kept, name) {
			k.drop(name)
			k.poke(name)
		}
	}
}

// Refresh looks for partitions that have come or gone.
func (k *Keeper) Refresh(device string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.shown[device] != "" {
		k.link(device)
	}
}

// poke has the kernel announce the device once more, and its partitions after
// it, which inherit its properties.
func (k *Keeper) poke(device string) {
	for _, dir := range append([]string{device}, k.inside(device)...) {
		_ = os.WriteFile(filepath.Join(k.Sys, "class/block", dir, "uevent"), []byte("change"), 0)
	}
}

// inside returns the directories of a device's partitions, below its own.
func (k *Keeper) inside(device string) (dirs []string) {
	for _, name := range k.partitions(device) {
		dirs = append(dirs, filepath.Join(device, name))
	}
	return dirs
}

// partitions returns the kernel's names of a device's partitions, by number.
func (k *Keeper) partitions(device string) map[string]string {
	found := map[string]string{}
	files, _ := filepath.Glob(filepath.Join(k.Sys, "class/block", device, device+"*", "partition"))
	for _, f := range files {
		if number, err := os.ReadFile(f); err == nil {
			if n := strings.TrimSpace(string(number)); part(n) {
				found[n] = filepath.Base(filepath.Dir(f))
			}
		}
	}
	return found
}

// link makes what links to a device and its partitions are missing, and takes
// away those to partitions that are gone.
func (k *Keeper) link(device string) {
	parts := k.partitions(device)
	for _, l := range links(k.shown[device]) {
		k.set(l, device)
		for n, name := range parts {
			k.set(l+"-part"+n, name)
		}
		for _, of := range k.partsOf(l) {
			if to := k.leadsTo(of); isPartition(to, device) && parts[of[len(l)+len("-part"):]] != to {
				os.Remove(filepath.Join(k.Dev, of))
			}
		}
	}
}

// unlink takes the links to a device and its partitions away, and returns
// what it has taken away of the former.
func (k *Keeper) unlink(device, text string) (gone []string) {
	for _, l := range links(text) {
		if k.leadsTo(l) == device {
			os.Remove(filepath.Join(k.Dev, l))
			gone = append(gone, l)
		}
		for _, of := range k.partsOf(l) {
			if isPartition(k.leadsTo(of), device) {
				os.Remove(filepath.Join(k.Dev, of))
			}
		}
		if dir := filepath.Dir(l); strings.HasPrefix(dir, "iscsi/") { // ours alone
			os.Remove(filepath.Join(k.Dev, dir)) // where it is empty now
			os.Remove(filepath.Join(k.Dev, "iscsi"))
		}
	}
	return gone
}

// set makes a link. One that leads to another device that is there is not ours,
// or that of another way to the same disk, and stays.
func (k *Keeper) set(link, device string) {
	to := k.leadsTo(link)
	if to == device {
		return
	}
	path := filepath.Join(k.Dev, link)
	if _, err := os.Stat(path); err == nil && to != "" && !k.abandoned(to) {
		return
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		fresh := path + ".iscsid"
		os.Remove(fresh)
		if err = os.Symlink(strings.Repeat("../", strings.Count(link, "/"))+device, fresh); err == nil {
			err = os.Rename(fresh, path)
		}
	}
	if err != nil {
		k.Warn(fmt.Sprintf("%s has no link to %s: %v", path, device, err))
	}
}

// abandoned reports whether a block device has no size: whatever was on it is
// gone, as with a loop device without a file.
func (k *Keeper) abandoned(device string) bool {
	size, err := os.ReadFile(filepath.Join(k.Sys, "class/block", device, "size"))
	return errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(size)) == "0"
}

// leadsTo returns the device that a link leads to, or "".
func (k *Keeper) leadsTo(link string) string {
	to, err := os.Readlink(filepath.Join(k.Dev, link))
	if err != nil {
		return ""
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(k.Dev, filepath.Dir(link), to)
	}
	if filepath.Dir(to) != filepath.Clean(k.Dev) {
		return ""
	}
	return filepath.Base(to)
}

// partsOf returns the links to partitions that a link has beside it.
func (k *Keeper) partsOf(link string) (found []string) {
	prefix := filepath.Base(link) + "-part"
	entries, _ := os.ReadDir(filepath.Join(k.Dev, filepath.Dir(link)))
	for _, e := range entries {
		if n, ok := strings.CutPrefix(e.Name(), prefix); ok && n != "" && strings.Trim(n, "0123456789") == "" {
			found = append(found, filepath.Join(filepath.Dir(link), e.Name()))
		}
	}
	return found
}

// isPartition reports whether a name is that of a device's partition, which has
// a p between them where the device's ends in a digit, as ours all do.
func isPartition(name, device string) bool {
	n, ok := strings.CutPrefix(name, device+"p")
	return ok && n != "" && strings.Trim(n, "0123456789") == ""
}
