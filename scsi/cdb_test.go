package scsi

import (
	"encoding/hex"
	"testing"
)

func TestCDB(t *testing.T) {
	for _, tt := range []struct {
		name string
		cdb  CDB
		want string
	}{
		{"TEST UNIT READY", TestUnitReady(), "000000000000"},
		{"REQUEST SENSE", RequestSense(252), "03000000fc00"},
		{"INQUIRY", Inquiry(96), "120000006000"},
		{"INQUIRY", InquiryVPD(0x83, 0x1fe), "12018301fe00"},
		{"REPORT LUNS", ReportLUNs(16392), "a00000000000000040080000"},
		{"READ CAPACITY(10)", ReadCapacity10(), "25000000000000000000"},
		{"READ CAPACITY(16)", ReadCapacity16(32), "9e10000000000000000000000020" + "0000"},
		{"MODE SENSE(6)", ModeSense6(PageCaching, 252), "1a080800fc00"},
		{"MODE SENSE(10)", ModeSense10(PageAll, 512), "5a083f00000000020000"},
		{"READ(10)", Read(0x01020304, 0xffff, false), "28000102030400ffff00"},
		{"READ(10)", Read(0xffffffff, 1, true), "2808ffffffff00000100"},
		{"READ(16)", Read(0x1_00000000, 1, false), "88000000000100000000000000010000"},
		{"READ(16)", Read(0, 0x10000, true), "88080000000000000000000100000000"},
		{"WRITE(10)", Write(8, 8, true), "2a080000000800000800"},
		{"WRITE(16)", Write(0xffffffffffff, 2, false), "8a000000ffffffffffff000000020000"},
		{"SYNCHRONIZE CACHE(10)", SynchronizeCache(0, 0), "35000000000000000000"},
		{"SYNCHRONIZE CACHE(16)", SynchronizeCache(1<<40, 7), "91000000010000000000000000070000"},
		{"UNMAP", Unmap(24), "42000000000000001800"},
		{"WRITE SAME(16)", WriteSame16(4, 0x7fffff, SameUnmap), "93080000000000000004007fffff0000"},
		{"WRITE SAME(16)", WriteSame16(4, 1, SameNDOB), "93010000000000000004000000010000"},
		{"REPORT SUPPORTED OPERATION CODES", ReportOpcodes(OpWriteSame16, 252), "a30c01930000000000fc0000"},
	} {
		n := tt.cdb.Opcode().Len()
		if got := hex.EncodeToString(tt.cdb[:n]); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if got := tt.cdb.String(); got != tt.name {
			t.Errorf("name %q, want %q", got, tt.name)
		}
		for _, c := range tt.cdb[n:] {
			if c != 0 {
				t.Errorf("%s: bytes past its length", tt.name)
			}
		}
	}
}

func TestRange(t *testing.T) {
	for _, tt := range []struct {
		cdb  string
		want Range
		ok   bool
	}{
		{"08123456000000", Range{LBA: 0x123456, Blocks: 256}, true},
		{"0a3f00010200", Range{LBA: 0x1f0001, Blocks: 2}, true},
		{"2a980102030400000900", Range{LBA: 0x01020304, Blocks: 9, Protect: 4, FUA: true, DPO: true}, true},
		{"a8000000000500010000", Range{LBA: 5, Blocks: 0x10000}, true},
		{"88000000000100000000000000010000", Range{LBA: 1 << 32, Blocks: 1}, true},
		{"8f120000000000000001000000020000", Range{LBA: 1, Blocks: 2, DPO: true, BytChk: 1}, true},
		{"35020000000000000000", Range{}, true},
		{"93190000000000000004000000010000", Range{LBA: 4, Blocks: 1, Same: SameUnmap | SameNDOB, Anchor: true}, true},
		{"41090000000400000100", Range{LBA: 4, Blocks: 1, Same: SameUnmap}, true},
		{"120000006000", Range{}, false},
		{"ff", Range{}, false},
	} {
		var c CDB
		b, err := hex.DecodeString(tt.cdb)
		if err != nil {
			t.Fatal(err)
		}
		copy(c[:], b)
		if got, ok := c.Range(); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %+v, %v; want %+v, %v", tt.cdb, got, ok, tt.want, tt.ok)
		}
	}
}

