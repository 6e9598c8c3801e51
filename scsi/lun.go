package scsi

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// LUN is a logical unit number as on the wire: eight bytes, as a big-endian
// number (SAM-5 §4.7).
type LUN uint64

// Addressing methods, in the top two bits of a LUN (SAM-5 §4.7.7).
const (
	methodPeripheral = 0
	methodFlat       = 1
	maxPeripheral    = 0xff
	maxFlat          = 0x3fff
	firstLevel       = 48 // shift to the first of four levels
)

// LUNOf returns the LUN of a number as people write it: peripheral device
// addressing for 0 to 255 and flat space addressing to 16383 (SAM-5 §4.7.7.2,
// §4.7.7.3), as most initiators do. A larger number is a whole LUN as on the wire.
func LUNOf(n uint64) LUN {
	switch {
	case n <= maxPeripheral:
		return LUN(n << firstLevel)
	case n <= maxFlat:
		return LUN((methodFlat<<14 | n) << firstLevel)
	}
	return LUN(n)
}

// Number returns the LUN as people write it: the number of a single-level LUN in
// peripheral device or flat space addressing, and the LUN itself for all
// others (hierarchical and extended ones). Two LUNs of one number are one
// logical unit to people, though LUNOf gives only one of them.
func (l LUN) Number() uint64 {
	if uint64(l)&(1<<firstLevel-1) != 0 {
		return uint64(l)
	}
	first := uint64(l) >> firstLevel
	switch method := first >> 14; {
	case method == methodPeripheral && first <= maxPeripheral:
		return first
	case method == methodFlat:
		return first & maxFlat
	}
	return uint64(l)
}

// Path returns the number that Linux has in names such as those below
// /dev/disk/by-path: up to 255 as it is, else the first half of the LUN.
func (l LUN) Path() string {
	first, second := uint64(l)>>firstLevel, uint64(l)>>32&0xffff
	if second == 0 && first <= maxPeripheral {
		return strconv.FormatUint(first, 10)
	}
	return fmt.Sprintf("0x%04x%04x00000000", first, second)
}

// WellKnown reports whether this is a well-known logical unit, such as that of
// REPORT LUNS (SAM-5 §4.7.7.5.4).
func (l LUN) WellKnown() bool { return byte(l>>56) == 0xc1 }

// String returns the number, or the LUN in hexadecimal where it has none.
func (l LUN) String() string {
	if n := l.Number(); n <= maxFlat {
		return strconv.FormatUint(n, 10)
	}
	return fmt.Sprintf("0x%016x", uint64(l))
}

const lunListHeader = 8

// ParseLUNs parses REPORT LUNS parameter data (SPC-4 §6.33). total is how many
// bytes the target has for a long enough buffer, its header included, as it
// says; the list is what of it is there.
func ParseLUNs(b []byte) (list []LUN, total int64, err error) {
	if len(b) < lunListHeader {
		return nil, 0, short("REPORT LUNS data", len(b), lunListHeader)
	}
	n := int64(binary.BigEndian.Uint32(b))
	total = lunListHeader + n
	b = b[lunListHeader:]
	if n < int64(len(b)) {
		b = b[:n]
	}
	for ; len(b) >= 8; b = b[8:] {
		list = append(list, LUN(binary.BigEndian.Uint64(b)))
	}
	return list, total, nil
}

// AppendLUNs appends REPORT LUNS parameter data.
func AppendLUNs(b []byte, list []LUN) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(8*len(list)))
	b = append(b, 0, 0, 0, 0)
	for _, l := range list {
		b = binary.BigEndian.AppendUint64(b, uint64(l))
	}
	return b
}

// short is the error of an answer that is too short to mean anything.
func short(what string, have, need int) error {
	return fmt.Errorf("scsi: %s of %d bytes is shorter than %d", what, have, need)
}
