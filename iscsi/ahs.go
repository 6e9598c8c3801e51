package iscsi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// AHSType is the kind of an additional header segment (RFC 7143 §11.2.2.1).
type AHSType uint8

// The types. The two high bits are reserved.
const (
	AHSExtendedCDB    AHSType = 1
	AHSBidiReadLength AHSType = 2
)

const (
	ahsTypeMask = 0x3f
	ahsHeader   = 3 // AHSLength and AHSType, which AHSLength does not count
)

// AHS is one additional header segment (RFC 7143 §11.2.2).
type AHS struct {
	Type AHSType
	Data []byte // what is specific to the type: AHSLength bytes, without padding
}

// NextAHS returns the first of the additional header segments in b, and the
// others. b is all of them, of BHS.TotalAHSLength bytes; it is not copied.
func NextAHS(b []byte) (a AHS, rest []byte, err error) {
	if len(b) < ahsHeader {
		return AHS{}, nil, fmt.Errorf("additional header segment: %d bytes where a header is due", len(b))
	}
	n := ahsHeader + int(binary.BigEndian.Uint16(b))
	if n > len(b) {
		return AHS{}, nil, fmt.Errorf("additional header segment: length %d exceeds the %d bytes of the PDU", n-ahsHeader, len(b)-ahsHeader)
	}
	a = AHS{Type: AHSType(b[2] & ahsTypeMask), Data: b[ahsHeader:n:n]}
	return a, b[min(n+Pad(n), len(b)):], nil
}

// ExtendedCDB returns what of the CDB follows its first 16 bytes (RFC 7143
// §11.2.2.3): a part of a.Data.
func (a AHS) ExtendedCDB() ([]byte, error) {
	if a.Type != AHSExtendedCDB {
		return nil, fmt.Errorf("extended CDB: additional header segment is of type %d", a.Type)
	}
	if len(a.Data) < 2 {
		return nil, errors.New("extended CDB: it is empty")
	}
	return a.Data[1:], nil
}

// BidiReadLength returns how many bytes a bidirectional command is expected to
// read (RFC 7143 §11.2.2.4).
func (a AHS) BidiReadLength() (uint32, error) {
	if a.Type != AHSBidiReadLength {
		return 0, fmt.Errorf("bidirectional read length: additional header segment is of type %d", a.Type)
	}
	if len(a.Data) != 5 {
		return 0, fmt.Errorf("bidirectional read length: it is %d bytes long, not 5", len(a.Data))
	}
	return binary.BigEndian.Uint32(a.Data[1:]), nil
}

// AppendExtendedCDB appends an additional header segment, padded, with what of a
// CDB follows its first 16 bytes: 1 to 244 bytes (a CDB is at most 260: SPC-4 §4.2.3).
func AppendExtendedCDB(b, cdb []byte) []byte {
	b = appendAHS(b, AHSExtendedCDB, 1+len(cdb))
	b = append(b, cdb...)
	return append(b, make([]byte, Pad(ahsHeader+1+len(cdb)))...)
}

// AppendBidiReadLength appends an additional header segment of 8 bytes, which
// says how many bytes a bidirectional command is expected to read.
func AppendBidiReadLength(b []byte, n uint32) []byte {
	b = appendAHS(b, AHSBidiReadLength, 5)
	return binary.BigEndian.AppendUint32(b, n)
}

// appendAHS appends the header, and the reserved byte that both types begin with.
func appendAHS(b []byte, t AHSType, length int) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	return append(b, byte(t), 0)
}
