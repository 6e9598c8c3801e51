package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Tests of disks as block devices of this host.

// mounted makes a file system on a disk and mounts it until the test ends.
func mounted(t *testing.T, d *daemon, disk string) (at string) {
	t.Helper()
	must(t, tool(t, "mkfs.ext4", "e2fsprogs"), "-q", "-F", disk)
	at = d.dir + "/mnt"
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	must(t, tool(t, "mount", "mount"), "-t", "ext4", disk, at)
	t.Cleanup(func() { unmount(t, at) })
	return at
}

// unmount unmounts what is still mounted.
func unmount(t *testing.T, at string) {
	t.Helper()
	for _, path := range mounts(filepath.Dir(at)) {
		if path == at {
			if out, err := attempt("umount", at); err != nil {
				t.Errorf("umount: %v\n%s", err, out)
			}
		}
	}
}

// fill writes files and returns their checksums.
func fill(t *testing.T, dir string, files int) (sums string) {
	t.Helper()
	for i := range files {
		sub := fmt.Sprintf("%s/d%d", dir, i%4)
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		newImage(t, fmt.Sprintf("%s/f%d", sub, i), 4096*i+i)
	}
	return checksums(t, dir)
}

func checksums(t *testing.T, dir string) string {
	t.Helper()
	return must(t, "sh", "-c", `cd "$1" && find . -type f ! -path './lost+found/*' -print0 | sort -z | xargs -0 sha256sum`, "sh", dir)
}

// TestFileSystem goes from a disk to files on it and back after a reconnection.
func TestFileSystem(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:files"
	d, g := newLoopDaemon(t), newTgtd(t)
	tid := g.target(name)
	g.lun(tid, 1, 64)
	s := d.add(g.portal(), name)
	disk := d.disk(name, 1)
	if !strings.HasPrefix(disk, "/dev/loop") {
		t.Fatalf("the disk is %s", disk)
	}
	if !strings.Contains(d.ok("-L"), "Connected: "+filepath.Base(disk)+" \n") {
		t.Errorf("the listing does not have %s:\n%s", filepath.Base(disk), d.ok("-L"))
	}
	if to, err := os.Readlink(d.run + "/by-target/" + name + "/lun1"); err != nil || to != disk {
		t.Errorf("the link is to %q (%v), want %s", to, err, disk)
	}
	at := mounted(t, d, disk)
	sums := fill(t, at, 40)

	// In use: refused, naming who; and nothing happens to it.
	d.refused("mounted", "-R", "-t", name)
	d.refused(at, "-R", "-a")
	if got := d.session(name); got.State != "Connected" || got.disk(1) != disk || got.ID != s.ID {
		t.Errorf("after a refused removal: %+v", got)
	}
	if got := checksums(t, at); got != sums {
		t.Errorf("checksums after a refused removal:\n%s", got)
	}
	unmount(t, at)
	must(t, tool(t, "fsck.ext4", "e2fsprogs"), "-f", "-n", disk)
	d.ok("-R", "-t", name)
	eventually(t, "the loop device has gone", func() bool { return len(loops(d.dir)) == 0 && len(mounts(d.dir)) == 0 })

	d.add(g.portal(), name)
	must(t, "mount", "-o", "ro", "-t", "ext4", d.disk(name, 1), at)
	if got := checksums(t, at); got != sums {
		t.Errorf("checksums after a new session:\n%s\nwant\n%s", got, sums)
	}
	unmount(t, at)
}

