package scsi

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// HostID is what Linux calls a logical unit: the names that udev's scsi_id gives
// it, of which those below /dev/disk/by-id are made.
type HostID struct {
	Serial string // "36001405…": the type of a designator, and its value
	Short  string // without the type
	// WWN is the first 16 hexadecimal digits of an NAA name, and Extension
	// those that follow; empty where there is none.
	WWN, Extension string
}

// hostOrder are the designators that a HostID is made of, the preferred first.
var hostOrder = []func(Designator) bool{
	func(d Designator) bool { return d.Type == DesignatorNAA && d.Value[0]>>4 == 6 },
	func(d Designator) bool { return d.Type == DesignatorNAA && d.Value[0]>>4 == 5 },
	func(d Designator) bool { return d.Type == DesignatorNAA },
	func(d Designator) bool { return d.Type == DesignatorEUI64 },
	func(d Designator) bool { return d.Type == DesignatorT10 },
	func(d Designator) bool { return d.Type == DesignatorVendor },
}

// NewHostID makes a logical unit's names of its INQUIRY data and its pages 83
// and 80.
func NewHostID(inquiry InquiryData, names []Designator, serial string) HostID {
	maker := fmt.Sprintf("%-8s%-16s", inquiry.Vendor, inquiry.Product)
	for _, fits := range hostOrder {
		for _, set := range []uint8{CodeSetBinary, CodeSetASCII} {
			for _, d := range names {
				if d.Association == OfLogicalUnit && len(d.Value) > 0 && d.CodeSet == set && fits(d) {
					return d.hostID(maker)
				}
			}
		}
	}
	if serial == "" {
		return HostID{}
	}
	return HostID{Serial: HostName("S" + maker + serial), Short: HostName(serial)}
}

func (d Designator) hostID(maker string) (id HostID) {
	value := string(d.Value)
	if d.CodeSet == CodeSetBinary {
		value = hex.EncodeToString(d.Value)
	}
	if d.Type != DesignatorVendor {
		maker = "" // the value alone is unique
	}
	id.Serial, id.Short = HostName(fmt.Sprintf("%d%s%s", d.Type, maker, value)), HostName(value)
	if d.Type == DesignatorNAA {
		id.WWN = id.Short[:min(16, len(id.Short))]
		id.Extension = id.Short[len(id.WWN):min(32, len(id.Short))]
	}
	return id
}

// HostName makes a text from a logical unit one that can be part of a file's
// name, as udev does: runs of white space become one '_', and so does each
// other character that is not in its list.
func HostName(text string) string {
	text, _, _ = strings.Cut(text, "\x00")
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n\v\f\r", r) }), "_")
	b := []byte(text)
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', strings.IndexByte("#+-.:=@_", c) >= 0:
		default:
			b[i] = '_'
		}
	}
	return string(b)
}
