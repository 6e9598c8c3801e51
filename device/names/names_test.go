package names

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// host is a /dev and a /sys in a directory.
type host struct {
	*Keeper
	t *testing.T
}

func newHost(t *testing.T) host {
	dir := t.TempDir()
	k := &Keeper{Dev: dir + "/dev", Sys: dir + "/sys", Dir: dir + "/run/udev", Warn: func(s string) { t.Errorf("warned: %s", s) }}
	return host{k, t}
}

// device makes a block device with partitions.
func (h host) device(name string, parts ...string) {
	h.t.Helper()
	dir := filepath.Join(h.Sys, "class/block", name)
	h.file(filepath.Join(h.Dev, name), "")
	h.file(dir+"/size", "2048\n")
	h.file(dir+"/uevent", "")
	for _, p := range parts {
		part := name + "p" + p
		h.file(filepath.Join(h.Dev, part), "")
		h.file(dir+"/"+part+"/partition", p+"\n")
		h.file(dir+"/"+part+"/uevent", "")
	}
}

func (h host) file(path, text string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// poked reports whether udev was told of a device since this was last asked.
func (h host) poked(path string) bool {
	path = filepath.Join(h.Sys, "class/block", path, "uevent")
	b, _ := os.ReadFile(path)
	h.file(path, "")
	return string(b) == "change"
}

// want judges all links, as LINK>TARGET.
func (h host) want(links ...string) {
	h.t.Helper()
	var have []string
	filepath.WalkDir(h.Dev, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type() == os.ModeSymlink {
			to, _ := os.Readlink(path)
			if _, err := os.Stat(path); err != nil {
				to += " (dangling)"
			}
			have = append(have, strings.TrimPrefix(path, h.Dev+"/")+">"+to)
		}
		return nil
	})
	slices.Sort(have)
	slices.Sort(links)
	if !slices.Equal(have, links) {
		h.t.Errorf("the links are\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(links, "\n"))
	}
}

func example() Disk {
	return Disk{
		Session: 7, Target: "iqn.2026-01.example:a", Host: "2001:db8::1", Port: "3260", LUN: 3, PathLUN: "3",
		Vendor: "LIO-ORG", Product: "RAMDISK-MCP", Revision: "4.0", UnitSerial: "abc",
		Serial: "36001405abcdef0123456789abcdef012", Short: "6001405abcdef0123456789abcdef012", WWN: "6001405abcdef012", Extension: "3456789abcdef012",
	}
}

const (
	byTarget = "iscsi/iqn.2026-01.example:a/lun3"
	byPath   = "disk/by-path/ip-2001:db8::1:3260-iscsi-iqn.2026-01.example:a-lun-3"
	bySerial = "disk/by-id/scsi-36001405abcdef0123456789abcdef012"
	byWWN    = "disk/by-id/wwn-0x6001405abcdef0123456789abcdef012"
)

func all(suffix, device string) (list []string) {
	for _, l := range []string{byTarget, byPath, bySerial, byWWN} {
		list = append(list, l+suffix+">../../"+device)
	}
	return list
}

func TestFile(t *testing.T) {
	d := example()
	want := `ISCSI_SESSION=7
ISCSI_LUN=3
ISCSI_TARGET=iqn.2026-01.example:a
ISCSI_PORTAL=2001:db8::1:3260
ID_BUS=scsi
ID_TYPE=disk
ID_VENDOR=LIO-ORG
ID_MODEL=RAMDISK-MCP
ID_REVISION=4.0
ID_SERIAL=36001405abcdef0123456789abcdef012
ID_SERIAL_SHORT=6001405abcdef0123456789abcdef012
ID_SCSI_SERIAL=abc
ID_PATH=ip-2001:db8::1:3260-iscsi-iqn.2026-01.example:a-lun-3
ID_WWN=0x6001405abcdef012
ID_WWN_WITH_EXTENSION=0x6001405abcdef0123456789abcdef012
ID_WWN_VENDOR_EXTENSION=0x3456789abcdef012
`
	if got := d.file(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := links(want); !slices.Equal(got, []string{byTarget, byPath, bySerial, byWWN}) {
		t.Errorf("%q", got)
	}
}

// TestRule: every property that makes a link here does so in udev's rule, for
// disks and for partitions, and the other way round.
func TestRule(t *testing.T) {
	b, err := os.ReadFile("../../init/60-iscsid.rules")
	if err != nil {
		t.Fatal(err)
	}
	names, _, ok := strings.Cut(string(b), "LABEL=\"iscsid_blkid\"")
	d := example()
	value := map[string]string{}
	for line := range strings.Lines(d.file()) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		value[k] = v
	}
	var disk, parts []string
	for line := range strings.Lines(names) {
		_, link, is := strings.Cut(strings.TrimSpace(line), `SYMLINK+="`)
		if !is {
			continue
		}
		link = os.Expand(strings.ReplaceAll(strings.TrimSuffix(link, `"`), "$env", "$"), func(k string) string { return value[k] })
		if strings.Contains(line, `=="partition"`) {
			parts = append(parts, link)
		} else {
			disk = append(disk, link)
		}
	}
	want := links(d.file())
	if !ok || !slices.Equal(disk, want) {
		t.Errorf("the rule links\n%q\nwant\n%q", disk, want)
	}
	for i := range want {
		want[i] += "-part%n"
	}
	if !slices.Equal(parts, want) {
		t.Errorf("the rule links partitions\n%q\nwant\n%q", parts, want)
	}
}

// TestHostileNames: nothing from outside becomes a path or another property.
func TestHostileNames(t *testing.T) {
	d := example()
	d.Target, d.Host = "../../x\nID_SERIAL=../../../etc/passwd", "h/../i \"$(x)\""
	for line := range strings.Lines(d.file()) {
		if strings.HasPrefix(line, "ID_SERIAL=.") || strings.ContainsAny(line, "\"$ /") {
			t.Errorf("%q", line)
		}
	}
	for _, l := range links("ISCSI_TARGET=..\nISCSI_LUN=1\nID_PATH=a/b\nID_SERIAL=../../x\nID_WWN_WITH_EXTENSION=\n") {
		t.Errorf("a link %q", l)
	}
}

func TestShowAndDrop(t *testing.T) {
	h := newHost(t)
	if !h.Announce("ublkb0", example()) || h.Announce("ublkb0", example()) {
		t.Error("Announce does not know what is news")
	}
	h.device("ublkb0", "1", "12")
	h.Show("ublkb0", example())
	want := slices.Concat(all("", "ublkb0"), all("-part1", "ublkb0p1"), all("-part12", "ublkb0p12"))
	h.want(want...)
	if h.poked("ublkb0") {
		t.Error("udev is told of what it knew before")
	}
	os.RemoveAll(filepath.Join(h.Sys, "class/block/ublkb0/ublkb0p12"))
	h.Refresh("ublkb0")
	h.want(slices.Concat(all("", "ublkb0"), all("-part1", "ublkb0p1"))...)

	other := example()
	other.Host = "192.0.2.1"
	h.Show("ublkb0", other)
	if !h.poked("ublkb0") || !h.poked("ublkb0/ublkb0p1") {
		t.Error("udev is not told of other names")
	}
	for i, l := range want {
		want[i] = strings.Replace(l, "2001:db8::1", "192.0.2.1", 1)
	}
	h.want(slices.DeleteFunc(want, func(l string) bool { return strings.Contains(l, "-part12") })...)
	h.Drop("ublkb0")
	h.want()
	if entries, _ := os.ReadDir(h.Dir); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
	if _, err := os.Stat(h.Dev + "/iscsi"); err == nil {
		t.Error("an empty directory is left")
	}
}

// TestTwoOfOneName: a name that two disks have stays the first's, and is the
// other's when that goes; one that leads to somebody else's device stays.
func TestTwoOfOneName(t *testing.T) {
	h := newHost(t)
	for _, d := range []string{"loop0", "loop1", "sda"} {
		h.device(d)
	}
	h.file(h.Dev+"/disk/by-id/x", "")
	if err := os.Symlink("../../sda", filepath.Join(h.Dev, byWWN)); err != nil {
		t.Fatal(err)
	}
	second := example()
	second.Host = "192.0.2.1"
	h.Show("loop0", example())
	h.Show("loop1", second)
	theirs, path2 := byWWN+">../../sda", strings.Replace(byPath, "2001:db8::1", "192.0.2.1", 1)+">../../loop1"
	h.want(theirs, path2, byPath+">../../loop0", byTarget+">../../loop0", bySerial+">../../loop0")
	h.Drop("loop0")
	h.want(theirs, path2, byTarget+">../../loop1", bySerial+">../../loop1")
	h.Drop("loop1")
	h.want(theirs)
}

// TestClean: what a daemon that died has left goes, but for devices that wait.
func TestClean(t *testing.T) {
	h := newHost(t)
	h.device("loop3", "1")
	h.device("ublkb1")
	waits := example()
	waits.Target, waits.Host, waits.Serial, waits.WWN = "iqn.2026-01.example:b", "192.0.2.2", "", ""
	h.Show("loop3", example())
	h.Show("ublkb1", waits)
	next := host{&Keeper{Dev: h.Dev, Sys: h.Sys, Dir: h.Dir, Warn: h.Warn}, t}
	next.Clean([]string{"ublkb1"})
	next.want("iscsi/iqn.2026-01.example:b/lun3>../../ublkb1", "disk/by-path/ip-192.0.2.2:3260-iscsi-iqn.2026-01.example:b-lun-3>../../ublkb1")
	if !next.poked("loop3") {
		t.Error("udev is not told")
	}
	next.poked("ublkb1")
	next.Show("ublkb1", waits)
	if next.poked("ublkb1") {
		t.Error("udev is told of what it knew before")
	}
	next.Drop("ublkb1")
	next.want()
}

func TestPartitionOf(t *testing.T) {
	for event, want := range map[string]string{
		"add@/devices/virtual/block/ublkb0/ublkb0p1\x00ACTION=add\x00SUBSYSTEM=block\x00DEVTYPE=partition\x00PARTN=1\x00": "ublkb0",
		"add@/devices/virtual/block/ublkb0\x00ACTION=add\x00SUBSYSTEM=block\x00DEVTYPE=disk\x00":                          "",
		"": "", "libudev\x00": "",
	} {
		if got := partitionOf(event); got != want {
			t.Errorf("%q: %q, want %q", event, got, want)
		}
	}
}
