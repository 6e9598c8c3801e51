package target

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"iscsictl/scsi"
)

// TestIdentity reads INQUIRY, VPD pages, capacities and mode pages with the
// parsers of package scsi, which were written apart from this target.
func TestIdentity(t *testing.T) {
	_, address := serve(t, oneTarget(
		LUN{Number: 0, Size: 64 << 20, Thin: true, WriteCache: true, Product: "a product", Serial: "S1"},
		LUN{Number: 1, Size: 3 << 40, BlockSize: 4096, ReadOnly: true, Null: true}))
	c := mustLogin(t, address)
	inquiry, err := scsi.ParseInquiry(c.good(0, cdbOf(0x12, 0, 0, 0, 255), 255, nil))
	want := scsi.InquiryData{Version: 6, CmdQue: true, Vendor: vendor, Product: "a product", Revision: "1.0"}
	if diff := cmp.Diff(want, inquiry); err != nil || diff != "" {
		t.Errorf("INQUIRY: %v\n%s", err, diff)
	}
	vpd := func(lun uint64, page byte) []byte { return c.good(lun<<48, cdbOf(0x12, 1, page, 0, 255), 255, nil) }
	pages, err := scsi.ParseSupported(vpd(0, 0))
	if err != nil || !bytes.Equal(pages, []byte{0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2}) {
		t.Errorf("VPD 00: %x, %v", pages, err)
	}
	if serial, err := scsi.ParseSerial(vpd(0, 0x80)); err != nil || serial != "S1" {
		t.Errorf("VPD 80: %q, %v", serial, err)
	}
	for lun := range uint64(2) {
		ids, err := scsi.ParseDesignators(vpd(lun, 0x83))
		if err != nil || len(ids) != 2 {
			t.Errorf("VPD 83: %v, %v", ids, err)
		}
	}
	limits, err := scsi.ParseBlockLimits(vpd(0, 0xb0))
	wantLimits := scsi.BlockLimits{
		MaxTransfer: 32768, OptimalTransfer: 2048, OptimalGranule: 8, MaxUnmapBlocks: 0xffffffff,
		MaxUnmapExtents: 256, UnmapGranule: 8, UnmapAligned: true, MaxWriteSame: 1 << 21,
	}
	if diff := cmp.Diff(wantLimits, limits); err != nil || diff != "" {
		t.Errorf("VPD B0: %v\n%s", err, diff)
	}
	if ch, err := scsi.ParseCharacteristics(vpd(0, 0xb1)); err != nil || ch.Rotation != 1 {
		t.Errorf("VPD B1: %+v, %v", ch, err)
	}
	prov, err := scsi.ParseProvisioning(vpd(0, 0xb2))
	if diff := cmp.Diff(scsi.Provisioning{LBPU: true, LBPWS: true, LBPW10: true, LBPRZ: true, Type: 2}, prov); err != nil || diff != "" {
		t.Errorf("VPD B2: %v\n%s", err, diff)
	}
	if r := c.must(0, cdbOf(0x12, 1, 0xc0, 0, 255), 255, nil); r.code() != "5/24/00" {
		t.Errorf("VPD C0: %s", r.code())
	}
	testCapacities(t, c)
	testModes(t, c)
}

func testCapacities(t *testing.T, c *client) {
	read16 := [16]byte{0x9e, 0x10, 13: 32}
	for lun, want := range []scsi.Capacity{
		{LastLBA: 131071, BlockLength: 512, PhysicalExponent: 3, LBPME: true, LBPRZ: true},
		{LastLBA: 3<<28 - 1, BlockLength: 4096},
	} {
		got, err := scsi.ParseCapacity16(c.good(uint64(lun)<<48, read16, 32, nil))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("LUN %d: %v\n%s", lun, err, diff)
		}
		got, err = scsi.ParseCapacity10(c.good(uint64(lun)<<48, cdbOf(0x25), 8, nil))
		if err != nil || got.LastLBA != want.LastLBA || got.BlockLength != want.BlockLength {
			t.Errorf("LUN %d, READ CAPACITY(10): %+v, %v", lun, got, err)
		}
	}
}

