package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iscsictl/target"
)

// debian installs, upgrades, removes and purges two packages on a copy of this
// system that is in memory, below a root of its own and without a service manager,
// and tells what it finds. The disk of a session is mounted the while.
const debian = `set -e
dir=$1 old=$2 new=$3 portal=$4
fail() { echo "FAIL: $*" >&2; cat "$dir/m/tmp/log" >&2 || true; exit 1; }
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/u" "$dir/w" "$dir/m"
mount -t overlay -o "lowerdir=/,upperdir=$dir/u,workdir=$dir/w" overlay "$dir/m" || { echo SKIP; exit 0; }
mount -t tmpfs tmpfs "$dir/m/run"
mount -t tmpfs tmpfs "$dir/m/tmp"
mount -t proc proc "$dir/m/proc"
mount --rbind /sys "$dir/m/sys"
mount --rbind /dev "$dir/m/dev"
cp "$old" "$dir/m/tmp/old.deb"
cp "$new" "$dir/m/tmp/new.deb"
export DEBIAN_FRONTEND=noninteractive
inside() { chroot "$dir/m" "$@"; }
daemon=
trap 'if [ -n "$daemon" ]; then umount "$dir/m/mnt" 2>/dev/null || true; kill "$daemon" 2>/dev/null && wait "$daemon" || true; fi' EXIT

inside dpkg -i /tmp/old.deb
inside getent group iscsi >/dev/null || fail "no group iscsi"
[ -L "$dir/m/etc/systemd/system/multi-user.target.wants/iscsid.service" ] || fail "iscsid.service is not enabled"
inside bash -c '. /usr/share/bash-completion/completions/iscsictl && complete -p iscsictl' >/dev/null || fail "no completion"
echo 'iscsictl_flags=""' >>"$dir/m/etc/default/iscsictl"

inside iscsid -d -P /run/iscsid.pid -o device=loop >"$dir/m/tmp/log" 2>&1 &
daemon=$!
for _ in $(seq 300); do if inside iscsictl -L >/dev/null 2>&1; then break; fi; sleep 0.1; done
inside iscsictl -A -p "$portal" -t iqn.2012-06.com.example:one -w 60 || fail "no session"
disk=/dev/$(inside iscsictl -L | sed -n 's/.*Connected: *\([a-z0-9]*\).*/\1/p')
mkfs.ext4 -q -F "$disk" && mount "$disk" "$dir/m/mnt" || fail "no file system on $disk"

inside dpkg -i /tmp/new.deb
inside dpkg-query -W -f '${Version} ${Status}\n' iscsictl | grep '^0.2.0 install ok installed' || fail "not upgraded"
echo data >"$dir/m/mnt/file" && sync -f "$dir/m/mnt/file" || fail "the upgrade has disturbed the disk"
grep -q '^iscsictl_flags=""' "$dir/m/etc/default/iscsictl" || fail "the upgrade has replaced settings"

if inside dpkg -r iscsictl; then fail "the package of a mounted disk was removed"; fi
echo more >"$dir/m/mnt/file" && sync -f "$dir/m/mnt/file" || fail "the attempt to remove has disturbed the disk"
umount "$dir/m/mnt"
inside dpkg -r iscsictl
wait "$daemon" || fail "iscsid has ended with status $?"
daemon=
[ -e "$dir/m/var/lib/iscsid" ] || fail "to remove is not to purge"
inside dpkg -P iscsictl
for left in var/lib/iscsid etc/default/iscsictl etc/default/iscsid usr/sbin/iscsid etc/systemd/system/multi-user.target.wants/iscsid.service; do
	if [ -e "$dir/m/$left" ] || [ -L "$dir/m/$left" ]; then fail "$left is left"; fi
done
echo DONE`

// TestDebianPackage builds the package, has lintian look at it, and takes it through
// its life.
func TestDebianPackage(t *testing.T) {
	needRoot(t)
	tool(t, "dpkg-deb", "dpkg")
	tool(t, "lintian", "lintian")
	tool(t, "mkfs.ext4", "e2fsprogs")
	dir := newDir(t)
	long := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		late := time.AfterFunc(10*time.Minute, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	long("make", "-s", "-C", "../..", "deb", "VERSION=0.1.0", "DIST="+dir+"/dist")
	found, _ := filepath.Glob(dir + "/dist/iscsictl_0.1.0_*.deb")
	if len(found) != 1 {
		t.Fatalf("packages: %q", found)
	}
	old, next := found[0], dir+"/next.deb"
	if conflicts := must(t, "dpkg-deb", "-f", old, "Conflicts"); strings.TrimSpace(conflicts) != "open-iscsi" {
		t.Errorf("Conflicts: %q", conflicts)
	}
	if out := long("lintian", "--fail-on", "error,warning", old); strings.Contains(out, "E: ") || strings.Contains(out, "W: ") {
		t.Errorf("lintian: %s", out)
	}
	long("dpkg-deb", "-R", old, dir+"/tree")
	long("sed", "-i", "s/^Version: .*/Version: 0.2.0/", dir+"/tree/DEBIAN/control")
	long("dpkg-deb", "--root-owner-group", "--build", dir+"/tree", next)

	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("SKIP: needs loop devices: %v", err)
	}
	e := newTarget(t, target.Config{Targets: []target.Target{{Name: "iqn.2012-06.com.example:one", LUNs: []target.LUN{memory(0, 32)}}}})
	root := newDir(t)
	out := long("unshare", "--mount", "--propagation", "private", "bash", "-c", debian, "bash", root, old, next, e.portal)
	switch {
	case strings.HasSuffix(out, "SKIP"):
		t.Skip("SKIP: needs overlayfs")
	case !strings.HasSuffix(out, "DONE"):
		t.Errorf("%s", out)
	}
}
