package scsi

import (
	"encoding/binary"
	"fmt"
)

// Mode pages.
const (
	PageCaching = 0x08
	PageControl = 0x0a
	PageAll     = 0x3f
)

// Mode is what a disk's mode parameters say (SPC-4 §7.5, SBC-3 §6.5).
type Mode struct {
	WriteProtected bool   // WP
	DPOFUA         bool   // the DPO and FUA bits are honoured
	Pages          []byte // mode pages, one after another
}

const (
	mode6Header  = 4
	mode10Header = 8
	modeWP       = 0x80
	modeDPOFUA   = 0x10
)

// ParseMode6 parses MODE SENSE(6) parameter data of a block device.
func ParseMode6(b []byte) (Mode, error) {
	if len(b) < mode6Header {
		return Mode{}, short("MODE SENSE(6) data", len(b), mode6Header)
	}
	return parseMode(b, int(b[0])+1, b[2], mode6Header, int(b[3])), nil
}

// ParseMode10 parses MODE SENSE(10) parameter data of a block device.
func ParseMode10(b []byte) (Mode, error) {
	if len(b) < mode10Header {
		return Mode{}, short("MODE SENSE(10) data", len(b), mode10Header)
	}
	return parseMode(b, int(binary.BigEndian.Uint16(b))+2, b[3], mode10Header, int(binary.BigEndian.Uint16(b[6:]))), nil
}

func parseMode(b []byte, total int, specific byte, header, descriptors int) Mode {
	m := Mode{WriteProtected: specific&modeWP != 0, DPOFUA: specific&modeDPOFUA != 0}
	if total < len(b) {
		b = b[:total]
	}
	if header+descriptors < len(b) {
		m.Pages = b[header+descriptors:]
	}
	return m
}

// Page returns a mode page without subpages, its two bytes of header included,
// or nil where it is not there. It may be shorter than it says.
func (m Mode) Page(code uint8) []byte {
	b := m.Pages
	for len(b) >= 2 {
		n := 2 + int(b[1])
		if b[0]&0x40 != 0 { // a subpage
			if len(b) < 4 {
				return nil
			}
			n = 4 + int(binary.BigEndian.Uint16(b[2:]))
		}
		n = min(n, len(b))
		if b[0]&0x7f == code {
			return b[:n]
		}
		b = b[n:]
	}
	return nil
}

// Caching is the part of the caching mode page that an initiator acts on (SBC-3 §6.5.5).
type Caching struct {
	WriteCache   bool // WCE: writes may complete before they are durable
	ReadDisabled bool // RCD
}

// Caching returns the caching mode page, and reports false where it is not
// there: then nothing is known of the write cache.
func (m Mode) Caching() (Caching, bool) {
	p := m.Page(PageCaching)
	if len(p) < 3 {
		return Caching{}, false
	}
	return Caching{WriteCache: p[2]&0x04 != 0, ReadDisabled: p[2]&0x01 != 0}, true
}

// AppendPage appends the caching mode page, to be used as Mode.Pages.
func (c Caching) AppendPage(b []byte) []byte {
	p := [20]byte{PageCaching, 18}
	if c.WriteCache {
		p[2] |= 0x04
	}
	if c.ReadDisabled {
		p[2] |= 0x01
	}
	return append(b, p[:]...)
}

func (m Mode) specific() byte {
	var s byte
	if m.WriteProtected {
		s |= modeWP
	}
	if m.DPOFUA {
		s |= modeDPOFUA
	}
	return s
}

// Append6 appends MODE SENSE(6) parameter data without block descriptors. It
// fails where the pages are too long for it.
func (m Mode) Append6(b []byte) ([]byte, error) {
	n := mode6Header + len(m.Pages)
	if n-1 > 0xff {
		return b, fmt.Errorf("scsi: mode pages of %d bytes do not fit MODE SENSE(6) data", len(m.Pages))
	}
	b = append(b, byte(n-1), 0, m.specific(), 0)
	return append(b, m.Pages...), nil
}

// Append10 appends MODE SENSE(10) parameter data without block descriptors. It
// fails where the pages are too long for it.
func (m Mode) Append10(b []byte) ([]byte, error) {
	n := mode10Header + len(m.Pages)
	if n-2 > 0xffff {
		return b, fmt.Errorf("scsi: mode pages of %d bytes do not fit MODE SENSE(10) data", len(m.Pages))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(n-2))
	b = append(b, 0, m.specific(), 0, 0, 0, 0)
	return append(b, m.Pages...), nil
}