func testModes(t *testing.T, c *client) {
	for lun := range uint64(2) {
		m6, err := scsi.ParseMode6(c.good(lun<<48, cdbOf(0x1a, 0, 0x3f, 0, 255), 255, nil))
		if err != nil || m6.WriteProtected != (lun == 1) || !m6.DPOFUA {
			t.Errorf("LUN %d: MODE SENSE(6): %+v, %v", lun, m6, err)
		}
		for _, flags := range []byte{0, 0x08, 0x10} {
			m10, err := scsi.ParseMode10(c.good(lun<<48, cdbOf(0x5a, flags, 0x3f, 0, 0, 0, 0, 1, 0), 256, nil))
			if diff := cmp.Diff(m6, m10); err != nil || diff != "" {
				t.Errorf("LUN %d: MODE SENSE(10) with %#x: %v\n%s", lun, flags, err, diff)
			}
		}
		if p := m6.Page(8); len(p) < 3 || p[2]&4 != 0 != (lun == 0) {
			t.Errorf("LUN %d: caching page %x", lun, p)
		}
	}
}

func TestReadOnly(t *testing.T) {
	_, address := serve(t, oneTarget(LUN{Size: 1 << 20, ReadOnly: true, Thin: true}))
	c := mustLogin(t, address)
	c.immediate = 512
	for _, cdb := range [][16]byte{cdb10(0x2a, 0, 1), cdb16(0x8a, 0, 1), cdb16(0x93, 0, 1), {0x42, 8: 24}} {
		if r := c.must(0, cdb, 0, make([]byte, 512)); r.code() != "7/27/00" {
			t.Errorf("%x: %#x %s", cdb, r.status, r.code())
		}
	}
}

func TestRefused(t *testing.T) {
	_, address := serve(t, oneTarget(smallLUN))
	c := mustLogin(t, address)
	for _, tt := range []struct {
		what string
		lun  uint64
		cdb  [16]byte
		code string
	}{
		{"PERSISTENT RESERVE IN", 0, cdbOf(0x5e), "5/20/00"},
		{"PERSISTENT RESERVE OUT", 0, cdbOf(0x5f), "5/20/00"},
		{"UNMAP of a thick unit", 0, [16]byte{0x42, 8: 24}, "5/20/00"},
		{"variable length", 0, cdbOf(0x7f), "5/20/00"},
		{"past the end", 0, cdb10(0x28, 2047, 2), "5/21/00"},
		{"LBA that wraps around", 0, cdb16(0x88, 1<<64-1, 2), "5/21/00"},
		{"LBA in bytes wraps around", 0, cdb16(0x88, 1<<55, 1), "5/21/00"},
		{"protection", 0, [16]byte{0x28, 0x20, 8: 1}, "5/24/00"},
		{"no such LUN", 7 << 48, testUnitReady(), "5/25/00"},
		{"LUN of no known method", 0xc1 << 56, testUnitReady(), "5/25/00"},
		{"second level LUN", 1, testUnitReady(), "5/25/00"},
	} {
		if r := c.must(tt.lun, tt.cdb, 512, nil); r.status != 2 || r.code() != tt.code {
			t.Errorf("%s: %#x %s, want %s", tt.what, r.status, r.code(), tt.code)
		}
	}
	if got := c.good(7<<48, [16]byte{0x12, 4: 36}, 36, nil); got[0] != noUnit {
		t.Errorf("INQUIRY of a missing LUN: %#x", got[0])
	}
}

