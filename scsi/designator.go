package scsi

import (
	"encoding/hex"
	"slices"
)

// DesignatorType is how a designator names (SPC-4 §7.8.6.1).
type DesignatorType uint8

// Designator types.
const (
	DesignatorVendor   DesignatorType = 0 // vendor specific
	DesignatorT10      DesignatorType = 1 // T10 vendor and something of his
	DesignatorEUI64    DesignatorType = 2 // EUI-64, of 8, 12 or 16 bytes
	DesignatorNAA      DesignatorType = 3 // network address authority, of 8 or 16 bytes
	DesignatorPort     DesignatorType = 4 // relative target port
	DesignatorGroup    DesignatorType = 5 // target port group
	DesignatorLUGroup  DesignatorType = 6 // logical unit group
	DesignatorMD5      DesignatorType = 7 // MD5 logical unit identifier
	DesignatorSCSIName DesignatorType = 8 // SCSI name string, in UTF-8
)

// Association is what a designator names.
type Association uint8

// Associations.
const (
	OfLogicalUnit Association = 0
	OfTargetPort  Association = 1
	OfTarget      Association = 2
)

// Code sets of designators.
const (
	CodeSetBinary = 1
	CodeSetASCII  = 2
	CodeSetUTF8   = 3
)

// Designator is one name in VPD page 83 (SPC-4 §7.8.6).
type Designator struct {
	Type        DesignatorType
	Association Association
	CodeSet     uint8
	Value       []byte // a view of what was parsed
}

// ParseDesignators parses VPD page 83.
func ParseDesignators(b []byte) ([]Designator, error) {
	p, err := vpd(b, VPDIdentification)
	if err != nil {
		return nil, err
	}
	var list []Designator
	for len(p) >= 4 {
		n := int(p[3])
		if 4+n > len(p) {
			break // half a name would be the name of another
		}
		list = append(list, Designator{
			Type:        DesignatorType(p[1] & 0x0f),
			Association: Association(p[1] >> 4 & 3),
			CodeSet:     p[0] & 0x0f,
			Value:       p[4 : 4+n : 4+n],
		})
		p = p[4+n:]
	}
	return list, nil
}

// AppendDesignators appends VPD page 83.
func AppendDesignators(b []byte, list ...Designator) []byte {
	var p []byte
	for _, d := range list {
		v := d.Value[:min(len(d.Value), 0xff)]
		p = append(p, d.CodeSet&0x0f, byte(d.Association)&3<<4|byte(d.Type)&0x0f, 0, byte(len(v)))
		p = append(p, v...)
	}
	return AppendVPD(b, TypeDisk, VPDIdentification, p)
}

// rank is how good a designator is as a stable identity; 0: of no use.
func (d Designator) rank() int {
	if d.Association != OfLogicalUnit || len(d.Value) == 0 || allZero(d.Value) {
		return 0
	}
	switch d.Type {
	case DesignatorNAA:
		switch naa := d.Value[0] >> 4; {
		case naa == 6 && len(d.Value) == 16:
			return 9
		case naa == 5 && len(d.Value) == 8:
			return 8
		case naa == 2 && len(d.Value) == 8:
			return 7
		case naa == 3 && len(d.Value) == 8: // locally assigned
			return 3
		}
	case DesignatorEUI64:
		return 6
	case DesignatorSCSIName:
		return 5
	case DesignatorT10:
		return 4
	case DesignatorMD5:
		return 2
	case DesignatorVendor:
		return 1
	}
	return 0
}

// BestDesignator returns the designator of the logical unit that is most surely
// unique in the world and stays the same: NAA registered extended, other NAA,
// EUI-64, SCSI name, T10 vendor, and what is left. It reports false where
// there is none.
func BestDesignator(list []Designator) (Designator, bool) {
	if len(list) == 0 {
		return Designator{}, false
	}
	// The first of several of one rank, as targets append what is new.
	best := slices.MaxFunc(list, func(a, b Designator) int { return a.rank() - b.rank() })
	return best, best.rank() > 0
}

// Unique reports whether the designator is made to be that of one logical unit in
// the world: an IEEE name of it, with a company in it. (tgt's have none, and are
// the same on each host.)
func (d Designator) Unique() bool {
	switch d.rank() {
	case 6: // EUI-64
		return len(d.Value) >= 8 && !allZero(d.Value[:3])
	case 7: // NAA 2: the company comes after 12 bits
		return d.Value[2]|d.Value[3]|d.Value[4] != 0
	case 8, 9: // NAA 5, 6: after 4
		return d.Value[0]&0x0f|d.Value[1]|d.Value[2]|d.Value[3]&0xf0 != 0
	}
	return false
}

// Equal reports whether two designators are the same name.
func (d Designator) Equal(e Designator) bool {
	return d.Type == e.Type && d.Association == e.Association && slices.Equal(d.Value, e.Value)
}

// String returns the designator for people: "naa.6001405…", "eui.…",
// "t10.ATA …", the SCSI name itself, or hexadecimal.
func (d Designator) String() string {
	switch d.Type {
	case DesignatorNAA:
		return "naa." + hex.EncodeToString(d.Value)
	case DesignatorEUI64:
		return "eui." + hex.EncodeToString(d.Value)
	case DesignatorT10:
		return "t10." + d.text()
	case DesignatorSCSIName:
		return printable(d.Value)
	case DesignatorMD5:
		return "md5." + hex.EncodeToString(d.Value)
	}
	return d.text()
}

func (d Designator) text() string {
	if d.CodeSet == CodeSetBinary {
		if d.Type == DesignatorT10 && len(d.Value) > 8 {
			return printable(d.Value[:8]) + "." + hex.EncodeToString(d.Value[8:])
		}
		return hex.EncodeToString(d.Value)
	}
	return printable(d.Value)
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
