package iscsi

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseTargetAddress(t *testing.T) {
	for _, c := range []struct {
		value, host string
		port, tag   int
	}{
		{"10.0.0.1:5003,1", "10.0.0.1", 5003, 1},
		{"10.0.0.1", "10.0.0.1", 3260, NoPortalGroup},
		{"10.0.0.1:1", "10.0.0.1", 1, NoPortalGroup},
		{"10.0.0.1,0", "10.0.0.1", 3260, 0},
		{"[2001:db8:85a3::1]:65535,65535", "2001:db8:85a3::1", 65535, 65535},
		{"[::1]", "::1", 3260, NoPortalGroup},
		{"[::1],7", "::1", 3260, 7},
		{"[fe80::1%eth0]:3260,1", "fe80::1%eth0", 3260, 1},
		{"[::ffff:10.0.0.1]:3260,1", "::ffff:10.0.0.1", 3260, 1},
		{"computingcenter.example.com,23", "computingcenter.example.com", 3260, 23},
		{"storage_1.example.com.:860,2", "storage_1.example.com.", 860, 2},
		// As some targets have it.
		{"fe80::1,1", "fe80::1", 3260, 1},
		{"::1", "::1", 3260, NoPortalGroup},
		{"10.0.0.1:3260,0x1", "10.0.0.1", 3260, 1},
	} {
		host, port, tag, err := ParseTargetAddress(c.value)
		if err != nil || host != c.host || port != c.port || tag != c.tag {
			t.Errorf("%q: %q, %d, %d, %v", c.value, host, port, tag, err)
		}
	}
}

func TestParseTargetAddressRefused(t *testing.T) {
	for value, reason := range map[string]string{
		"":                              "no host",
		":3260,1":                       "no host",
		",1":                            "no host",
		"10.0.0.1:":                     "port: \"\" is not a number",
		"10.0.0.1:0":                    "port: \"0\" is not within 1 to 65535",
		"10.0.0.1:65536":                "port: \"65536\" is not within 1 to 65535",
		"10.0.0.1:http":                 "port: \"http\" is not a number",
		"10.0.0.1:1:2":                  "port: \"1:2\" is not a number",
		"10.0.0.1:-1":                   "port: \"-1\" is not a number",
		"10.0.0.1,":                     "portal group tag: \"\" is not a number",
		"10.0.0.1,65536":                "portal group tag: \"65536\" is not within 0 to 65535",
		"10.0.0.1,1,2":                  "portal group tag: \"1,2\" is not a number",
		"[::1":                          `"[" without "]"`,
		"[]:3260":                       "not an IPv6 address",
		"[10.0.0.1]:3260":               "not an IPv6 address",
		"[target.example.com]":          "not an IPv6 address",
		"[fe80::1%\x1b[0m]":             "not an IPv6 address",
		"fe80::1%a/b":                   "port: ",
		"[::1]3260":                     `after "]"`,
		"[::1]:":                        "port: \"\" is not a number",
		"::1]:3260":                     "no host",
		"10.0.0.1 :3260":                "may not have",
		"a/b":                           "may not have",
		"a\x1b[31m":                     "may not have",
		"a@b":                           "may not have",
		strings.Repeat("a", 256) + ":1": "longer than 255",
	} {
		host, port, tag, err := ParseTargetAddress(value)
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%.40q: %q, %d, %d, %v; want an error with %q", value, host, port, tag, err, reason)
		}
	}
}

func FuzzParseTargetAddress(f *testing.F) {
	f.Add("10.0.0.1:5003,1")
	f.Add("[2001:db8::1]:3260,1")
	f.Add("target.example.com")
	f.Fuzz(func(t *testing.T, value string) {
		host, port, tag, err := ParseTargetAddress(value)
		if err != nil {
			return
		}
		if port < 1 || port > 65535 || tag < NoPortalGroup || tag > 65535 {
			t.Errorf("%q: port %d, tag %d", value, port, tag)
		}
		if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() {
			return
		}
		if host == "" || len(host) > 255 || strings.ContainsAny(host, "/:[], \x00\n") {
			t.Errorf("%q: host %q", value, host)
		}
	})
}
