package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"iscsictl/target"
)

// limits are how many sessions TestLimits has: LIMITS, as by "make limits", or few.
func limits(t *testing.T) int {
	text := os.Getenv("LIMITS")
	if text == "" {
		return load(40, 200)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("LIMITS: %v", err)
	}
	return n
}

// TestLimits has many sessions with four disks each, all added at once, and says what
// they cost. Some of the targets are there and say nothing: that holds up nobody else.
func TestLimits(t *testing.T) {
	t.Parallel()
	const units, silent = 4, 5
	n := limits(t)
	var conf target.Config
	var text strings.Builder
	for i := range n {
		one := target.Target{Name: fmt.Sprintf("iqn.2026-11.example:limits%d", i)}
		for lun := range units {
			one.LUNs = append(one.LUNs, target.LUN{Number: lun, Null: true, Size: 1 << 30})
		}
		conf.Targets = append(conf.Targets, one)
	}
	e := newTarget(t, conf)
	mute := newHandler(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	for i := range silent {
		fmt.Fprintf(&text, "s%d {\n TargetAddress = %s\n TargetName = iqn.2026-11.example:silent%d\n}\n", i, mute.portal, i)
	}
	for i := range n {
		fmt.Fprintf(&text, "n%d {\n TargetAddress = %s\n TargetName = %s\n}\n", i, e.portal, conf.Targets[i].Name)
	}
	d := newDaemon(t)
	before := d.resources()
	begun := time.Now()
	d.ok("-A", "-a", "-c", d.conf(text.String()))
	added := time.Since(begun)
	disk := regexp.MustCompile(`\.sock`)
	list := func() string { return d.ok("-L") }
	if !within(4*patience, func() bool { return len(disk.FindAllString(list(), -1)) == n*units }) {
		t.Fatalf("not all of %d sessions have their disks: %d", n, len(disk.FindAllString(list(), -1)))
	}
	took := time.Since(begun)
	cpu := d.resources().cpu - before.cpu
	begun = time.Now()
	list()
	listed := time.Since(begun)
	time.Sleep(2 * time.Second) // what they cost at rest
	rest := d.resources()
	time.Sleep(2 * time.Second)
	idle := d.resources().cpu - rest.cpu
	t.Logf("NOTE: %d sessions of %d disks (%d silent targets beside them): added in %.1f s, all disks there after %.1f s and %.1f s of CPU; "+
		"%.2f MB of memory each (%.0f MB in all, %.0f MB before); iscsictl -L takes %.2f s; at rest %.1f %% of a CPU",
		n, units, silent, added.Seconds(), took.Seconds(), cpu.Seconds(), (rest.resident-before.resident)/float64(n), rest.resident, before.resident,
		listed.Seconds(), idle.Seconds()/2*100)
	if s := d.session("iqn.2026-11.example:silent0"); s.State == "Connected" {
		t.Error("a silent target is connected: is the test still good?")
	}
	if each := (rest.resident - before.resident) / float64(n); each > 4 && !raceDetector {
		t.Errorf("%.1f MB for each session", each)
	}
	d.ok("-R", "-a")
}

// resources are what a process has taken so far.
type resources struct {
	resident float64 // MB
	cpu      time.Duration
}

func (p *process) resources() (r resources) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status); m != nil {
		n, _ := strconv.Atoi(string(m[1]))
		r.resident = float64(n) * 1024 / 1e6
	}
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if fields := strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+1:])); len(fields) > 12 {
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		r.cpu = time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
	}
	return r
}
