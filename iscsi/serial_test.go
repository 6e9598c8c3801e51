package iscsi

import "testing"

func TestSerial(t *testing.T) {
	const half = 1 << 31
	for _, c := range []struct {
		a, b        uint32
		less, equal bool
	}{
		{0, 0, false, true},
		{0, 1, true, false},
		{1, 0, false, false},
		{0xffffffff, 0, true, false}, // it wraps
		{0, 0xffffffff, false, false},
		{0xffffffff, half - 2, true, false},
		{0, half - 1, true, false},
		{half - 1, 0, false, false},
		{1, half, true, false},
		{0, half, false, false}, // no order (RFC 1982 §3.2)
		{half, 0, false, false},
		{7, half + 7, false, false},
	} {
		if got := SerialLess(c.a, c.b); got != c.less {
			t.Errorf("SerialLess(%#x, %#x) is %v", c.a, c.b, got)
		}
		if got := SerialLessEq(c.a, c.b); got != (c.less || c.equal) {
			t.Errorf("SerialLessEq(%#x, %#x) is %v", c.a, c.b, got)
		}
		want := c.a
		if c.less {
			want = c.b
		}
		if got := SerialMax(c.a, c.b); got != want {
			t.Errorf("SerialMax(%#x, %#x) is %#x, want %#x", c.a, c.b, got, want)
		}
	}
}
