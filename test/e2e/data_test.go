package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// size is a fio option for so many MiB.
func size(mib int) string { return fmt.Sprintf("--size=%dM", mib) }

// rate is a fio option that keeps it to so many MiB a second, so that there is time to
// do something to it.
func rate(mib int) string { return fmt.Sprintf("--rate=%dM", mib) }

// TestSocketTools has programs that speak NBD use a disk: nbdcopy, qemu-img,
// qemu-io, fio.
func TestSocketTools(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:tools"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	mib := load(32, 256)
	image := g.lun(tid, 1, mib)
	d.add(g.portal(), name)
	disk := d.disk(name, 1)
	in, out := d.dir+"/in", d.dir+"/out"
	data := newImage(t, in, mib<<20)

	t.Run("nbdcopy", func(t *testing.T) {
		copyNBD(t, in, uri(disk))
		wantSame(t, image, data)
		copyNBD(t, uri(disk), out)
		wantSame(t, out, data)
	})
	t.Run("qemu-img", func(t *testing.T) {
		img := tool(t, "qemu-img", "qemu-utils")
		must(t, img, "convert", "-f", "raw", "-O", "qcow2", uri(disk), d.dir+"/out.qcow2")
		must(t, img, "compare", "-f", "qcow2", "-F", "raw", d.dir+"/out.qcow2", uri(disk))
		data := newImage(t, d.dir+"/other", mib<<20)
		must(t, img, "convert", "-n", "-f", "raw", "-O", "raw", d.dir+"/other", uri(disk))
		must(t, img, "compare", "-f", "raw", "-F", "raw", d.dir+"/other", uri(disk))
		wantSame(t, image, data)
	})
	t.Run("qemu-io", func(t *testing.T) {
		w1, _ := pattern(1, 0, 1<<20)
		w2, r2 := pattern(2, 512, 512)
		w3, r3 := pattern(3, 1<<20+512, 3*512)
		qemuIO(t, disk, w1, w2, w3, "flush", r2, r3, "read -P 1 0 512", "read -P 1 1024 4096")
		qemuIO(t, disk, "write -z 65536 131072", "read -P 0 65536 131072", "read -P 1 4096 61440", "discard 0 65536")
	})
	t.Run("fio", func(t *testing.T) {
		for _, bs := range []string{"512", "4k", "60k", "1M", "4M"} {
			total := load(8, 128)
			if bs == "512" {
				total = 1
			}
			fio(t, disk, "--bs="+bs, size(total), "--iodepth=32")
		}
	})
	t.Run("beyond the end", func(t *testing.T) {
		if out, err := tryQemuIO(t, disk, fmt.Sprintf("write %d 4096", mib<<20)); err == nil {
			t.Errorf("a write beyond the end:\n%s", out)
		}
	})
	if s := d.session(name); s.Errors != 0 || s.Reconnections != 0 {
		t.Errorf("%d errors, %d reconnections", s.Errors, s.Reconnections)
	}
}

// TestTargetKilled kills the target under I/O, twice: while fio writes and while it
// reads back. fio sees no error, and the data is right.
func TestTargetKilled(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:killed"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	g.lun(tid, 1, load(64, 512))
	d.add(g.portal(), name)
	job := startFio(t, d.dir, d.disk(name, 1), "--bs=16k", size(load(32, 512)), "--iodepth=16", rate(load(16, 128)))
	killUnderIO(t, d, g, name, job)
}

// killUnderIO kills the target once while a job writes and once while it reads.
func killUnderIO(t *testing.T, d *daemon, g *tgtd, name string, job *process) {
	t.Helper()
	for i, busy := range []func(session) bool{
		func(s session) bool { return s.BytesWritten > 4<<20 },
		func(s session) bool { return s.BytesRead > 4<<20 },
	} {
		d.until(name, "I/O", busy)
		g.crash()
		s := d.until(name, "noticed", func(s session) bool { return s.State == "Disconnected" })
		if !job.running() {
			t.Fatalf("fio has ended without its disk:\n%s", job.output())
		}
		if len(s.Devices.LUN) != 1 {
			t.Errorf("the disk has gone with the connection: %+v", s.Devices)
		}
		g.restart()
		d.until(name, "reconnected", func(s session) bool { return s.State == "Connected" && s.Reconnections == uint64(i+1) })
	}
	fioEnded(t, job)
	if s := d.session(name); s.Errors != 0 {
		t.Errorf("%d requests have failed", s.Errors)
	} else if s.LastFailure == "" {
		t.Error("the listing does not tell of the failure")
	}
	if !strings.Contains(d.output(), "reconnected") {
		t.Error("the log does not tell of the reconnection")
	}
}

