package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// names returns the links below /dev that have a target's name in theirs, with
// the devices that they lead to.
func names(target string) map[string]string {
	found := map[string]string{}
	for _, pattern := range []string{"/dev/iscsi/" + target + "/*", "/dev/disk/by-path/*" + target + "*"} {
		links, _ := filepath.Glob(pattern)
		for _, link := range links {
			if to, err := filepath.EvalSymlinks(link); err == nil {
				found[link] = to
			} else {
				found[link] = err.Error()
			}
		}
	}
	return found
}

// TestNames: a block device has its names when the disk is there, and none of
// them when it is gone: removed, or with a daemon that died.
func TestNames(t *testing.T) {
	t.Parallel()
	name := fmt.Sprintf("iqn.2026-11.example:names%d", os.Getpid())
	d, g := newLoopDaemon(t), newTgtd(t)
	tid := g.target(name)
	g.lun(tid, 1, 16)
	g.lun(tid, 2, 16)
	d.add(g.portal(), name)
	byTarget, byPath := "/dev/iscsi/"+name+"/lun", "/dev/disk/by-path/ip-"+g.portal()+"-iscsi-"+name+"-lun-"
	check := func(when string) {
		t.Helper()
		want := map[string]string{}
		for lun := 1; lun <= 2; lun++ {
			want[fmt.Sprint(byTarget, lun)], want[fmt.Sprint(byPath, lun)] = d.disk(name, lun), d.disk(name, lun)
		}
		if got := names(name); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s the names are\n%v\nwant\n%v", when, got, want)
		}
	}
	check("at first")
	text, err := os.ReadFile(d.run + "/udev/" + filepath.Base(d.disk(name, 1)))
	if err != nil || !strings.Contains(string(text), "\nID_PATH=ip-"+g.portal()+"-iscsi-"+name+"-lun-1\n") {
		t.Errorf("udev is told %q (%v)", text, err)
	}
	must(t, tool(t, "mkfs.ext4", "e2fsprogs"), "-q", "-F", byTarget+"1")
	t.Run("udev", func(t *testing.T) { sameInUdev(t, d.run+"/udev", d.disk(name, 1), name) })
	d.ok("-M", "-i", fmt.Sprint(d.session(name).ID), "-p", strings.Replace(g.portal(), "127.0.0.1", "localhost", 1))
	byPath = strings.Replace(byPath, "127.0.0.1", "localhost", 1)
	d.connected(name)
	eventually(t, "the names of another portal", func() bool { return names(name)[byPath+"1"] != "" })
	check("with another portal")

	d.kill()
	d.launch()
	d.connected(name)
	d.disk(name, 2)
	check("after the daemon's death")
	d.ok("-R", "-a")
	eventually(t, "no names", func() bool { return len(names(name)) == 0 })
	if left, _ := os.ReadDir(d.run + "/udev"); len(left) > 0 {
		t.Errorf("udev is still told of %v", left)
	}
	d.add(g.portal(), name)
	d.disk(name, 2)
	d.kill()
	if err := os.RemoveAll(d.run + "/state"); err != nil { // nothing comes back
		t.Fatal(err)
	}
	d.launch()
	if left := names(name); len(left) > 0 {
		t.Errorf("names of devices that are gone: %v", left)
	}
}

