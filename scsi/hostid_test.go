package scsi

import (
	"strings"
	"testing"
)

// TestHostID: the names are those that scsi_id of udev 252 prints for such
// pages.
func TestHostID(t *testing.T) {
	lio := InquiryData{Vendor: "LIO-ORG", Product: "RAMDISK-MCP"}
	naa6 := Designator{Type: DesignatorNAA, CodeSet: CodeSetBinary, Value: []byte("\x60\x01\x40\x5a\xbc\xde\xf0\x12\x34\x56\x78\x9a\xbc\xde\xf0\x12")}
	naa5 := Designator{Type: DesignatorNAA, CodeSet: CodeSetBinary, Value: []byte("\x50\x01\x40\x5a\xbc\xde\xf0\x12")}
	naa3 := Designator{Type: DesignatorNAA, CodeSet: CodeSetBinary, Value: []byte("\x30\x00\x00\x01\x00\x00\x00\x01")}
	t10 := Designator{Type: DesignatorT10, CodeSet: CodeSetASCII, Value: []byte("LIO-ORG RAMDISK-MCP:6ba7 b810\x00\x00")}
	own := Designator{Type: DesignatorVendor, CodeSet: CodeSetASCII, Value: []byte("one/two")}
	eui := Designator{Type: DesignatorEUI64, CodeSet: CodeSetBinary, Value: []byte{0, 1, 2, 3, 4, 5, 6, 7}}
	port := Designator{Type: DesignatorNAA, Association: OfTargetPort, CodeSet: CodeSetBinary, Value: naa5.Value}
	for name, c := range map[string]struct {
		names []Designator
		want  HostID
	}{
		"NAA 6":       {[]Designator{t10, port, naa5, naa6}, HostID{"36001405abcdef0123456789abcdef012", "6001405abcdef0123456789abcdef012", "6001405abcdef012", "3456789abcdef012"}},
		"NAA 5":       {[]Designator{t10, naa3, naa5}, HostID{"35001405abcdef012", "5001405abcdef012", "5001405abcdef012", ""}},
		"NAA 3":       {[]Designator{t10, eui, naa3}, HostID{"33000000100000001", "3000000100000001", "3000000100000001", ""}},
		"EUI-64":      {[]Designator{own, t10, eui}, HostID{Serial: "20001020304050607", Short: "0001020304050607"}},
		"T10":         {[]Designator{own, t10}, HostID{Serial: "1LIO-ORG_RAMDISK-MCP:6ba7_b810", Short: "LIO-ORG_RAMDISK-MCP:6ba7_b810"}},
		"vendor":      {[]Designator{port, own}, HostID{Serial: "0LIO-ORG_RAMDISK-MCP_one_two", Short: "one_two"}},
		"page 80":     {[]Designator{port}, HostID{Serial: "SLIO-ORG_RAMDISK-MCP_12_34", Short: "12_34"}},
		"empty names": {[]Designator{{Type: DesignatorNAA, CodeSet: CodeSetBinary}}, HostID{Serial: "SLIO-ORG_RAMDISK-MCP_12_34", Short: "12_34"}},
	} {
		if got := NewHostID(lio, c.names, "12  34"); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if got := NewHostID(lio, nil, ""); got != (HostID{}) {
		t.Errorf("without any name: %+v", got)
	}
}

func FuzzHostID(f *testing.F) {
	f.Add([]byte{0, 0x83, 0, 12, 1, 3, 0, 8, 0x60, 1, 2, 3, 4, 5, 6, 7}, "serial/../\x00\n")
	f.Fuzz(func(t *testing.T, page []byte, serial string) {
		names, err := ParseDesignators(page)
		if err != nil {
			return
		}
		id := NewHostID(InquiryData{Vendor: serial, Product: serial}, names, serial)
		for _, s := range []string{id.Serial, id.Short, id.WWN, id.Extension} {
			if strings.ContainsAny(s, "/ \\\"\n\x00") {
				t.Errorf("%q is no part of a file's name", s)
			}
		}
	})
}

func TestUniqueDesignator(t *testing.T) {
	naa := func(value string) Designator {
		return Designator{Type: DesignatorNAA, CodeSet: CodeSetBinary, Value: []byte(value)}
	}
	eui := func(value string) Designator {
		return Designator{Type: DesignatorEUI64, CodeSet: CodeSetBinary, Value: []byte(value)}
	}
	rest := strings.Repeat("\x01", 12)
	for _, c := range []struct {
		d    Designator
		want bool
	}{
		{naa("\x60\x01\x40\x50" + rest), true},
		{naa("\x60\x00\x00\x00" + rest), false}, // tgt's
		{naa("\x60\x00\x00\x10" + rest), true},
		{naa("\x50\x01\x40\x50\x01\x01\x01\x01"), true},
		{naa("\x50\x00\x00\x01\x01\x01\x01\x01"), false},
		{naa("\x21\x11\x00\x14\x05\x01\x01\x01"), true},
		{naa("\x21\x11\x00\x00\x00\x01\x01\x01"), false},
		{naa("\x30\x01\x40\x50\x01\x01\x01\x01"), false}, // locally assigned
		{naa("\x60\x01\x40\x50"), false},
		{eui("\x00\x14\x05\x01\x01\x01\x01\x01"), true},
		{eui("\x00\x00\x00\x01\x01\x01\x01\x01"), false},
		{eui("\x00\x14\x05"), false},
		{Designator{Type: DesignatorT10, CodeSet: CodeSetASCII, Value: []byte("LIO-ORG x")}, false},
		{Designator{Type: DesignatorNAA, Association: OfTargetPort, Value: naa("\x60\x01\x40\x50" + rest).Value}, false},
	} {
		if c.d.Unique() != c.want {
			t.Errorf("%v: unique %v, want %v", c.d, !c.want, c.want)
		}
	}
}
