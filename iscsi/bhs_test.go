package iscsi

import "testing"

func TestBHS(t *testing.T) {
	h := parseBHS(t, `
		43 80 00 00 ff 0a 0b 0c 01 02 03 04 05 06 07 08
		11 12 13 14 21 22 23 24 31 32 33 34 41 42 43 44
		51 52 53 54 00000000 00000000 00000000`)
	if h.Opcode() != OpLoginRequest || !h.Immediate() || !h.Final() {
		t.Errorf("opcode %v, immediate %v, final %v", h.Opcode(), h.Immediate(), h.Final())
	}
	if n := h.TotalAHSLength(); n != 1020 {
		t.Errorf("TotalAHSLength is %d", n)
	}
	if n := h.DataSegmentLength(); n != 0x0a0b0c {
		t.Errorf("DataSegmentLength is %#x", n)
	}
	if lun := h.LUN(); lun != 0x0102030405060708 {
		t.Errorf("LUN is %#x", lun)
	}
	for name, field := range map[string][2]uint32{
		"InitiatorTaskTag":  {h.InitiatorTaskTag(), 0x11121314},
		"TargetTransferTag": {h.TargetTransferTag(), 0x21222324},
		"CmdSN":             {h.CmdSN(), 0x31323334},
		"StatSN":            {h.StatSN(), 0x31323334},
		"ExpStatSN":         {h.ExpStatSN(), 0x41424344},
		"ExpCmdSN":          {h.ExpCmdSN(), 0x41424344},
		"MaxCmdSN":          {h.MaxCmdSN(), 0x51525354},
	} {
		if field[0] != field[1] {
			t.Errorf("%s is %#x, want %#x", name, field[0], field[1])
		}
	}
	h = BHS{0: 0x80 | 0x20, 1: 0x7f}
	if h.Opcode() != OpNOPIn || h.Immediate() || h.Final() {
		t.Errorf("opcode %v, immediate %v, final %v", h.Opcode(), h.Immediate(), h.Final())
	}
}

func TestSetDataSegmentLength(t *testing.T) {
	for _, n := range []int{0, 1, 0xff, 0x100, 8192, MaxDataSegmentLength} {
		h := BHS{4: 0x7f, 5: 0xff, 6: 0xff, 7: 0xff, 8: 0x7f}
		h.SetDataSegmentLength(n)
		if h.DataSegmentLength() != n || h[4] != 0x7f || h[8] != 0x7f {
			t.Errorf("%d became %d in %x", n, h.DataSegmentLength(), h)
		}
	}
}

func TestPad(t *testing.T) {
	for n, want := range []int{0, 3, 2, 1, 0, 3, 2, 1, 0} {
		if got := Pad(n); got != want {
			t.Errorf("Pad(%d) is %d, want %d", n, got, want)
		}
	}
	if got := Pad(MaxDataSegmentLength); got != 1 {
		t.Errorf("Pad(%d) is %d", MaxDataSegmentLength, got)
	}
}
