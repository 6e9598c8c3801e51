package scsi

import (
	"fmt"
	"strings"
)

// DeviceType is what kind of device a logical unit is (SPC-4 §6.6.2).
type DeviceType uint8

// Peripheral device types.
const (
	TypeDisk      DeviceType = 0x00 // SBC
	TypeTape      DeviceType = 0x01
	TypeProcessor DeviceType = 0x03
	TypeCDROM     DeviceType = 0x05
	TypeOptical   DeviceType = 0x07
	TypeChanger   DeviceType = 0x08
	TypeArray     DeviceType = 0x0c // storage array controller
	TypeEnclosure DeviceType = 0x0d
	TypeRBC       DeviceType = 0x0e // simplified disk
	TypeOSD       DeviceType = 0x11
	TypeZBC       DeviceType = 0x14 // host-managed zoned disk
	TypeWellKnown DeviceType = 0x1e
	TypeUnknown   DeviceType = 0x1f // or no device
)

var typeNames = map[DeviceType]string{
	TypeDisk:      "disk",
	TypeTape:      "tape",
	0x02:          "printer",
	TypeProcessor: "processor",
	0x04:          "write-once disk",
	TypeCDROM:     "CD-ROM",
	0x06:          "scanner",
	TypeOptical:   "optical disk",
	TypeChanger:   "medium changer",
	TypeArray:     "storage array controller",
	TypeEnclosure: "enclosure",
	TypeRBC:       "simplified disk",
	TypeOSD:       "object-based storage device",
	TypeZBC:       "host-managed zoned disk",
	TypeWellKnown: "well-known logical unit",
	TypeUnknown:   "device of unknown type",
}

// String returns what people call such a device.
func (t DeviceType) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("device of type %#02x", uint8(t))
}

// Qualifier says whether there is a device at a logical unit number (SPC-4 §6.6.2).
type Qualifier uint8

// Peripheral qualifiers.
const (
	Connected    Qualifier = 0 // accessible
	NotConnected Qualifier = 1 // possible, but not there now
	NotCapable   Qualifier = 3 // there can be none
)

// InquiryData is standard INQUIRY data (SPC-4 §6.6.2).
type InquiryData struct {
	Qualifier Qualifier
	Type      DeviceType
	Removable bool
	Version   uint8  // 5: SPC-3, 6: SPC-4
	Protect   bool   // supports protection information
	CmdQue    bool   // has a task set
	Vendor    string // up to 8 characters
	Product   string // up to 16
	Revision  string // up to 4
}

const (
	inquiryMin = 5
	inquiryLen = 36
)

// ParseInquiry parses standard INQUIRY data. Text is printable ASCII, whatever
// the target sent, without space at its ends.
func ParseInquiry(b []byte) (InquiryData, error) {
	if len(b) < inquiryMin {
		return InquiryData{}, short("INQUIRY data", len(b), inquiryMin)
	}
	d := InquiryData{
		Qualifier: Qualifier(b[0] >> 5),
		Type:      DeviceType(b[0] & 0x1f),
		Removable: b[1]&0x80 != 0,
		Version:   b[2],
	}
	if end := int(b[4]) + 5; end < len(b) {
		b = b[:end]
	}
	if len(b) >= 8 {
		d.Protect, d.CmdQue = b[5]&1 != 0, b[7]&2 != 0
	}
	d.Vendor, d.Product, d.Revision = field(b, 8, 16), field(b, 16, 32), field(b, 32, 36)
	return d, nil
}

// Append appends standard INQUIRY data, 36 bytes, of a device of SPC-3 or later.
func (d InquiryData) Append(b []byte) []byte {
	a := [inquiryLen]byte{0: byte(d.Qualifier)<<5 | byte(d.Type)&0x1f, 2: d.Version, 3: 0x12, 4: inquiryLen - 5}
	if d.Removable {
		a[1] = 0x80
	}
	if d.Protect {
		a[5] = 1
	}
	if d.CmdQue {
		a[7] = 2
	}
	pad(a[8:16], d.Vendor)
	pad(a[16:32], d.Product)
	pad(a[32:36], d.Revision)
	return append(b, a[:]...)
}

// field returns the text at [from:to) of b as far as it is there.
func field(b []byte, from, to int) string {
	if from >= len(b) {
		return ""
	}
	return printable(b[from:min(to, len(b))])
}

// printable returns text of a target as printable ASCII: up to its first NUL,
// without space at its ends, and with ? for what must not reach a terminal.
func printable(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		if c == 0 {
			break
		}
		if c < 0x20 || c > 0x7e {
			c = '?'
		}
		s.WriteByte(c)
	}
	return strings.TrimSpace(s.String())
}

// pad fills dst with s and spaces after it.
func pad(dst []byte, s string) {
	for i := copy(dst, s); i < len(dst); i++ {
		dst[i] = ' '
	}
}
