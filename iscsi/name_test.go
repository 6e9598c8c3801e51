package iscsi

import (
	"strings"
	"testing"
)

func TestValidateName(t *testing.T) {
	for _, name := range []string{
		"iqn.2012-06.com.example",
		"iqn.2012-06.com.example:target0",
		"iqn.1994-09.org.freebsd:host.example.com",
		"iqn.2001-04.com.example:storage:diskarrays-sn-a8675309",
		"iqn.2012-06.com.example:größe",
		"eui.02004567A425678D",
		"eui.02004567a425678d",
		"naa.52004567BA64678D",
		"naa.62004567BA64678D0123456789ABCDEF",
		"iqn.2012-06.com.example:" + strings.Repeat("a", MaxNameLen-len("iqn.2012-06.com.example:")),
	} {
		if warnings, err := ValidateName(name); err != nil || len(warnings) > 0 {
			t.Errorf("%q: %q, %v", name, warnings, err)
		}
	}
}

func TestValidateNameWarnings(t *testing.T) {
	for name, want := range map[string]string{
		"target0":                          "begins with none of",
		"iqn":                              "followed by a date",
		"iqn.":                             "followed by a date",
		"iqn.com.example":                  "followed by a date",
		"iqn.2012-13.com.example":          "followed by a date",
		"iqn.2012-00.com.example":          "followed by a date",
		"iqn.2012-6.com.example":           "followed by a date",
		"iqn.2o12-06.com.example":          "followed by a date",
		"iqn.2012-06":                      "followed by a domain name",
		"iqn.2012-06.":                     "followed by a domain name",
		"iqn.2012-06.:target0":             "followed by a domain name",
		"eui.02004567A425678":              `"eui." is not followed by 16 hexadecimal digits`,
		"eui.02004567A425678G":             `"eui." is not followed by 16 hexadecimal digits`,
		"naa.52004567BA64678D0":            `"naa." is not followed by 16 or 32 hexadecimal digits`,
		"naa.":                             `"naa." is not followed by 16 or 32 hexadecimal digits`,
		"iqn.2012-06.com.example:Target0":  "upper-case",
		"IQN.2012-06.com.example":          "upper-case",
		"iqn.2012-06.com.example:a/b":      "contains '/'",
		"iqn.2012-06.com.example:../../..": "contains '/'",
		"iqn.2012-06.com.example:a_b":      "contains '_'",
		"iqn.2012-06.com.example:a\\b":     `contains '\\'`,
	} {
		warnings, err := ValidateName(name)
		if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], want) {
			t.Errorf("%q: %q, %v; want %q", name, warnings, err, want)
		}
	}
}

func TestValidateNameRefused(t *testing.T) {
	for name, want := range map[string]string{
		"":                                "empty",
		"iqn." + strings.Repeat("a", 220): "224 bytes long; at most 223",
		"iqn.2012-06.com.example:a b":     "space or a control character",
		"iqn.2012-06.com.example:a\n":     "space or a control character",
		"iqn.2012-06.com.example:a\x00":   "space or a control character",
		"iqn.2012-06.com.example:\x7f":    "space or a control character",
		"iqn.2012-06.com.example:\xff":    "not UTF-8",
	} {
		warnings, err := ValidateName(name)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v; want %q", name, warnings, err, want)
		}
	}
}

func FuzzValidateName(f *testing.F) {
	f.Add("iqn.2012-06.com.example:target0")
	f.Add("eui.02004567A425678D")
	f.Add("naa.")
	f.Fuzz(func(t *testing.T, name string) {
		_, err := ValidateName(name)
		if err == nil && (name == "" || len(name) > MaxNameLen || strings.ContainsAny(name, "\x00\n \x1b")) {
			t.Errorf("%q is accepted", name)
		}
	})
}
