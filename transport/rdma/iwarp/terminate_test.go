package iwarp

import (
	"bytes"
	"strings"
	"testing"
)

func TestTerminateDecoding(t *testing.T) {
	for _, c := range []struct {
		name             string
		bytes            []string
		layer, typ, code uint8
		swapped          bool
		reason           string
	}{
		// As siw sends them.
		{"MSN, siw", []string{"21030300", "004c", "4143"}, 1, 2, 3, true, "sequence number"},
		{"CRC, siw", []string{"02020000"}, 2, 0, 2, true, "CRC"},
		{"opcode, siw", []string{"20060000"}, 0, 2, 6, true, "opcode"},
		{"Write STag, siw", []string{"11000300", "0040", "c140"}, 1, 1, 0, true, "invalid STag"},
		{"long Send, siw", []string{"21020300"}, 1, 2, 2, true, "no buffer"},
		// As the RFC has them.
		{"MSN", []string{"1203c000"}, 1, 2, 3, false, "sequence number"},
		{"CRC", []string{"20020000"}, 2, 0, 2, false, "CRC"},
		{"opcode", []string{"0206c000"}, 0, 2, 6, false, "opcode"},
		{"Write STag", []string{"1100c000"}, 1, 1, 0, false, "invalid STag"},
		{"insufficient IRD", []string{"2005c000"}, 2, 0, 5, false, "IRD"},
		{"unknown", []string{"ff770000"}, 15, 15, 0x77, false, ""},
		{"unknown with flags", []string{"3f77c000"}, 3, 15, 0x77, false, ""},
	} {
		e := parseTerminate(unhex(t, c.bytes...))
		if e.Layer != c.layer || e.Type != c.typ || e.Code != c.code || e.Swapped != c.swapped || !strings.Contains(e.Reason, c.reason) || (c.reason == "") != (e.Reason == "") {
			t.Errorf("%s: %+v", c.name, e)
		}
		if e.Error() == "" {
			t.Errorf("%s has no words", c.name)
		}
	}
	for n := range 4 {
		if e := parseTerminate(make([]byte, n)); e != nil {
			t.Errorf("%d bytes: %+v", n, e)
		}
	}
}

func TestTerminateEncoding(t *testing.T) {
	s := segment{last: true, op: opSend, msn: 7}
	got := appendTerminate(nil, terminateMSN, 0x4c, s.append(nil))
	want := unhex(t, "1203c000", "004c", "4143", "00000000", "00000000", "00000007", "00000000")
	if !bytes.Equal(got, want) {
		t.Errorf("encoded as %x, want %x", got, want)
	}
	if got := appendTerminate(nil, terminateCRC, 0, nil); !bytes.Equal(got, unhex(t, "20020000")) {
		t.Errorf("CRC is encoded as %x", got)
	}
	for k, reason := range terminateNames {
		if e := parseTerminate(appendTerminate(nil, k, 18, s.append(nil))); e.Reason != reason || e.Swapped {
			t.Errorf("%+v is decoded as %+v", k, e)
		}
	}
}

func FuzzTerminate(f *testing.F) {
	f.Add(unhex(f, "21030300004c4143"))
	f.Add(unhex(f, "1203c000004c4143"))
	f.Add([]byte{0x20, 6, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		e := parseTerminate(b)
		if (e == nil) != (len(b) < 4) {
			t.Fatalf("%d bytes: %v", len(b), e)
		}
		if e != nil && (e.Error() == "" || len(e.Header) > terminateMax) {
			t.Errorf("%+v", e)
		}
	})
}
