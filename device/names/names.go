// Package names gives disks names that stay: symbolic links below /dev, as udev
// makes them for a kernel's own iSCSI disks.
//
// What a disk is called is written to a file of udev's format, named as the
// block device, before that appears where its number is known by then. Where
// udev runs, the rule in init/60-iscsid.rules makes the links of that file. The
// same links are made here as well, so that they are there when the disk is,
// and where there is no udev, such as in a container. Either passes over
// what the other has done.
package names

import (
	"fmt"
	"path"
	"strings"
)

// Disk is what is known of a disk for its names. The texts but Target and Host
// are such that can be part of a file's name.
type Disk struct {
	Session    uint32
	Target     string
	Host, Port string // of the portal, as configured
	LUN        uint64
	PathLUN    string // the LUN as Linux has it in names of paths

	Vendor, Product, Revision, UnitSerial string
	Serial, Short, WWN, Extension         string // as scsi_id calls them
}

// property is a line of the file.
type property struct{ key, value string }

// properties are what udev is told, the names of which its own rules know.
func (d *Disk) properties() []property {
	list := []property{
		{"ISCSI_SESSION", fmt.Sprint(d.Session)},
		{"ISCSI_LUN", fmt.Sprint(d.LUN)},
		{"ISCSI_TARGET", Escape(d.Target)},
		{"ISCSI_PORTAL", Escape(d.portal())},
		{"ID_BUS", "scsi"},
		{"ID_TYPE", "disk"},
		{"ID_VENDOR", d.Vendor},
		{"ID_MODEL", d.Product},
		{"ID_REVISION", d.Revision},
		{"ID_SERIAL", d.Serial},
		{"ID_SERIAL_SHORT", d.Short},
		{"ID_SCSI_SERIAL", d.UnitSerial},
		{"ID_PATH", d.path()},
	}
	if d.WWN != "" {
		list = append(list, property{"ID_WWN", "0x" + d.WWN}, property{"ID_WWN_WITH_EXTENSION", "0x" + d.WWN + d.Extension})
		if d.Extension != "" {
			list = append(list, property{"ID_WWN_VENDOR_EXTENSION", "0x" + d.Extension})
		}
	}
	return list
}

// portal is the address and port as udev has them in names of paths: that of
// IPv6 without brackets.
func (d *Disk) portal() string { return d.Host + ":" + d.Port }

func (d *Disk) path() string {
	return "ip-" + Escape(d.portal()) + "-iscsi-" + Escape(d.Target) + "-lun-" + d.PathLUN
}

// file is what udev's IMPORT{file} reads.
func (d *Disk) file() string {
	var b strings.Builder
	for _, p := range d.properties() {
		if p.value != "" {
			fmt.Fprintf(&b, "%s=%s\n", p.key, p.value)
		}
	}
	return b.String()
}

// links returns the names, below /dev, of a disk of which there is such a file.
// The rule in init/60-iscsid.rules has the same.
func links(file string) (list []string) {
	value := map[string]string{}
	for line := range strings.Lines(file) {
		key, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if part(v) {
			value[key] = v
		}
	}
	add := func(prefix, key string) {
		if v := value[key]; v != "" {
			list = append(list, prefix+v)
		}
	}
	if target, lun := value["ISCSI_TARGET"], value["ISCSI_LUN"]; target != "" && lun != "" {
		list = append(list, path.Join("iscsi", target, "lun"+lun))
	}
	add("disk/by-path/", "ID_PATH")
	add("disk/by-id/scsi-", "ID_SERIAL")
	add("disk/by-id/wwn-", "ID_WWN_WITH_EXTENSION")
	return list
}

// part reports whether a text can be part of a path.
func part(s string) bool { return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00") }

// Escape makes a text from outside fit for a path, as udev does: what is not in
// its list of characters becomes \xNN, and so does a dot in front.
func Escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z',
			strings.IndexByte("#+-:=@_", c) >= 0, c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
