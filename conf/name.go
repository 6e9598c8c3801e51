package conf

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the longest iSCSI name, in bytes (RFC 7143 §4.2.7.1).
const maxName = 223

// InitiatorNameFile is where Linux hosts keep their initiator name by
// convention. It is a variable for tests.
var InitiatorNameFile = "/etc/iscsi/initiatorname.iscsi"

// DefaultInitiatorName returns the name of the host: that of InitiatorNameFile,
// or else the one that FreeBSD makes of the host's name.
func DefaultInitiatorName() string {
	if f, err := os.Open(InitiatorNameFile); err == nil {
		defer f.Close()
		lines := bufio.NewScanner(io.LimitReader(f, 1<<16))
		for lines.Scan() {
			key, value, _ := strings.Cut(lines.Text(), "=")
			if name := strings.TrimSpace(value); strings.TrimSpace(key) == "InitiatorName" && name != "" {
				return name
			}
		}
	}
	host, _ := os.Hostname()
	return "iqn.1994-09.org.freebsd:" + host
}

// nameFaults returns why name is no iSCSI name at all.
func nameFaults(kind, name string) []error {
	switch {
	case len(name) > maxName:
		return []error{
			fmt.Errorf("overlong name for %s; max length allowed by iSCSI specification is %d characters", quote(name), maxName),
			fmt.Errorf("invalid %s name %s", kind, quote(name)),
		}
	case name == "" || !isText(name):
		return []error{fmt.Errorf("invalid %s name %s", kind, quote(name))}
	}
	return nil
}

// nameWarning returns what is unusual in an iSCSI name (RFC 7143 §4.2.7), or "".
func nameWarning(name string) string {
	prefix, rest := strings.ToLower(name[:min(4, len(name))]), name[min(4, len(name)):]
	switch prefix {
	case "iqn.":
		if rest == "" {
			return fmt.Sprintf("unusual iSCSI name %s: nothing follows %q", quote(name), prefix)
		}
		if i := strings.IndexFunc(rest, func(r rune) bool { return !inIQN(r) }); i >= 0 {
			r, _ := utf8.DecodeRuneInString(rest[i:])
			return fmt.Sprintf("unusual iSCSI name %s: it has %q, and not just letters, digits, '-', '.' and ':'", quote(name), r)
		}
	case "eui.":
		if len(rest) != 16 || !isHex(rest) {
			return fmt.Sprintf("unusual iSCSI name %s: \"eui.\" is followed by 16 hexadecimal digits", quote(name))
		}
	case "naa.":
		if len(rest) != 16 && len(rest) != 32 || !isHex(rest) {
			return fmt.Sprintf("unusual iSCSI name %s: \"naa.\" is followed by 16 or 32 hexadecimal digits", quote(name))
		}
	default:
		return fmt.Sprintf("unusual iSCSI name %s: it begins with none of \"iqn.\", \"eui.\" and \"naa.\"", quote(name))
	}
	return ""
}

func inIQN(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-.:", r)
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// isText says whether s can be sent as a text value (RFC 7143 §6.1) and
// printed: UTF-8 without control characters, but tabs. A NUL would end the
// value and begin another key.
func isText(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && r != '\t'
	}) < 0
}

// quote returns s in quotes, with escapes where it has what a terminal would
// obey, shortened where it is long.
func quote(s string) string {
	if len(s) > maxName+33 {
		s = s[:maxName] + "..."
	}
	return fmt.Sprintf("%q", s)
}
