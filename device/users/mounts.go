package users

import (
	"os"
	"strings"
)

// Mount is a line of mountinfo, proc_pid_mountinfo(5).
type Mount struct {
	Major, Minor string // of the file system's device
	Point        string
	Kind         string // the file system's type
	Source       string
}

// Mounts returns what is mounted. It asks the kernel and no file system, so
// that a dead one does not matter.
func Mounts() []Mount {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return parseMounts(string(b))
}

func parseMounts(text string) []Mount {
	var all []Mount
	for line := range strings.Lines(text) {
		front, back, ok := strings.Cut(line, " - ")
		a, b := strings.Fields(front), strings.Fields(back)
		if !ok || len(a) < 5 || len(b) < 2 {
			continue
		}
		m := Mount{Point: unescape(a[4]), Kind: b[0], Source: unescape(b[1])}
		m.Major, m.Minor, _ = strings.Cut(a[2], ":")
		all = append(all, m)
	}
	return all
}

// unescape undoes the kernel's octal escapes (\040 for a space).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1]) && isOctal(s[i+2]) && isOctal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(c byte) bool { return '0' <= c && c <= '7' }