// TestLoopData verifies data on block devices, with blocks of 512 and 4096 bytes.
func TestLoopData(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:loop"
	d := newLoopDaemon(t)
	tool(t, "fio", "fio")
	g := newTgtd(t)
	tid := g.target(name)
	image := g.lun(tid, 1, 64)
	g.lun(tid, 2, 64, "--blocksize", "4096")
	d.add(g.portal(), name)
	for lun := 1; lun <= 2; lun++ {
		disk := d.disk(name, lun)
		fio(t, disk, "--bs=4k", size(load(8, 64)), "--iodepth=16")
		fio(t, disk, "--bs=256k", size(load(32, 64)), "--iodepth=8")
		blocks, _ := os.ReadFile("/sys/block/" + filepath.Base(disk) + "/queue/logical_block_size")
		if want := []string{"512\n", "4096\n"}[lun-1]; string(blocks) != want {
			t.Errorf("LUN %d has blocks of %q, want %q", lun, blocks, want)
		}
	}
	data := newImage(t, d.dir+"/in", 64<<20)
	must(t, "dd", "if="+d.dir+"/in", "of="+d.disk(name, 1), "bs=1M", "conv=fsync", "status=none")
	wantSame(t, image, data)
	must(t, "cmp", d.dir+"/in", d.disk(name, 1))
}

// TestLoopTargetKilled kills the target under a block device in use.
func TestLoopTargetKilled(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:loopkill"
	d, g := newLoopDaemon(t), newTgtd(t)
	tid := g.target(name)
	g.lun(tid, 1, load(64, 512))
	d.add(g.portal(), name)
	job := startFio(t, d.dir, d.disk(name, 1), "--bs=16k", size(load(32, 512)), "--iodepth=16", rate(load(16, 128)))
	killUnderIO(t, d, g, name, job)
}

// TestMountedTargetKilled kills the target under a mounted file system that is
// written to.
func TestMountedTargetKilled(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:mountkill"
	d, g := newLoopDaemon(t), newTgtd(t)
	tid := g.target(name)
	g.lun(tid, 1, 64)
	d.add(g.portal(), name)
	disk := d.disk(name, 1)
	at := mounted(t, d, disk)
	newImage(t, d.dir+"/in", 6<<20)
	written := d.session(name).BytesWritten
	dd := job(t, d.dir+"/dd.log", "dd", "if="+d.dir+"/in", "of="+at+"/out", "bs=16k", "oflag=dsync")
	d.until(name, "I/O", func(s session) bool { return s.BytesWritten > written+1<<20 })
	g.crash()
	d.until(name, "noticed", func(s session) bool { return s.State == "Disconnected" })
	g.restart()
	if status, ok := dd.ended(4 * patience); !ok || status != 0 {
		t.Fatalf("dd: ended %v, status %d:\n%s", ok, status, dd.output())
	}
	must(t, "cmp", d.dir+"/in", at+"/out")
	unmount(t, at)
	must(t, tool(t, "fsck.ext4", "e2fsprogs"), "-f", "-n", disk)
	if s := d.session(name); s.Errors != 0 || s.Reconnections == 0 {
		t.Errorf("%d errors, %d reconnections", s.Errors, s.Reconnections)
	}
}

// TestForce removes a session whose disk is mounted because it is told to.
func TestForce(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:force"
	d, g := newLoopDaemon(t), newTgtd(t)
	tid := g.target(name)
	g.lun(tid, 1, 32)
	d.add(g.portal(), name)
	at := mounted(t, d, d.disk(name, 1))
	sums := fill(t, at, 4)
	must(t, "sync", "-f", at)
	d.ok("-R", "-t", name, "--force")
	if list := d.sessions(); len(list) != 0 {
		t.Errorf("sessions: %+v", list)
	}
	unmount(t, at)
	eventually(t, "nothing is left", func() bool { return len(loops(d.dir)) == 0 && len(mounts(d.dir)) == 0 })
	// What was synced is there.
	d.add(g.portal(), name)
	must(t, "mount", "-t", "ext4", d.disk(name, 1), at)
	if got := checksums(t, at); got != sums {
		t.Errorf("checksums:\n%s\nwant\n%s", got, sums)
	}
	unmount(t, at)
}

