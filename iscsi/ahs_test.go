package iscsi

import (
	"bytes"
	"testing"
)

// §11.2.2.3 and §11.2.2.4: a CDB of 20 bytes, of which 4 are in the AHS, and the
// length of a bidirectional read.
var testAHS = []byte{
	0, 5, 1, 0, 0xc1, 0xc2, 0xc3, 0xc4,
	0, 5, 2, 0, 0x11, 0x12, 0x13, 0x14,
}

func TestAHS(t *testing.T) {
	cdb := []byte{0xc1, 0xc2, 0xc3, 0xc4}
	if got := AppendBidiReadLength(AppendExtendedCDB(nil, cdb), 0x11121314); !bytes.Equal(got, testAHS) {
		t.Errorf("encoded as % x, want % x", got, testAHS)
	}
	first, rest, err := NextAHS(testAHS)
	if err != nil || first.Type != AHSExtendedCDB || len(rest) != 8 {
		t.Fatalf("first: %+v, %x, %v", first, rest, err)
	}
	if got, err := first.ExtendedCDB(); err != nil || !bytes.Equal(got, cdb) {
		t.Errorf("extended CDB: %x, %v", got, err)
	}
	second, rest, err := NextAHS(rest)
	if err != nil || second.Type != AHSBidiReadLength || len(rest) != 0 {
		t.Fatalf("second: %+v, %x, %v", second, rest, err)
	}
	if got, err := second.BidiReadLength(); err != nil || got != 0x11121314 {
		t.Errorf("bidirectional read length: %#x, %v", got, err)
	}
	// One is not the other.
	if got, err := second.ExtendedCDB(); err == nil {
		t.Errorf("extended CDB from a read length: %x", got)
	}
	if got, err := first.BidiReadLength(); err == nil {
		t.Errorf("read length from an extended CDB: %#x", got)
	}
}

func TestAHSPadding(t *testing.T) {
	for n := 1; n <= 244; n++ {
		cdb := bytes.Repeat([]byte{0xcc}, n)
		b := AppendExtendedCDB([]byte{0x99, 0x99, 0x99, 0x99}, cdb)
		if len(b)%4 != 0 || len(b) < 4+4+n || len(b) > 4+4+n+3 {
			t.Fatalf("%d bytes of CDB became %d bytes", n, len(b)-4)
		}
		a, rest, err := NextAHS(b[4:])
		if err != nil || len(rest) != 0 {
			t.Fatalf("%d bytes of CDB: rest %x, %v", n, rest, err)
		}
		if got, err := a.ExtendedCDB(); err != nil || !bytes.Equal(got, cdb) {
			t.Fatalf("%d bytes of CDB became %x, %v", n, got, err)
		}
		for _, c := range b[4+4+n:] {
			if c != 0 {
				t.Fatalf("%d bytes of CDB: padding is not zero: %x", n, b)
			}
		}
	}
}

func TestAHSGarbage(t *testing.T) {
	for n := range 8 { // what of the first is cut off is missed
		if a, _, err := NextAHS(testAHS[:n]); err == nil {
			t.Errorf("%d bytes of it parse: %+v", n, a)
		}
	}
	for _, data := range [][]byte{{0, 0, 1}, {0, 0, 1, 0}, {0, 1, 1, 0}} {
		a, _, err := NextAHS(data)
		if err != nil {
			t.Errorf("%x: %v", data, err)
		} else if cdb, err := a.ExtendedCDB(); err == nil {
			t.Errorf("%x has the extended CDB %x", data, cdb)
		}
	}
	for _, n := range []byte{0, 4, 6} {
		a := AHS{Type: AHSBidiReadLength, Data: make([]byte, n)}
		if got, err := a.BidiReadLength(); err == nil {
			t.Errorf("%d bytes are the read length %d", n, got)
		}
	}
	// The two high bits of the type are reserved (§11.2.2.1).
	if a, _, err := NextAHS([]byte{0, 5, 0xc2, 0, 1, 2, 3, 4}); err != nil || a.Type != AHSBidiReadLength {
		t.Errorf("with reserved bits: %+v, %v", a, err)
	}
}

func FuzzNextAHS(f *testing.F) {
	f.Add(testAHS)
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		for len(data) > 0 {
			a, rest, err := NextAHS(data)
			if err != nil {
				return
			}
			if len(rest) >= len(data) || len(a.Data)+ahsHeader+len(rest) > len(data) {
				t.Fatalf("%x became %x and %x", data, a.Data, rest)
			}
			_, _ = a.ExtendedCDB()
			_, _ = a.BidiReadLength()
			data = rest
		}
	})
}