func TestReportLUNs(t *testing.T) {
	for _, flat := range []bool{false, true} {
		conf := oneTarget(LUN{Number: 300, Size: 1 << 20}, LUN{Number: 0, Size: 1 << 20}, LUN{Number: 5, Size: 1 << 20})
		conf.Targets[0].FlatLUNs = flat
		_, address := serve(t, conf)
		c := mustLogin(t, address)
		b := c.good(0, [16]byte{0xa0, 9: 64}, 64, nil)
		list, total, err := scsi.ParseLUNs(b)
		if err != nil || total != 32 || len(list) != 3 {
			t.Fatalf("%v of %d, %v", list, total, err)
		}
		for i, want := range []uint64{0, 5, 300} {
			if list[i].Number() != want || flat != (list[i]>>62 == 1) && want < 256 {
				t.Errorf("flat %v: LUN %x, want %d", flat, uint64(list[i]), want)
			}
			c.good(uint64(list[i]), testUnitReady(), 0, nil)
		}
	}
}

func TestProvisioning(t *testing.T) {
	dir := t.TempDir()
	_, address := serve(t, oneTarget(LUN{Number: 0, Size: 1 << 20, Thin: true}, LUN{Number: 1, Size: 1 << 20, Thin: true, File: dir + "/f"}))
	c := mustLogin(t, address)
	c.immediate = 65536
	for lun := range uint64(2) {
		full := pattern(65536, byte(lun))
		c.good(lun<<48, cdb10(0x2a, 0, 128), 0, full)
		list := make([]byte, 8+32)
		binary.BigEndian.PutUint16(list, 38)
		binary.BigEndian.PutUint16(list[2:], 32)
		binary.BigEndian.PutUint64(list[8:], 3)
		binary.BigEndian.PutUint32(list[16:], 20)
		binary.BigEndian.PutUint64(list[24:], 100)
		binary.BigEndian.PutUint32(list[32:], 1)
		c.good(lun<<48, [16]byte{0x42, 8: byte(len(list))}, 0, list)
		clear(full[3*512 : 23*512])
		clear(full[100*512 : 101*512])
		block := pattern(512, 99)
		c.good(lun<<48, cdb10(0x41, 40, 2), 0, block) // WRITE SAME(10)
		copy(full[40*512:], block)
		copy(full[41*512:], block)
		same := cdb16(0x93, 50, 30)
		same[1] = 0x09 // UNMAP, NDOB
		c.good(lun<<48, same, 0, nil)
		clear(full[50*512 : 80*512])
		equal(t, "unit", c.good(lun<<48, cdb10(0x28, 0, 128), 65536, nil), full)
		if r := c.must(lun<<48, cdb10(0x41, 2000, 100), 0, block); r.code() != "5/21/00" {
			t.Errorf("WRITE SAME beyond the end: %s", r.code())
		}
		binary.BigEndian.PutUint64(list[24:], 5000)
		if r := c.must(lun<<48, [16]byte{0x42, 8: byte(len(list))}, 0, list); r.code() != "5/21/00" {
			t.Errorf("UNMAP beyond the end: %s", r.code())
		}
	}
	c.good(0, cdb10(0x35, 0, 0), 0, nil)
	c.good(1<<48, cdb16(0x91, 0, 0), 0, nil)
	fua := cdb10(0x2a, 0, 1)
	fua[1] = 8
	c.good(1<<48, fua, 0, pattern(512, 1))
}

func TestReportOpcodes(t *testing.T) {
	_, address := serve(t, oneTarget(smallLUN))
	c := mustLogin(t, address)
	all := c.good(0, [16]byte{0xa3, 0x0c, 0, 8: 4}, 1024, nil)
	if n := binary.BigEndian.Uint32(all); int(n) != len(all)-4 || n%8 != 0 || n < 20*8 {
		t.Errorf("%d bytes, length %d", len(all), n)
	}
	one := c.good(0, [16]byte{0xa3, 0x0c, 1, 0x88, 9: 64}, 64, nil)
	if len(one) != 20 || one[1] != 3 || one[3] != 16 || one[4] != 0x88 {
		t.Errorf("READ(16): %x", one)
	}
	if none := c.good(0, [16]byte{0xa3, 0x0c, 1, 0x42, 9: 64}, 64, nil); none[1] != 1 {
		t.Errorf("UNMAP of a thick unit: %x", none)
	}
}