func TestAllocation(t *testing.T) {
	for _, tt := range []struct {
		cdb  CDB
		want uint32
		ok   bool
	}{
		{RequestSense(18), 18, true},
		{Inquiry(0x1234), 0x1234, true},
		{InquiryVPD(0, 255), 255, true},
		{ReadCapacity10(), 8, true},
		{ReadCapacity16(0x10203040), 0x10203040, true},
		{ModeSense6(8, 4), 4, true},
		{ModeSense10(8, 0x102), 0x102, true},
		{ReportLUNs(0x01020304), 0x01020304, true},
		{Unmap(40), 40, true},
		{ReportOpcodes(OpRead6, 77), 77, true},
		{CDB{byte(OpPersistentReserveOut), 5: 0, 8: 24}, 24, true},
		{TestUnitReady(), 0, false},
		{Read(0, 1, false), 0, false},
	} {
		if got, ok := tt.cdb.Allocation(); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %d, %v; want %d, %v", &tt.cdb, got, ok, tt.want, tt.ok)
		}
	}
	c := InquiryVPD(0xb0, 64)
	if page, evpd := c.VPDPage(); page != 0xb0 || !evpd {
		t.Errorf("VPD page %#x, %v", page, evpd)
	}
	m := CDB{byte(OpModeSense10), 0x18, 0x80 | 0x3f, 0xff}
	if got, want := m.ModeFields(), (ModeFields{Page: 0x3f, Subpage: 0xff, Control: 2, DBD: true, LLBAA: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{Opcode(0xc7).String(), "command 0xc7"},
		{Good.String(), "GOOD"},
		{TaskSetFull.String(), "TASK SET FULL"},
		{Status(0x22).String(), "status 0x22"},
		{UnitAttention.String(), "UNIT ATTENTION"},
		{CodeLUNsChanged.String(), "REPORTED LUNS DATA HAS CHANGED (3f/0e)"},
		{Code(0x8001).String(), "vendor-specific code (80/01)"},
		{Code(0x5b02).String(), "additional sense code (5b/02)"},
		{TypeCDROM.String(), "CD-ROM"},
		{DeviceType(0x1c).String(), "device of type 0x1c"},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}

func TestLUN(t *testing.T) {
	for _, tt := range []struct {
		wire   LUN
		number uint64
		text   string
		back   LUN // LUNOf(number)
	}{
		{0, 0, "0", 0},
		{0x0005_0000_0000_0000, 5, "5", 0x0005_0000_0000_0000},
		{0x00ff_0000_0000_0000, 255, "255", 0x00ff_0000_0000_0000},
		{0x4100_0000_0000_0000, 256, "256", 0x4100_0000_0000_0000},
		{0x7fff_0000_0000_0000, 16383, "16383", 0x7fff_0000_0000_0000},
		{0x4005_0000_0000_0000, 5, "5", 0x0005_0000_0000_0000},                                   // flat though small
		{0x0105_0000_0000_0000, 0x0105_0000_0000_0000, "0x0105000000000000", 0x0105000000000000}, // bus 1
		{0xd201_0203_0000_0000, 0xd201_0203_0000_0000, "0xd201020300000000", 0xd201020300000000}, // extended flat
		{0x0001_0002_0000_0000, 0x0001_0002_0000_0000, "0x0001000200000000", 0x0001000200000000}, // two levels
	} {
		if n := tt.wire.Number(); n != tt.number {
			t.Errorf("%#x: number %d, want %d", uint64(tt.wire), n, tt.number)
		}
		if s := tt.wire.String(); s != tt.text {
			t.Errorf("%#x: %q, want %q", uint64(tt.wire), s, tt.text)
		}
		if l := LUNOf(tt.number); l != tt.back {
			t.Errorf("%d: %#x, want %#x", tt.number, uint64(l), uint64(tt.back))
		}
	}
	if !LUN(0xc101_0000_0000_0000).WellKnown() || LUN(0x4101<<48).WellKnown() {
		t.Error("well-known logical units are not told apart")
	}
}