// TestDeviceOfFile: the file asks for the kind of device, another command line's
// notwithstanding; what cannot be had is said; a slip is shown.
func TestDeviceOfFile(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:kinds"
	d, g := newDaemon(t), newTgtd(t)
	tid := g.target(name)
	g.lun(tid, 1, 16)
	entry := func(kind string) string {
		return d.conf(fmt.Sprintf("k { TargetName = %s\n TargetAddress = %q\n Device = %s\n }\n", name, g.portal(), kind))
	}
	d.refused(`there is no kind of device "lopp": ublk, nbd, loop, socket are; did you mean loop?`, "-A", "-a", "-c", entry("lopp"))
	if _, err := attempt("modprobe", "-n", "ublk_drv"); err == nil {
		t.Log("this kernel may have ublk: what cannot be had is not tried")
	} else {
		d.ok("-A", "-a", "-c", entry("ublk"))
		d.until(name, "a note", func(s session) bool {
			for _, n := range s.Note {
				if strings.HasPrefix(n.Text, "LUN 1 has no device: Device = ublk cannot be had: ublk: ") && strings.Contains(n.Text, "iscsictl --rescan") {
					return s.State == "Connected"
				}
			}
			return false
		})
		d.ok("-R", "-a")
	}
	d.ok("-A", "-a", "-c", entry("socket"))
	if disk := d.disk(name, 1); !strings.HasSuffix(disk, ".sock") {
		t.Errorf("the disk is %s", disk)
	}
	if text := d.ok("-L", "-v"); !strings.Contains(text, "(socket): does not outlive iscsid\n") || !strings.Contains(text, "\nDevice:                   socket\n") {
		t.Errorf("the listing:\n%s", text)
	}
}

// TestSecondSession: one disk for two sessions to one logical unit, with data
// that stays when the first goes.
func TestSecondSession(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:twice"
	d, g := newDaemon(t), newTgtd(t)
	tid := g.target(name)
	g.lun(tid, 1, 16)
	first := d.add(g.portal(), name)
	disk := d.disk(name, 1)
	write, read := pattern(0x5a, 4096, 65536)
	qemuIO(t, disk, write)
	d.ok("-A", "-p", strings.Replace(g.portal(), "127.0.0.1", "localhost", 1), "-t", name, "-w", "20")
	text := d.ok("-L", "-v")
	if !strings.Contains(text, fmt.Sprintf("%s (socket): a path to the disk of session %d, idle\n", disk, first.ID)) {
		t.Errorf("the listing has no path:\n%s", text)
	}
	if sockets, _ := filepath.Glob(d.run + "/nbd/*"); !slices.Equal(sockets, []string{disk}) {
		t.Errorf("the disks are %q", sockets)
	}
	d.ok("-R", "-p", g.portal())
	s := d.until(name, "a disk of its own", func(s session) bool {
		return s.ID != first.ID && len(s.Devices.LUN) == 1 && s.Devices.LUN[0].Device != disk
	})
	qemuIO(t, s.Devices.LUN[0].Device, read)
}

// sameInUdev has udev apply its rules and ours to a disk, and judges that the
// links which it would make have all that the daemon has made. udev has a /run
// and a /dev to itself.
func sameInUdev(t *testing.T, files, disk, target string) {
	tool(t, "udevadm", "udev")
	tool(t, "unshare", "util-linux")
	rule, err := filepath.Abs("../../init/60-iscsid.rules")
	if err != nil {
		t.Fatal(err)
	}
	out := must(t, "unshare", "-m", "sh", "-e", "-c", `
		numbers=$(stat -c '0x%t 0x%T' "$3")
		mkdir "$5" && cp -r "$2" "$5/udev"
		mount -t tmpfs tmp /run
		mkdir -p /run/udev/rules.d /run/iscsid
		cp -r "$5/udev" /run/iscsid/udev
		cp "$1" /run/udev/rules.d/
		mount -t tmpfs tmp /dev
		mknod "$3" b $numbers
		mknod /dev/null c 1 3
		udevadm test --action=change "/sys/class/block/$4" 2>&1`,
		"sh", rule, files, disk, filepath.Base(disk), newDir(t)+"/copy")
	var links string
	for line := range strings.Lines(out) {
		if list, ok := strings.CutPrefix(line, "DEVLINKS="); ok {
			links = list
		}
	}
	have := strings.Fields(links)
	for link, to := range names(target) {
		if to == disk && !slices.Contains(have, link) {
			t.Errorf("udev does not make %s, but %q", link, have)
		}
	}
	if len(have) == 0 {
		t.Errorf("udev makes no links:\n%s", out)
	}
}