// TestTargetHangs stops the target, so that its connection stays and nothing is
// answered: the session notices by itself.
func TestTargetHangs(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:hangs"
	g, d := newTgtd(t), newDaemon(t, "-o", "kern.iscsi.ping_timeout=2")
	tid := g.target(name)
	g.lun(tid, 1, 64)
	d.add(g.portal(), name)
	job := startFio(t, d.dir, d.disk(name, 1), "--bs=16k", "--size=16M", "--iodepth=16", "--rate=8M")
	d.until(name, "I/O", func(s session) bool { return s.BytesWritten > 2<<20 })
	g.pause()
	defer g.resume()
	d.until(name, "noticed", func(s session) bool { return s.State == "Disconnected" })
	if !d.says("no ping reply (NOP-In) after") {
		t.Error("the log does not say that the target was silent")
	}
	g.resume()
	d.until(name, "reconnected", func(s session) bool { return s.State == "Connected" && s.Reconnections > 0 })
	fioEnded(t, job)
	if s := d.session(name); s.Errors != 0 {
		t.Errorf("%d requests have failed", s.Errors)
	}
}

// TestRecoveryTimeout gives up on a target that stays away: then readers get an
// error, and later they are served again.
func TestRecoveryTimeout(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:gone"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	g.lun(tid, 1, 8)
	d.ok("--sysctl", "kern.iscsi.recovery_timeout=1")
	d.add(g.portal(), name)
	disk := d.disk(name, 1)
	g.crash()
	d.until(name, "noticed", func(s session) bool { return s.State == "Disconnected" })
	if out, err := tryQemuIO(t, disk, "read 0 4096"); err == nil {
		t.Errorf("a read without a target has succeeded:\n%s", out)
	}
	if s := d.session(name); s.Errors == 0 {
		t.Error("the failed request was not counted")
	}
	g.restart()
	d.connected(name)
	if d.disk(name, 1) != disk {
		t.Errorf("the disk was %s and is %s", disk, d.disk(name, 1))
	}
	w, r := pattern(7, 0, 65536)
	qemuIO(t, disk, w, r)
}

// TestFailOnDisconnection removes the disks with the connection where the tunable
// wants that.
func TestFailOnDisconnection(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:fails"
	g, d := newTgtd(t), newDaemon(t, "-o", "kern.iscsi.fail_on_disconnection=1")
	tid := g.target(name)
	g.lun(tid, 1, 8)
	d.add(g.portal(), name)
	d.disk(name, 1)
	g.crash()
	d.until(name, "without a disk", func(s session) bool { return s.State == "Disconnected" && len(s.Devices.LUN) == 0 })
	g.restart()
	d.connected(name)
	w, r := pattern(7, 0, 65536)
	qemuIO(t, d.disk(name, 1), w, r)
}

// TestManySessions adds many sessions at once, more than may log in at a time.
func TestManySessions(t *testing.T) {
	t.Parallel()
	g, d := newTgtd(t), newDaemon(t, "-m", "3", "-o", "kern.iscsi.arena_size=4m")
	var text strings.Builder
	n := load(24, 100)
	for i := range n {
		name := fmt.Sprintf("iqn.2026-11.example:many%d", i)
		g.lun(g.target(name), 1, 1)
		fmt.Fprintf(&text, "n%d {\n TargetAddress = %s\n TargetName = %s\n}\n", i, g.portal(), name)
	}
	d.ok("-A", "-a", "-c", d.conf(text.String()), "-w", "30")
	eventually(t, "all disks are there", func() bool {
		disks := 0
		for _, s := range d.sessions() {
			disks += len(s.Devices.LUN)
		}
		return disks == n
	})
	g.crash()
	eventually(t, "all are down", func() bool { return !strings.Contains(d.ok("-L"), "Connected") })
	g.restart()
	d.ok("-L", "-w", "30")
	d.ok("-R", "-a")
}
