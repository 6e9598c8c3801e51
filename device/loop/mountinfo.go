package loop

import (
	"os"
	"strings"
)

// mountPoint is a line of mountinfo, proc_pid_mountinfo(5).
type mountPoint struct {
	major, minor string // of the file system's device
	point        string
	kind         string // the file system's type
	source       string
}

// mounts returns what is mounted. It asks the kernel and no file system, so
// that a dead one does not matter.
func mounts() []mountPoint {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return parseMounts(string(b))
}

func parseMounts(text string) []mountPoint {
	var all []mountPoint
	for line := range strings.Lines(text) {
		front, back, ok := strings.Cut(line, " - ")
		a, b := strings.Fields(front), strings.Fields(back)
		if !ok || len(a) < 5 || len(b) < 2 {
			continue
		}
		m := mountPoint{point: unescape(a[4]), kind: b[0], source: unescape(b[1])}
		m.major, m.minor, _ = strings.Cut(a[2], ":")
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
