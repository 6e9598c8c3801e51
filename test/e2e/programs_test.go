package e2e

import (
	"fmt"
	"os/exec"
	"testing"
)

// uri names a disk's NBD socket for the programs that speak NBD.
func uri(socket string) string { return "nbd+unix:///?socket=" + socket }

// fioArgs has fio write a disk with checksums and read them back.
func fioArgs(disk string, args ...string) []string {
	engine := []string{"--ioengine=nbd", "--uri=" + uri(disk)}
	if isBlock(disk) {
		engine = []string{"--ioengine=libaio", "--filename=" + disk, "--direct=1"}
	}
	common := []string{
		// A job that is a process is one of a session of its own, which would go on without
		// the fio that has started it.
		"--thread", "--name=verify", "--rw=randwrite", "--verify=crc32c", "--verify_state_save=0", "--verify_fatal=1", "--do_verify=1",
		"--randrepeat=1", "--group_reporting", "--minimal",
	}
	return append(append(common, engine...), args...)
}

// isBlock tells a block device from a socket.
func isBlock(disk string) bool { return len(disk) > 5 && disk[:5] == "/dev/" }

// fio runs fio on a disk; it fails where a checksum or a request does.
func fio(t *testing.T, disk string, args ...string) {
	t.Helper()
	must(t, tool(t, "fio", "fio"), fioArgs(disk, args...)...)
}

// startFio runs fio beside the test.
func startFio(t *testing.T, dir, disk string, args ...string) *process {
	t.Helper()
	tool(t, "fio", "fio")
	return job(t, dir+"/fio.log", "fio", fioArgs(disk, args...)...)
}

// fioEnded waits for the end of fio, which must have seen no error.
func fioEnded(t *testing.T, p *process) {
	t.Helper()
	if status, ok := p.ended(4 * patience); !ok || status != 0 {
		t.Fatalf("fio: ended %v, status %d:\n%s", ok, status, p.output())
	}
}

// copyNBD copies a file to a disk's socket or back.
func copyNBD(t *testing.T, from, to string) {
	t.Helper()
	must(t, tool(t, "nbdcopy", "libnbd-bin"), from, to)
}

// qemuIO runs commands of qemu-io on a disk's socket; it fails where one does.
func qemuIO(t *testing.T, socket string, commands ...string) string {
	t.Helper()
	out, err := tryQemuIO(t, socket, commands...)
	if err != nil {
		t.Fatalf("qemu-io %q: %v\n%s", commands, err, out)
	}
	return out
}

func tryQemuIO(t *testing.T, socket string, commands ...string) (string, error) {
	t.Helper()
	var args []string
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	args = append(args, "-f", "raw", "-t", "none", uri(socket))
	return attempt(tool(t, "qemu-io", "qemu-utils"), args...)
}

// pattern is a file system independent way to say what was written where.
func pattern(value byte, offset, length int) (write, read string) {
	return fmt.Sprintf("write -P %d %d %d", value, offset, length), fmt.Sprintf("read -P %d %d %d", value, offset, length)
}

// have tells whether a program is installed.
func have(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}