// TestOpenDisk names a process that has the disk open.
func TestOpenDisk(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:open"
	d, g := newLoopDaemon(t), newTgtd(t)
	tid := g.target(name)
	g.lun(tid, 1, 8)
	d.add(g.portal(), name)
	// O_EXCL is what mounts, swap, LVM and mkfs use.
	f, err := os.OpenFile(d.disk(name, 1), os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d.refused(fmt.Sprintf("%d", os.Getpid()), "-R", "-t", name)
	f.Close()
	d.ok("-R", "-t", name)
}

// TestStopInUse stops iscsid while its disk is mounted, with and without a target.
func TestStopInUse(t *testing.T) {
	t.Parallel()
	for _, there := range []bool{true, false} {
		t.Run(fmt.Sprintf("target there %v", there), func(t *testing.T) {
			t.Parallel()
			const name = "iqn.2026-11.example:stop"
			d, g := newLoopDaemon(t), newTgtd(t)
			tid := g.target(name)
			g.lun(tid, 1, 32)
			d.add(g.portal(), name)
			at := mounted(t, d, d.disk(name, 1))
			fill(t, at, 4)
			must(t, "sync", "-f", at)
			if !there {
				g.crash()
				d.until(name, "noticed", func(s session) bool { return s.State == "Disconnected" })
			}
			begun := time.Now()
			d.signal(syscall.SIGTERM)
			if status, ok := d.ended(stopTime + 2*time.Second); !ok || status != 0 {
				t.Errorf("iscsid: ended %v, status %d, after %v", ok, status, time.Since(begun))
			}
			if !d.says("in use") {
				t.Error("the log does not say that a disk is in use")
			}
			unmount(t, at)
			// The next iscsid clears away what may be left.
			d.launch()
			if list := d.sessions(); len(list) != 0 {
				t.Errorf("sessions: %+v", list)
			}
		})
	}
}

// TestKilledDaemon kills iscsid, which cannot clean up; the next one does, and has the
// session again.
func TestKilledDaemon(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:daemonkill"
	d, g := newLoopDaemon(t), newTgtd(t)
	tid := g.target(name)
	image := g.lun(tid, 1, 32)
	s := d.add(g.portal(), name)
	data := newImage(t, d.dir+"/in", 32<<20)
	must(t, "dd", "if="+d.dir+"/in", "of="+d.disk(name, 1), "bs=1M", "oflag=direct", "status=none")
	d.kill()
	wantSame(t, image, data)
	d.launch()
	if !d.says("left behind by an earlier iscsid") {
		t.Error("the log does not say what was cleared away")
	}
	if again := d.connected(name); again.ID != s.ID {
		t.Errorf("the session %d has come back as %d", s.ID, again.ID)
	}
	must(t, "cmp", d.dir+"/in", d.disk(name, 1))
	if left := loops(d.dir); len(left) != 1 {
		t.Errorf("loop devices: %q, want that of the new iscsid", left)
	}
}

// TestLoopResize lets a disk grow, and a file system on it.
func TestLoopResize(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:grows"
	d, g := newLoopDaemon(t), newTgtd(t)
	tid := g.target(name)
	path := g.lun(tid, 1, 16)
	d.add(g.portal(), name)
	disk := d.disk(name, 1)
	g.once("--op", "delete", "--mode", "logicalunit", "--tid", tid, "--lun", "1")
	if err := os.Truncate(path, 48<<20); err != nil {
		t.Fatal(err)
	}
	g.once("--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "-b", path)
	d.ok("--rescan")
	eventually(t, "the new size", func() bool {
		now := d.session(name).disk(1)
		if now == "" {
			return false
		}
		sectors, _ := os.ReadFile("/sys/block/" + filepath.Base(now) + "/size")
		disk = now
		return string(sectors) == fmt.Sprintln(48<<20/512)
	})
	fio(t, disk, "--bs=64k", "--size=16M", "--offset=32M", "--iodepth=8")
}
