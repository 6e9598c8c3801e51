package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	targetName    = "iqn.2026-01.example:null"
	initiatorName = "iqn.2026-01.example:bench"
)

// target is an iSCSI target with null logical units: it answers, and keeps no data.
type target struct {
	*server
	portal string
	lun    int // the first
}

// url is how libiscsi's tools name the first logical unit.
func (t *target) url() string {
	return fmt.Sprintf("iscsi://%s/%s/%d", t.portal, targetName, t.lun)
}

// units are the embedded target's.
const units = "0,1,2,3"

// freePortal returns an address on which nobody listens at the moment.
func freePortal() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// find looks a program up, also where root's programs are.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// startTgtd starts Debian's tgt, with a control socket of its own.
func startTgtd(s *setup) (*target, error) {
	tgtd, err := find("tgtd")
	if err != nil {
		return nil, err
	}
	tgtadm, err := find("tgtadm")
	if err != nil {
		return nil, err
	}
	portal, err := freePortal()
	if err != nil {
		return nil, err
	}
	env := "TGT_IPC_SOCKET=" + filepath.Join(s.dir, "tgtd")
	process, err := startServer([]string{tgtd, "-f", "-C", "1", "--iscsi", "portal=" + portal}, env)
	if err != nil {
		return nil, err
	}
	process.end = syscall.SIGKILL // it does not listen to SIGTERM
	for _, args := range []string{
		"--op new --mode target --tid 1 -T " + targetName,
		"--op new --mode logicalunit --tid 1 --lun 1 --bstype null -b /dev/null -E null",
		"--op bind --mode target --tid 1 -I ALL",
	} {
		err := eventually(s.ctx, func() error {
			cmd := exec.Command(tgtadm, append(strings.Fields("-C 1 --lld iscsi"), strings.Fields(args)...)...)
			cmd.Env = append(os.Environ(), env)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("tgtadm %s: %w: %s", args, err, out)
			}
			return nil
		})
		if err != nil {
			return nil, process.failed(err)
		}
	}
	return &target{server: process, portal: portal, lun: 1}, nil
}

// startEmbedded starts the project's own target.
func startEmbedded(s *setup) (*target, error) {
	ready := filepath.Join(s.dir, "ready")
	_ = os.Remove(ready) // of one before
	argv := []string{filepath.Join(s.bin, "iscsitarget"), "--portal", "127.0.0.1:0", "--ready-file", ready, "--target", targetName}
	for range strings.Split(units, ",") {
		argv = append(argv, "--lun", "null")
	}
	process, err := startServer(argv)
	if err != nil {
		return nil, err
	}
	var portal []byte
	if err := eventually(s.ctx, func() (err error) { portal, err = os.ReadFile(ready); return err }); err != nil {
		return nil, process.failed(err)
	}
	return &target{server: process, portal: strings.TrimSpace(string(portal))}, nil
}
