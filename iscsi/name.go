package iscsi

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxNameLen is the greatest length of an iSCSI name in bytes (RFC 7143 §4.2.7.1).
const MaxNameLen = 223

// ValidateName checks an iSCSI name (RFC 7143 §4.2.7): iqn., eui. or naa. form.
// err says why it cannot be used at all; warnings say what is unusual about a
// name that is yet usable, as there are targets that do not keep to the forms.
func ValidateName(name string) (warnings []string, err error) {
	switch {
	case name == "":
		return nil, errors.New("iSCSI name is empty")
	case len(name) > MaxNameLen:
		return nil, fmt.Errorf("iSCSI name is %d bytes long; at most %d are allowed", len(name), MaxNameLen)
	case !utf8.ValidString(name):
		return nil, fmt.Errorf("iSCSI name %q is not UTF-8", name)
	}
	for _, r := range name {
		if r <= ' ' || r == 0x7f {
			return nil, fmt.Errorf("iSCSI name %q contains a space or a control character", name)
		}
	}
	form, rest, _ := strings.Cut(name, ".")
	switch strings.ToLower(form) {
	case "iqn":
		warnings = checkIQN(rest)
	case "eui":
		warnings = checkHexName("eui", rest, 16)
	case "naa":
		warnings = checkHexName("naa", rest, 16, 32)
	default:
		warnings = []string{`it begins with none of "iqn.", "eui." and "naa."`}
	}
	return append(warnings, checkNameCharacters(name)...), nil
}

// checkIQN checks the form date.domain[:anything] (§4.2.7.4), where date is yyyy-mm.
func checkIQN(rest string) []string {
	date, domain, found := strings.Cut(rest, ".")
	if !isYearMonth(date) {
		return []string{`"iqn." is not followed by a date as in "iqn.2012-06."`}
	}
	domain, _, _ = strings.Cut(domain, ":")
	if !found || domain == "" {
		return []string{"the date is not followed by a domain name"}
	}
	return nil
}

func isYearMonth(s string) bool {
	if len(s) != len("2012-06") || s[4] != '-' {
		return false
	}
	for i := range s {
		if i != 4 && (s[i] < '0' || s[i] > '9') {
			return false
		}
	}
	return s[5:] >= "01" && s[5:] <= "12"
}

// checkHexName checks that digits is hexadecimal (§4.2.7.5, §4.2.7.6), of one of
// the lengths.
func checkHexName(form, digits string, lengths ...int) []string {
	valid := false
	for _, n := range lengths {
		valid = valid || len(digits) == n
	}
	for i := range len(digits) {
		valid = valid && isHexDigit(digits[i])
	}
	if valid {
		return nil
	}
	if len(lengths) == 1 {
		return []string{fmt.Sprintf("%q is not followed by %d hexadecimal digits", form+".", lengths[0])}
	}
	return []string{fmt.Sprintf("%q is not followed by %d or %d hexadecimal digits", form+".", lengths[0], lengths[1])}
}

func isHexDigit(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// checkNameCharacters looks for what the string profile of names does not let
// through (§4.2.7.2): in ASCII, all but letters, digits, dash, dot and colon.
// Beyond ASCII everything passes, as names are compared byte by byte anyway.
func checkNameCharacters(name string) []string {
	var warnings []string
	if strings.ToLower(name) != name && !strings.HasPrefix(name, "eui.") && !strings.HasPrefix(name, "naa.") {
		warnings = append(warnings, "it contains upper-case letters, which other implementations make lower-case")
	}
	for _, r := range name {
		if r < utf8.RuneSelf && !isNameByte(byte(r)) {
			return append(warnings, fmt.Sprintf("it contains %q", r))
		}
	}
	return warnings
}

func isNameByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '-' || c == '.' || c == ':'
}
