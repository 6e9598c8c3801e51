package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLogin goes the whole way once: a target with several logical units of
// different kinds, each of them a disk with the right size and the right data.
func TestLogin(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:several"
	g := newTgtd(t)
	tid := g.target(name)
	images := map[int]string{}
	for lun := 1; lun <= 4; lun++ {
		images[lun] = g.lun(tid, lun, 4*lun)
	}
	g.tell("--op", "update", "--mode", "logicalunit", "--tid", tid, "--lun", "3", "--params", "readonly=1")
	want := newImage(t, images[3], 12<<20)
	d := newDaemon(t)
	s := d.add(g.portal(), name)
	if s.Type != "Normal" || s.Enable != "Yes" || s.FailureReason != "" || s.Target.Portal != g.portal() {
		t.Errorf("listing: %+v", s)
	}
	for lun := 1; lun <= 4; lun++ {
		disk := d.disk(name, lun)
		if want := fmt.Sprintf("%s/nbd/%d-%d.sock", d.run, s.ID, lun); disk != want {
			t.Errorf("LUN %d is %s, want %s", lun, disk, want)
		}
		link, err := os.Readlink(fmt.Sprintf("%s/by-target/%s/lun%d", d.run, name, lun))
		if err != nil || link != disk {
			t.Errorf("the link of LUN %d is %q, %v", lun, link, err)
		}
	}
	if have("nbdinfo") {
		for lun := 1; lun <= 4; lun++ {
			out := must(t, "nbdinfo", uri(d.disk(name, lun)))
			readOnly := fmt.Sprintf("is_read_only: %v", lun == 3)
			if !strings.Contains(out, fmt.Sprintf("export-size: %d ", lun<<22)) || !strings.Contains(out, readOnly) {
				t.Errorf("nbdinfo of LUN %d, which has %d bytes:\n%s", lun, lun<<22, out)
			}
		}
	}
	for _, lun := range []int{1, 2, 4} {
		data := newImage(t, fmt.Sprintf("%s/in%d", d.dir, lun), lun<<22)
		copyNBD(t, fmt.Sprintf("%s/in%d", d.dir, lun), uri(d.disk(name, lun)))
		wantSame(t, images[lun], data)
	}
	copyNBD(t, uri(d.disk(name, 3)), d.dir+"/out")
	wantSame(t, d.dir+"/out", want)
	if out, err := tryQemuIO(t, d.disk(name, 3), "write -P 1 0 4096"); err == nil {
		t.Errorf("LUN 3 is read-only, and was written to:\n%s", out)
	}
	wantSame(t, images[3], want)

	if s = d.session(name); s.BytesWritten < 28<<20 || s.BytesRead < 12<<20 || s.Requests == 0 || s.Reconnections != 0 {
		t.Errorf("counters: %d requests, %d read, %d written, %d reconnections", s.Requests, s.BytesRead, s.BytesWritten, s.Reconnections)
	}
	d.ok("-R", "-t", name)
	if list := d.sessions(); len(list) != 0 {
		t.Errorf("sessions after the removal of the only one: %+v", list)
	}
	eventually(t, "the target is left", func() bool { return g.connections(tid) == 0 })
	eventually(t, "the sockets are removed", func() bool {
		left, _ := filepath.Glob(d.run + "/nbd/*")
		return len(left) == 0
	})
}

// TestDigests uses all four combinations of digests.
func TestDigests(t *testing.T) {
	t.Parallel()
	g, d := newTgtd(t), newDaemon(t)
	choices := []string{"None", "CRC32C"}
	var text strings.Builder
	name := func(header, data string) string { return strings.ToLower("iqn.2026-11.example:" + header + "-" + data) }
	for _, header := range choices {
		for _, data := range choices {
			tid := g.target(name(header, data))
			g.set(tid, "HeaderDigest", header)
			g.set(tid, "DataDigest", data)
			g.lun(tid, 1, 16)
			fmt.Fprintf(&text, "%s-%s {\n TargetAddress = %s\n TargetName = %s\n HeaderDigest = %s\n DataDigest = %s\n}\n",
				header, data, g.portal(), name(header, data), header, data)
		}
	}
	d.ok("-A", "-a", "-c", d.conf(text.String()), "-w", "30")
	for _, header := range choices {
		for _, data := range choices {
			target := name(header, data)
			s := d.connected(target)
			if s.HeaderDigest != header || s.DataDigest != data {
				t.Errorf("%s: header digest %s, data digest %s", target, s.HeaderDigest, s.DataDigest)
			}
			// Lengths that are no multiple of four blocks show padding and splitting.
			fio(t, d.disk(target, 1), "--bs=68k", "--size=8M", "--iodepth=8")
			fio(t, d.disk(target, 1), "--bs=512", "--size=512k", "--iodepth=8")
		}
	}
}

// TestDigestsRefused shows what becomes of a session whose target has no digests
// where they are wanted.
func TestDigestsRefused(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:refused"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	g.set(tid, "HeaderDigest", "None")
	g.lun(tid, 1, 4)
	d.ok("-A", "-a", "-c", d.conf("a {\n TargetAddress = "+g.portal()+"\n TargetName = "+name+"\n HeaderDigest = CRC32C\n}\n"))
	s := d.until(name, "settled", func(s session) bool { return s.State == "Connected" || s.FailureReason != "" && s.LastFailure != "" })
	if s.State == "Connected" && s.HeaderDigest != "None" {
		t.Errorf("header digest %s with a target that has none", s.HeaderDigest)
	}
}

// TestNotFound asks for a target that the portal does not have.
func TestNotFound(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:nowhere"
	g, d := newTgtd(t), newDaemon(t)
	g.target("iqn.2026-11.example:other")
	r := d.ctl("-A", "-p", g.portal(), "-t", name, "-w", "1")
	if r.status != 1 || !strings.Contains(r.stderr, "Not found") || !strings.Contains(r.stderr, name) {
		t.Errorf("iscsictl -A -w 1: status %d, %q", r.status, r.stderr)
	}
	d.failing(name, "Not found")
	if !d.says("--discover") {
		t.Error("the log does not say what to do")
	}
	// It goes on trying.
	tid := g.target(name)
	g.lun(tid, 1, 4)
	d.connected(name)
	d.disk(name, 1)
}
