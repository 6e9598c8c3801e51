package e2e

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// image makes a directory with what the container's image has: static programs and
// next to nothing else.
func image(t *testing.T) string {
	t.Helper()
	dir := newDir(t) + "/image"
	for _, name := range []string{"usr/sbin", "run/iscsid", "var/lib/iscsid", "etc", "dev", "tmp", "proc", "sys"} {
		if err := os.MkdirAll(dir+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir+"/usr/sbin/", "iscsictl/cmd/iscsid", "iscsictl/cmd/iscsictl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, name := range []string{"iscsid", "iscsictl"} {
		f, err := elf.Open(dir + "/usr/sbin/" + name)
		if err != nil {
			t.Fatal(err)
		}
		libraries, _ := f.ImportedLibraries()
		if f.Section(".interp") != nil || len(libraries) > 0 {
			t.Errorf("%s is not static: it wants %q", name, libraries)
		}
		f.Close()
	}
	writeFile(t, dir+"/etc/passwd", "root:x:0:0::/:/usr/sbin/iscsid\n")
	writeFile(t, dir+"/etc/group", "root:x:0:\niscsi:x:990:\n")
	// As in an image, all can read all.
	for _, name := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// spaces counts the network namespaces that were made.
var spaces atomic.Int32

// namespaces makes two network namespaces, which end with the test, or tells why it
// can't.
func namespaces(t *testing.T) (inner, outer string, err error) {
	t.Helper()
	n := spaces.Add(1)
	inner, outer = fmt.Sprintf("iscsictl-a%d-%d", os.Getpid(), n), fmt.Sprintf("iscsictl-b%d-%d", os.Getpid(), n)
	for _, name := range []string{inner, outer} {
		if out, err := attempt("ip", "netns", "add", name); err != nil {
			return "", "", fmt.Errorf("needs network namespaces: %w: %s", err, out)
		}
		t.Cleanup(func() { must(t, "ip", "netns", "delete", name) })
		must(t, "ip", "-n", name, "link", "set", "lo", "up")
	}
	return inner, outer, nil
}

// networks makes two network namespaces with a cable between them, and returns
// their names. The second has the address 192.0.2.2.
func networks(t *testing.T) (inner, outer string) {
	t.Helper()
	needRoot(t)
	ip := tool(t, "ip", "iproute2")
	inner, outer, err := namespaces(t)
	if err != nil {
		t.Skipf("SKIP: %v", err)
	}
	if out, err := attempt(ip, "-n", inner, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", outer); err != nil {
		t.Skipf("SKIP: needs veth: %v: %s", err, out)
	}
	for name, address := range map[string]string{inner: nearAddress + "/24", outer: farAddress + "/24"} {
		must(t, ip, "-n", name, "address", "add", address, "dev", "eth0")
		must(t, ip, "-n", name, "link", "set", "eth0", "up")
	}
	return inner, outer
}

// container starts iscsid with the files of an image as its root, in a network
// namespace, with these capabilities and no way to get others. The mounts are in a
// namespace of its own.
func container(t *testing.T, root, network, user, capabilities string, args ...string) *process {
	t.Helper()
	for name, pkg := range map[string]string{"setpriv": "util-linux", "unshare": "util-linux", "chroot": "coreutils"} {
		tool(t, name, pkg)
	}
	const enter = `set -e
root=$1 user=$2 capabilities=$3
shift 3
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
cd "$root"
# To change the root takes a capability, which is the harness's.
exec setpriv --bounding-set "-all,+sys_chroot,+setuid,+setgid$capabilities" --inh-caps=-all --no-new-privs \
	chroot --userspec="$user" "$root" /usr/sbin/iscsid -d -P /run/iscsid/pid "$@"`
	log := filepath.Dir(root) + "/iscsid.log"
	p := start(t, log, []string{"PATH=" + os.Getenv("PATH")}, tool(t, "ip", "iproute2"), append([]string{
		"netns", "exec", network,
		"unshare", "--mount", "--propagation", "private", "sh", "-c", enter, "sh", root, user, capabilities,
	}, args...)...)
	t.Cleanup(func() {
		p.signal(syscall.SIGTERM)
		if _, ok := p.ended(stopTime + patience); !ok {
			t.Error("iscsid has not stopped")
		}
		p.kill()
		if t.Failed() {
			t.Logf("log of iscsid:\n%s", tail(p.output(), 60))
		}
		// newDir wants to find nothing.
		os.Remove(root + "/run/iscsid/control.sock")
	})
	eventually(t, "iscsid serves", func() bool { return p.says("is ready at") || !p.running() })
	if !p.running() {
		t.Fatalf("iscsid has ended:\n%s", p.output())
	}
	return p
}

// served starts a target in a network namespace.
func served(t *testing.T, network string) {
	t.Helper()
	e := &embedded{t: t, dir: newDir(t)}
	writeFile(t, e.dir+"/target.json", `{"targets":[{"name":"iqn.2012-06.com.example:one","luns":[{"lun":0,"size":"16m"}]}]}`)
	t.Cleanup(e.finish)
	e.process = start(t, e.dir+"/target.log", nil, tool(t, "ip", "iproute2"), "netns", "exec", network,
		program("iscsitarget"), "--config", e.dir+"/target.json", "--portal", "192.0.2.2:3260", "--ready-file", e.dir+"/ready")
	eventually(t, "iscsitarget serves", func() bool {
		_, err := os.Stat(e.dir + "/ready")
		return err == nil || !e.running()
	})
	if !e.running() {
		t.Fatalf("iscsitarget has ended:\n%s", e.output())
	}
}

// TestContainerSocket is a container without a capability and without root: a disk
// as an NBD socket, through a network of its own.
func TestContainerSocket(t *testing.T) {
	inner, outer := networks(t)
	root := image(t)
	served(t, outer)
	for _, dir := range []string{"/run/iscsid", "/var/lib/iscsid"} {
		if err := os.Chown(root+dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	p := container(t, root, inner, "65534:65534", "", "-o", "device=socket")
	status := must(t, "cat", fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for _, want := range []string{"Uid:\t65534\t65534", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(status, want) {
			t.Errorf("the process does not have %q:\n%s", want, status)
		}
	}
	ctl := func(args ...string) string {
		return must(t, root+"/usr/sbin/iscsictl", append([]string{"--socket", root + "/run/iscsid/control.sock"}, args...)...)
	}
	ctl("-A", "-p", "192.0.2.2", "-t", "iqn.2012-06.com.example:one", "-w", "60")
	if list := ctl("-L"); !strings.Contains(list, "Connected: /run/iscsid/nbd/1-0.sock") {
		t.Errorf("%s", list)
	}
	// The volume with the socket is what another container has.
	write, read := pattern(0x5a, 0, 1<<20)
	qemuIO(t, root+"/run/iscsid/nbd/1-0.sock", write, read)
}

// TestContainerLoop is a container with the one capability that block devices take.
func TestContainerLoop(t *testing.T) {
	inner, outer := networks(t)
	for _, path := range []string{"/dev/fuse", "/dev/loop-control"} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Skipf("SKIP: needs %s: %v", path, err)
		}
		f.Close()
	}
	root := image(t)
	served(t, outer)
	p := container(t, root, inner, "0:0", ",+sys_admin", "-o", "device=loop")
	ctl := func(args ...string) string {
		return must(t, root+"/usr/sbin/iscsictl", append([]string{"--socket", root + "/run/iscsid/control.sock"}, args...)...)
	}
	ctl("-A", "-p", "192.0.2.2", "-t", "iqn.2012-06.com.example:one", "-w", "60")
	_, device, found := strings.Cut(ctl("-L"), "Connected: ")
	device = "/dev/" + strings.TrimSpace(device)
	if !found || !isBlock(device) {
		t.Fatalf("no device:\n%s%s", ctl("-L", "-v"), p.output())
	}
	fio(t, device, "--size=8m", "--bs=64k")
	ctl("-R", "-a")
}
