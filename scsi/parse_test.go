package scsi

import (
	"bytes"
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// dump reads hexadecimal with space in it.
func dump(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Answers as targets on the network give them.
const (
	inquiryDump = `00 00 05 12 1f 00 00 02 4c 49 4f 2d 4f 52 47 20
		64 69 73 6b 30 20 20 20 20 20 20 20 20 20 20 20 34 2e 30 20`
	vpd00Dump = `00 00 00 06 00 80 83 b0 b1 b2`
	vpd80Dump = `00 80 00 0c 20 37 61 33 66 39 31 63 00 00 00 00`
	vpd83Dump = `00 83 00 50
		02 01 00 18 49 45 54 20 20 20 20 20 30 30 30 31 30 30 30 31 00 00 00 00 00 00 00 00
		01 03 00 10 60 01 40 5a 1b 2c 3d 4e 5f 60 71 82 93 a4 b5 c6
		61 93 00 08 50 01 40 5a bb cc dd ee
		51 94 00 04 00 00 00 01`
	vpdB0Dump = `00 b0 00 3c 01 00 00 01 00 00 ff ff 00 00 08 00 00 00 00 00
		00 00 20 00 00 00 00 01 00 00 00 08 80 00 00 00 00 00 00 00 00 00 10 00
		00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00`
	vpdB1Dump  = `00 b1 00 3c 1c 20 00 02 10 00 00 00`
	vpdB2Dump  = `00 b2 00 04 00 e4 02 00`
	cap16Dump  = `00 00 00 01 00 00 00 00 00 00 10 00 00 00 c0 08 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00`
	mode6Dump  = `23 00 90 08 00 00 00 00 00 00 02 00 08 12 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 0a 02 00 00`
	mode10Dump = `00 1a 00 10 00 00 00 00 08 12 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00`
	lunsDump   = `00 00 00 18 00 00 00 00 00 00 00 00 00 00 00 00 00 05 00 00 00 00 00 00 41 00 00 00 00 00 00 00`
	fixedDump  = `f0 00 03 00 00 12 67 0a 00 00 00 00 11 04 00 00 00 00`
	descDump   = `72 06 2a 09 00 00 00 0c 00 0a 80 00 00 00 00 01 00 00 00 07`
)

func TestParse(t *testing.T) {
	inquiry, err := ParseInquiry(dump(t, inquiryDump))
	equal(t, "INQUIRY", inquiry, InquiryData{Version: 5, CmdQue: true, Vendor: "LIO-ORG", Product: "disk0", Revision: "4.0"}, err)
	pages, err := ParseSupported(dump(t, vpd00Dump))
	equal(t, "VPD 00", pages, []uint8{0, 0x80, 0x83, 0xb0, 0xb1, 0xb2}, err)
	serial, err := ParseSerial(dump(t, vpd80Dump))
	equal(t, "VPD 80", serial, "7a3f91c", err)
	limits, err := ParseBlockLimits(dump(t, vpdB0Dump))
	equal(t, "VPD B0", limits, BlockLimits{
		MaxTransfer: 0xffff, OptimalTransfer: 0x800, OptimalGranule: 1, MaxUnmapBlocks: 0x2000, MaxUnmapExtents: 1,
		UnmapGranule: 8, UnmapAligned: true, MaxWriteSame: 0x1000, NonZeroWriteSame0: true,
	}, err)
	shape, err := ParseCharacteristics(dump(t, vpdB1Dump))
	equal(t, "VPD B1", shape, Characteristics{Rotation: 7200, Zoned: 1}, err)
	thin, err := ParseProvisioning(dump(t, vpdB2Dump))
	equal(t, "VPD B2", thin, Provisioning{LBPU: true, LBPWS: true, LBPW10: true, LBPRZ: true, Type: 2}, err)
	c10, err := ParseCapacity10(dump(t, "ff ff ff ff 00 00 02 00"))
	equal(t, "READ CAPACITY(10)", c10, Capacity{LastLBA: math.MaxUint32, BlockLength: 512, Long: true}, err)
	c16, err := ParseCapacity16(dump(t, cap16Dump))
	equal(t, "READ CAPACITY(16)", c16, Capacity{LastLBA: 1 << 32, BlockLength: 4096, LowestAligned: 8, LBPME: true, LBPRZ: true}, err)
	luns, total, err := ParseLUNs(dump(t, lunsDump))
	equal(t, "REPORT LUNS", luns, []LUN{0, LUNOf(5), LUNOf(256)}, err)
	equal(t, "REPORT LUNS length", total, int64(32), err)
	support, err := ParseSupport([]byte{0, 3, 0, 16})
	equal(t, "support", support, SupportStandard, err)
}

func equal[T any](t *testing.T, name string, got, want T, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

func TestProvisioningZeroes(t *testing.T) {
	// LBPRZ 010b (SBC-4) is a vendor's pattern and not zeroes.
	v, err := ParseProvisioning(dump(t, "00 b2 00 04 00 88 02 00"))
	equal(t, "VPD B2", v, Provisioning{LBPU: true, Type: 2}, err)
}

func TestMode(t *testing.T) {
	m, err := ParseMode6(dump(t, mode6Dump))
	if err != nil || !m.WriteProtected || !m.DPOFUA {
		t.Fatalf("%+v, %v", m, err)
	}
	if c, ok := m.Caching(); !ok || c != (Caching{WriteCache: true}) {
		t.Errorf("caching %+v, %v", c, ok)
	}
	if p := m.Page(PageControl); !bytes.Equal(p, []byte{0x0a, 2, 0, 0}) {
		t.Errorf("control page % x", p)
	}
	if p := m.Page(0x1c); p != nil {
		t.Errorf("a page that is not there: % x", p)
	}
	m, err = ParseMode10(dump(t, mode10Dump))
	if err != nil || m.WriteProtected || !m.DPOFUA {
		t.Fatalf("%+v, %v", m, err)
	}
	if c, ok := m.Caching(); !ok || c != (Caching{WriteCache: true, ReadDisabled: true}) {
		t.Errorf("caching %+v, %v", c, ok)
	}
	// A subpage of the same code before the page.
	m = Mode{Pages: dump(t, "48 01 00 02 ff ff 08 01 04")}
	if c, ok := m.Caching(); !ok || !c.WriteCache {
		t.Errorf("caching behind a subpage: %+v, %v", c, ok)
	}
	if _, ok := (Mode{}).Caching(); ok {
		t.Error("caching known of no pages")
	}
}

func TestDesignators(t *testing.T) {
	list, err := ParseDesignators(dump(t, vpd83Dump))
	if err != nil || len(list) != 4 {
		t.Fatalf("%d designators, %v", len(list), err)
	}
	best, ok := BestDesignator(list)
	if !ok || best.String() != "naa.6001405a1b2c3d4e5f60718293a4b5c6" {
		t.Errorf("best is %s, %v", best, ok)
	}
	if s := list[0].String(); s != "t10.IET     00010001" {
		t.Errorf("T10 designator %q", s)
	}
	if !list[1].Equal(best) || list[2].Equal(best) {
		t.Error("Equal does not tell designators apart")
	}
	for _, tt := range []struct {
		name string
		list []Designator
		want string
	}{
		{"none", nil, ""},
		{"of the port only", list[2:], ""},
		{"zeroes", []Designator{{Type: DesignatorNAA, Value: make([]byte, 8)}}, ""},
		{"NAA 6 before 5", []Designator{
			{Type: DesignatorNAA, CodeSet: 1, Value: dump(t, "5001405000000001")},
			{Type: DesignatorNAA, CodeSet: 1, Value: dump(t, "60014050000000000000000000000001")},
		}, "naa.60014050000000000000000000000001"},
		{"EUI before name", []Designator{
			{Type: DesignatorSCSIName, CodeSet: 3, Value: []byte("iqn.2020-01.example:x,0x0\x00")},
			{Type: DesignatorEUI64, CodeSet: 1, Value: dump(t, "0011223344556677")},
		}, "eui.0011223344556677"},
		{"name before locally assigned", []Designator{
			{Type: DesignatorNAA, CodeSet: 1, Value: dump(t, "3000000100000002")},
			{Type: DesignatorSCSIName, CodeSet: 3, Value: []byte("eui.\x1b[31m")},
		}, "eui.?[31m"},
		{"vendor's", []Designator{{Type: DesignatorVendor, CodeSet: 1, Value: []byte{1, 2}}}, "0102"},
		{"MD5", []Designator{{Type: DesignatorMD5, CodeSet: 1, Value: []byte{1, 2}}}, "md5.0102"},
	} {
		d, ok := BestDesignator(tt.list)
		if ok != (tt.want != "") || ok && d.String() != tt.want {
			t.Errorf("%s: %s, %v; want %q", tt.name, d, ok, tt.want)
		}
	}
}

func TestDesignatorCutOff(t *testing.T) {
	page := dump(t, vpd83Dump)
	for n := range page {
		list, err := ParseDesignators(page[:n])
		if (err != nil) != (n < 4) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		for _, d := range list {
			if len(d.Value) != 24 && len(d.Value) != 16 && len(d.Value) != 8 {
				t.Fatalf("%d bytes: a designator of %d bytes was cut off", n, len(d.Value))
			}
		}
	}
}

func TestSense(t *testing.T) {
	for _, tt := range []struct {
		dump, text string
		want       Sense
	}{
		{fixedDump, "MEDIUM ERROR, UNRECOVERED READ ERROR - AUTO REALLOCATE FAILED (11/04) at block 4711", Sense{Key: MediumError, Code: 0x1104, HasInfo: true, Info: 4711}},
		{descDump, "UNIT ATTENTION, CAPACITY DATA HAS CHANGED (2a/09)", Sense{Key: UnitAttention, Code: CodeCapacityChanged, HasInfo: true, Info: 1<<32 + 7}},
		{"71 00 04 00 00 00 00 0a 00 00 00 00 44 00", "HARDWARE ERROR, INTERNAL TARGET FAILURE (44/00), deferred", Sense{Key: HardwareError, Code: CodeInternalFailure, Deferred: true}},
		{"73 0b 4b 00 00 00 00 00", "ABORTED COMMAND, DATA PHASE ERROR (4b/00), deferred", Sense{Key: AbortedCommand, Code: CodeDataPhaseError, Deferred: true}},
		{"70 00 06", "UNIT ATTENTION, NO ADDITIONAL SENSE INFORMATION (00/00)", Sense{Key: UnitAttention}},
		// An additional length that ends before the code.
		{"70 00 05 00 00 00 00 02 00 00 00 00 24 00", "ILLEGAL REQUEST, NO ADDITIONAL SENSE INFORMATION (00/00)", Sense{Key: IllegalRequest}},
	} {
		s, ok := ParseSense(dump(t, tt.dump))
		if !ok || s != tt.want || s.String() != tt.text {
			t.Errorf("%s: %+v, %v, %q; want %+v, %q", tt.dump, s, ok, s, tt.want, tt.text)
		}
	}
	for _, bad := range []string{"", "70", "70 00", "72", "00 00 05 00", "7f 00 05 00"} {
		if s, ok := ParseSense(dump(t, bad)); ok {
			t.Errorf("%q was taken as %s", bad, s)
		}
	}
}

func TestSenseRoundTrip(t *testing.T) {
	for key := range SenseKey(16) {
		for _, info := range []uint64{0, 1, math.MaxUint32} {
			s := Sense{Key: key, Code: 0x3f0e, Deferred: key%2 == 0, HasInfo: info > 0, Info: info}
			for name, b := range map[string][]byte{"fixed": s.AppendFixed(nil), "descriptor": s.AppendDescriptor(nil)} {
				if got, ok := ParseSense(b); !ok || got != s {
					t.Errorf("%s: %+v, %v; want %+v", name, got, ok, s)
				}
			}
		}
	}
	if s, _ := ParseSense(Sense{HasInfo: true, Info: 1 << 40}.AppendFixed(nil)); s.HasInfo {
		t.Error("information of 41 bits in fixed format")
	}
}

func TestRoundTrip(t *testing.T) {
	inquiry := InquiryData{Qualifier: NotCapable, Type: TypeUnknown, Removable: true, Version: 6, Protect: true, CmdQue: true, Vendor: "12345678", Product: "1234567890123456", Revision: "1234"}
	got, err := ParseInquiry(inquiry.Append(nil))
	equal(t, "INQUIRY", got, inquiry, err)

	limits := BlockLimits{1, 2, 3, math.MaxUint32, 5, 6, 1<<31 - 1, true, 1 << 60, true}
	l, err := ParseBlockLimits(limits.Append(nil))
	equal(t, "VPD B0", l, limits, err)

	for i := range 32 {
		v := Provisioning{i&1 != 0, i&2 != 0, i&4 != 0, i&8 != 0, i&16 != 0, uint8(i % 3)}
		p, err := ParseProvisioning(v.Append(nil))
		equal(t, "VPD B2", p, v, err)
	}
	shape, err := ParseCharacteristics(Characteristics{Rotation: 1, Zoned: 2}.Append(nil))
	equal(t, "VPD B1", shape, Characteristics{Rotation: 1, Zoned: 2}, err)

	capacity := Capacity{LastLBA: 1 << 40, BlockLength: 4096, PhysicalExponent: 3, LowestAligned: 0x3fff, LBPRZ: true, Protection: true}
	c, err := ParseCapacity16(capacity.Append16(nil))
	equal(t, "READ CAPACITY(16)", c, capacity, err)
	c, err = ParseCapacity10(capacity.Append10(nil))
	equal(t, "READ CAPACITY(10)", c, Capacity{LastLBA: math.MaxUint32, BlockLength: 4096, Long: true}, err)

	names := []Designator{{DesignatorNAA, OfLogicalUnit, CodeSetBinary, []byte("12345678")}, {DesignatorT10, OfTarget, CodeSetASCII, []byte("x")}}
	d, err := ParseDesignators(AppendDesignators(nil, names...))
	equal(t, "VPD 83", d, names, err)

	unmap := []Extent{{1, 2}, {1 << 40, math.MaxUint32}}
	b := AppendUnmap(nil, unmap...)
	if len(b) != UnmapHeader+2*UnmapDescriptor || b[1] != 38 || b[3] != 32 {
		t.Errorf("UNMAP list % x", b)
	}
	u, err := ParseUnmap(b)
	equal(t, "UNMAP", u, unmap, err)

	list := []LUN{0, 1 << 48}
	luns, total, err := ParseLUNs(AppendLUNs(nil, list))
	equal(t, "REPORT LUNS", luns, list, err)
	equal(t, "REPORT LUNS length", total, int64(24), err)

	mode := Mode{WriteProtected: true, DPOFUA: true, Pages: Caching{WriteCache: true, ReadDisabled: true}.AppendPage(nil)}
	b, err = mode.Append6(nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseMode6(b)
	equal(t, "MODE SENSE(6)", m, mode, err)
	b, err = mode.Append10(nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err = ParseMode10(b)
	equal(t, "MODE SENSE(10)", m, mode, err)
	mode.Pages = make([]byte, 300)
	if _, err := mode.Append6(nil); err == nil {
		t.Error("300 bytes of pages fit MODE SENSE(6)")
	}
}

// parsers are all parsers of this package, with an answer that is long enough.
var parsers = []struct {
	name, dump string
	least      int // shorter ones are errors
	parse      func([]byte) error
}{
	{"INQUIRY", inquiryDump, 5, func(b []byte) error { _, err := ParseInquiry(b); return err }},
	{"VPD 00", vpd00Dump, 4, func(b []byte) error { _, err := ParseSupported(b); return err }},
	{"VPD 80", vpd80Dump, 4, func(b []byte) error { _, err := ParseSerial(b); return err }},
	{"VPD 83", vpd83Dump, 4, func(b []byte) error {
		list, err := ParseDesignators(b)
		if best, ok := BestDesignator(list); ok {
			_ = best.String()
		}
		return err
	}},
	{"VPD B0", vpdB0Dump, 4, func(b []byte) error { _, err := ParseBlockLimits(b); return err }},
	{"VPD B1", vpdB1Dump, 4, func(b []byte) error { _, err := ParseCharacteristics(b); return err }},
	{"VPD B2", vpdB2Dump, 4, func(b []byte) error { _, err := ParseProvisioning(b); return err }},
	{"READ CAPACITY(16)", cap16Dump, 12, func(b []byte) error { _, err := ParseCapacity16(b); return err }},
	{"READ CAPACITY(10)", "00 00 ff ff 00 00 02 00", 8, func(b []byte) error { _, err := ParseCapacity10(b); return err }},
	{"MODE SENSE(6)", mode6Dump, 4, func(b []byte) error { m, err := ParseMode6(b); m.Caching(); return err }},
	{"MODE SENSE(10)", mode10Dump, 8, func(b []byte) error { m, err := ParseMode10(b); m.Caching(); return err }},
	{"REPORT LUNS", lunsDump, 8, func(b []byte) error { _, _, err := ParseLUNs(b); return err }},
	{"UNMAP", "00 16 00 10 00 00 00 00 00 00 00 00 00 00 00 08 00 00 00 08 00 00 00 00", 8, func(b []byte) error { _, err := ParseUnmap(b); return err }},
	{"REPORT SUPPORTED OPERATION CODES", "00 03 00 10", 2, func(b []byte) error { _, err := ParseSupport(b); return err }},
	{"sense", fixedDump, 0, func(b []byte) error { s, _ := ParseSense(b); _ = s.String(); return nil }},
	{"sense with descriptors", descDump, 0, func(b []byte) error { s, _ := ParseSense(b); _ = s.String(); return nil }},
}

func TestTruncated(t *testing.T) {
	for _, p := range parsers {
		b := dump(t, p.dump)
		for n := range len(b) + 1 {
			// A slice without room behind it, so that reading past it panics.
			err := p.parse(bytes.Clone(b[:n:n]))
			if (err != nil) != (n < p.least) {
				t.Errorf("%s cut to %d bytes: %v", p.name, n, err)
			}
		}
	}
}

func TestOtherPage(t *testing.T) {
	// INQUIRY data where a page was asked for.
	b := dump(t, inquiryDump)
	if _, err := ParseSerial(b); err == nil {
		t.Error("INQUIRY data was taken as VPD page 80")
	}
	if n := VPDLength(dump(t, vpd83Dump)); n != 84 {
		t.Errorf("VPD page 83 has %d bytes", n)
	}
}

func FuzzParse(f *testing.F) {
	for i, p := range parsers {
		f.Add(uint8(i), dump(f, p.dump))
	}
	f.Fuzz(func(_ *testing.T, which uint8, b []byte) {
		_ = parsers[int(which)%len(parsers)].parse(b)
	})
}

func FuzzSense(f *testing.F) {
	f.Add(dump(f, fixedDump))
	f.Add(dump(f, descDump))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := ParseSense(b)
		if !ok {
			return
		}
		if again, ok := ParseSense(s.AppendDescriptor(nil)); !ok || again != s {
			t.Errorf("%+v became %+v", s, again)
		}
	})
}

func FuzzCDB(f *testing.F) {
	f.Add([]byte{byte(OpRead10), 8, 0, 0, 0, 1, 0, 0, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		var c CDB
		copy(c[:], b)
		r, ok := c.Range()
		c.Allocation()
		c.ModeFields()
		if _ = c.String(); !ok || c.Opcode() != OpRead10 || r.Protect != 0 || r.DPO || b[0] != byte(OpRead10) {
			return
		}
		built := Read(r.LBA, r.Blocks, r.FUA)
		if again, _ := built.Range(); again != r {
			t.Errorf("%+v became %+v", r, again)
		}
	})
}
