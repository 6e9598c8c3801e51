package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// facts says where the figures were had.
func (d *document) facts() {
	fmt.Fprintf(d, "\nMeasured on %d × %s, Linux %s (%s), %s; %s.\n",
		runtime.NumCPU(), processor(), kernel(), distribution(), runtime.Version(), versions())
}

// conditions says how those of a section were.
func (d *document) conditions(s *setup) {
	fmt.Fprintf(d, "\n%s: %d rounds of %v each, load average %.1f before.", time.Now().UTC().Format("2006-01-02"), s.rounds, s.time, loadAverage())
	if s.tracer != nil {
		fmt.Fprintf(d, " System calls were counted with `%s`, in runs of their own.", s.tracer.name)
	}
	d.WriteString("\n")
}

func processor() string { return after("/proc/cpuinfo", "model name", ":") }

func distribution() string { return after("/etc/os-release", "PRETTY_NAME", "=") }

// after returns what follows a key in a file of such lines.
func after(path, key, separator string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, separator); ok && strings.TrimSpace(name) == key {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return "unknown"
}

func kernel() string {
	var u syscall.Utsname
	if syscall.Uname(&u) != nil {
		return "unknown"
	}
	var b strings.Builder
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

// versions returns those of the Debian packages that have the peers.
func versions() string {
	var found []string
	for _, name := range []string{"tgt", "libiscsi-bin", "fio"} {
		out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", name).Output()
		if version := strings.TrimSpace(string(out)); err == nil && version != "" {
			found = append(found, name+" "+version)
		}
	}
	if len(found) == 0 {
		return "peers of unknown versions"
	}
	return strings.Join(found, ", ")
}

// loadAverage is that of the last minute.
func loadAverage() (load float64) {
	data, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, _ = fmt.Sscan(string(data), &load) // 0 where it cannot be read
	}
	return load
}
