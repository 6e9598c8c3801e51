package scsi

import (
	"encoding/binary"
	"fmt"
	"math"
)

// SenseKey is the coarse reason of a CHECK CONDITION (SPC-4 §4.5.6).
type SenseKey uint8

// Sense keys.
const (
	NoSense        SenseKey = 0x0
	RecoveredError SenseKey = 0x1
	NotReady       SenseKey = 0x2
	MediumError    SenseKey = 0x3
	HardwareError  SenseKey = 0x4
	IllegalRequest SenseKey = 0x5
	UnitAttention  SenseKey = 0x6
	DataProtect    SenseKey = 0x7
	BlankCheck     SenseKey = 0x8
	VendorSpecific SenseKey = 0x9
	CopyAborted    SenseKey = 0xa
	AbortedCommand SenseKey = 0xb
	VolumeOverflow SenseKey = 0xd
	Miscompare     SenseKey = 0xe
	Completed      SenseKey = 0xf
)

var keyNames = [16]string{
	"NO SENSE", "RECOVERED ERROR", "NOT READY", "MEDIUM ERROR", "HARDWARE ERROR", "ILLEGAL REQUEST",
	"UNIT ATTENTION", "DATA PROTECT", "BLANK CHECK", "VENDOR SPECIFIC", "COPY ABORTED", "ABORTED COMMAND",
	"sense key 0xc", "VOLUME OVERFLOW", "MISCOMPARE", "COMPLETED",
}

// String returns the standard's name of the sense key.
func (k SenseKey) String() string { return keyNames[k&0x0f] }

// Sense is sense data: why a command ended with CHECK CONDITION (SPC-4 §4.5).
type Sense struct {
	Key      SenseKey
	Code     Code
	Deferred bool   // of an earlier command
	HasInfo  bool   // Info is valid
	Info     uint64 // for medium errors, the first LBA that failed
}

// Response codes (SPC-4 §4.5.1).
const (
	fixedCurrent       = 0x70
	fixedDeferred      = 0x71
	descriptorCurrent  = 0x72
	descriptorDeferred = 0x73
)

// ParseSense parses sense data of fixed or descriptor format, and reports
// false where it has not even a sense key. Shorter data than the standard asks
// for has what is there.
func ParseSense(b []byte) (Sense, bool) {
	if len(b) == 0 {
		return Sense{}, false
	}
	switch code := b[0] & 0x7f; code {
	case fixedCurrent, fixedDeferred:
		return parseFixed(b, code == fixedDeferred)
	case descriptorCurrent, descriptorDeferred:
		return parseDescriptor(b, code == descriptorDeferred)
	}
	return Sense{}, false
}

func parseFixed(b []byte, deferred bool) (Sense, bool) {
	if len(b) < 3 {
		return Sense{}, false
	}
	s := Sense{Key: SenseKey(b[2] & 0x0f), Deferred: deferred}
	if len(b) >= 8 {
		if end := 8 + int(b[7]); end < len(b) {
			b = b[:end]
		}
		s.HasInfo = b[0]&0x80 != 0
		if s.HasInfo {
			s.Info = uint64(binary.BigEndian.Uint32(b[3:]))
		}
	}
	if len(b) >= 13 {
		s.Code = Code(b[12]) << 8
	}
	if len(b) >= 14 {
		s.Code |= Code(b[13])
	}
	return s, true
}

func parseDescriptor(b []byte, deferred bool) (Sense, bool) {
	if len(b) < 2 {
		return Sense{}, false
	}
	s := Sense{Key: SenseKey(b[1] & 0x0f), Deferred: deferred}
	if len(b) >= 3 {
		s.Code = Code(b[2]) << 8
	}
	if len(b) >= 4 {
		s.Code |= Code(b[3])
	}
	if len(b) < 8 {
		return s, true
	}
	d := b[8:]
	if n := int(b[7]); n < len(d) {
		d = d[:n]
	}
	for len(d) >= 2 {
		n := min(2+int(d[1]), len(d))
		if d[0] == 0 && n >= 12 && d[2]&0x80 != 0 { // information
			s.HasInfo, s.Info = true, binary.BigEndian.Uint64(d[4:])
		}
		d = d[n:]
	}
	return s, true
}

const (
	fixedLen      = 18
	descriptorLen = 8
	infoLen       = 12
)

// AppendFixed appends the sense data in fixed format, 18 bytes. Information
// that has more than 32 bits is left out, as the format demands.
func (s Sense) AppendFixed(b []byte) []byte {
	d := [fixedLen]byte{0: fixedCurrent, 2: byte(s.Key & 0x0f), 7: fixedLen - 8, 12: byte(s.Code >> 8), 13: byte(s.Code)}
	if s.Deferred {
		d[0] = fixedDeferred
	}
	if s.HasInfo && s.Info <= math.MaxUint32 {
		d[0] |= 0x80
		binary.BigEndian.PutUint32(d[3:], uint32(s.Info))
	}
	return append(b, d[:]...)
}

// AppendDescriptor appends the sense data in descriptor format: 8 bytes, and
// 12 of an information descriptor where there is information.
func (s Sense) AppendDescriptor(b []byte) []byte {
	d := [descriptorLen + infoLen]byte{0: descriptorCurrent, 1: byte(s.Key & 0x0f), 2: byte(s.Code >> 8), 3: byte(s.Code)}
	if s.Deferred {
		d[0] = descriptorDeferred
	}
	if !s.HasInfo {
		return append(b, d[:descriptorLen]...)
	}
	d[7] = infoLen
	d[9] = infoLen - 2
	d[10] = 0x80
	binary.BigEndian.PutUint64(d[12:], s.Info)
	return append(b, d[:]...)
}

// String returns the sense data for people: "MEDIUM ERROR, UNRECOVERED READ
// ERROR (11/00) at block 4711".
func (s Sense) String() string {
	t := fmt.Sprintf("%s, %s", s.Key, s.Code)
	if s.HasInfo && (s.Key == MediumError || s.Key == HardwareError) {
		t += fmt.Sprintf(" at block %d", s.Info)
	}
	if s.Deferred {
		t += ", deferred"
	}
	return t
}
