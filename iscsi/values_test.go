package iscsi

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func TestParseNumber(t *testing.T) {
	for _, c := range []struct {
		value    string
		min, max int
		want     int
	}{
		{"0", 0, 0, 0},
		{"512", 512, MaxDataSegmentLength, 512},
		{"16777215", 512, MaxDataSegmentLength, 16777215},
		{"0x200", 512, 512, 512},
		{"0X1fF", 0, 511, 511},
		{"007", 0, 7, 7},
	} {
		if got, err := ParseNumber(c.value, c.min, c.max); err != nil || got != c.want {
			t.Errorf("%q: %d, %v", c.value, got, err)
		}
	}
	for _, c := range []struct {
		value    string
		min, max int
		reason   string
	}{
		{"511", 512, 1024, "not within 512 to 1024"},
		{"1025", 512, 1024, "not within 512 to 1024"},
		{"0x401", 512, 1024, "not within 512 to 1024"},
		{"18446744073709551616", 0, math.MaxInt, "not within"},
		{"0x10000000000000000", 0, math.MaxInt, "not within"},
		{strings.Repeat("9", 1000), 0, 9, "not within"},
		{"", 0, 9, "not a number"},
		{"0x", 0, 9, "not a number"},
		{"+1", 0, 9, "not a number"},
		{"-1", -9, 9, "not a number"},
		{"0x-1", -9, 9, "not a number"},
		{"1 ", 0, 9, "not a number"},
		{" 1", 0, 9, "not a number"},
		{"1_0", 0, 99, "not a number"},
		{"0b1", 0, 9, "not a number"},
		{"f", 0, 99, "not a number"},
		{"Reject", 0, 9, "not a number"},
	} {
		got, err := ParseNumber(c.value, c.min, c.max)
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%.40q: %d, %v; want an error with %q", c.value, got, err, c.reason)
		}
	}
}

func TestBoolean(t *testing.T) {
	for value, want := range map[string]bool{"Yes": true, "No": false} {
		if got, err := ParseBoolean(value); err != nil || got != want {
			t.Errorf("%q: %v, %v", value, got, err)
		}
		if got := FormatBoolean(want); got != value {
			t.Errorf("%v: %q", want, got)
		}
	}
	for _, value := range []string{"", "yes", "no", "YES", "Yes ", "1", "Reject"} {
		if got, err := ParseBoolean(value); err == nil {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestParseBinary(t *testing.T) {
	for value, want := range map[string]string{
		"0x00":     "\x00",
		"0x0102fF": "\x01\x02\xff",
		"0Xab":     "\xab",
		"0bAQL/":   "\x01\x02\xff",
		"0BAQL/":   "\x01\x02\xff",
		"0bAQ==":   "\x01",
		"0bAQ":     "\x01",
		"0bAQI=":   "\x01\x02",
		"0bAQI":    "\x01\x02",
		"0b+/+/":   "\xfb\xff\xbf",
		"0x" + strings.Repeat("5a", MaxBinaryLen): strings.Repeat("\x5a", MaxBinaryLen),
	} {
		if got, err := ParseBinary(value); err != nil || string(got) != want {
			t.Errorf("%.40q: %x, %v", value, got, err)
		}
	}
	for _, value := range []string{
		"", "0", "00", "12", "0102", "x01", "0x", "0x1", "0x123", "0xgg", "0x 01", "0x-1",
		"0b", "0b=", "0b====", "0bA", "0bAQ=A", "0bA-_A", "0bAQ\n", "0bA\r\nQ", "0b AQ",
		"0x" + strings.Repeat("5a", MaxBinaryLen+1),
		"0b" + strings.Repeat("AAAA", MaxBinaryLen/3+1),
	} {
		if got, err := ParseBinary(value); err == nil {
			t.Errorf("%.40q: %x", value, got)
		}
	}
}

func TestAppendBinary(t *testing.T) {
	data := []byte{0x01, 0x02, 0xff, 0xfe}
	if got := string(AppendHex([]byte("CHAP_C="), data)); got != "CHAP_C=0x0102fffe" {
		t.Errorf("hexadecimal: %q", got)
	}
	if got := string(AppendBase64([]byte("CHAP_C="), data)); got != "CHAP_C=0bAQL//g==" {
		t.Errorf("base64: %q", got)
	}
}

func FuzzParseBinary(f *testing.F) {
	f.Add("0x0102ff")
	f.Add("0bAQL/")
	f.Add("0bAQ==")
	f.Fuzz(func(t *testing.T, value string) {
		data, err := ParseBinary(value)
		if err != nil {
			return
		}
		if len(data) == 0 || len(data) > MaxBinaryLen {
			t.Fatalf("%q has %d bytes", value, len(data))
		}
		for _, encoded := range [][]byte{AppendHex(nil, data), AppendBase64(nil, data)} {
			if again, err := ParseBinary(string(encoded)); err != nil || !bytes.Equal(again, data) {
				t.Errorf("%q: %x, then %x, %v", value, data, again, err)
			}
		}
	})
}

func FuzzParseNumber(f *testing.F) {
	f.Add("262144", 512, MaxDataSegmentLength)
	f.Add("0xff", 0, 255)
	f.Add("-1", -1, 1)
	f.Fuzz(func(t *testing.T, value string, min, max int) {
		if n, err := ParseNumber(value, min, max); err == nil && (n < min || n > max || n < 0) {
			t.Errorf("%q within %d to %d is %d", value, min, max, n)
		}
	})
}
