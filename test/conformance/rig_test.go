package conformance

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"iscsictl/target"
	"iscsictl/test/nbdclient"
)

// patience bounds every wait: what is waited for comes much sooner.
const patience = 60 * time.Second

var (
	base   string // directory of all that the tests make
	daemon *exec.Cmd
)

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	complain := func(err error) int {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given { // most of them wait
		if err := flag.Set("test.parallel", "8"); err != nil {
			return complain(err)
		}
	}
	var err error
	if base, err = os.MkdirTemp("/tmp", "conf"); err != nil {
		return complain(err)
	}
	defer os.RemoveAll(base)
	build := exec.Command("go", "build", "-o", base+"/", "iscsictl/cmd/iscsid", "iscsictl/cmd/iscsictl")
	if out, err := build.CombinedOutput(); err != nil {
		return complain(fmt.Errorf("%w\n%s", err, out))
	}
	log, err := os.Create(base + "/log")
	if err != nil {
		return complain(err)
	}
	daemon = exec.Command(base+"/iscsid", "-d", "-P", base+"/pid", "--run", base+"/run", "-o", "device=socket",
		"-o", "kern.iscsi.arena_size=8m", "-o", "kern.iscsi.debug=2")
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		return complain(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	status := m.Run()
	_ = daemon.Process.Signal(syscall.SIGTERM)
	select {
	case err = <-ended:
	case <-time.After(patience):
		_ = daemon.Process.Kill()
		err = fmt.Errorf("iscsid has not ended: %w", <-ended)
	}
	text, _ := os.ReadFile(base + "/log")
	if err != nil || bytes.Contains(text, []byte("panic:")) {
		return complain(fmt.Errorf("iscsid: %w\n%s", err, text[max(0, len(text)-4096):]))
	}
	return status
}

// rig is a target of a test's own, listened in to, and a session with it.
type rig struct {
	*testing.T
	*recorder
	name   string
	server *target.Server
	portal string
	nick   string
}

var rigs atomic.Int32

// newRig makes a target. Its name and a logical unit of 8 MiB are filled in
// where shape leaves them out.
func newRig(t *testing.T, shape target.Target, faults ...target.Fault) *rig {
	t.Helper()
	n := rigs.Add(1)
	g := &rig{T: t, name: fmt.Sprintf("iqn.2026-11.example:conf%d", n), nick: fmt.Sprintf("n%d", n)}
	shape.Name = g.name
	if shape.LUNs == nil {
		shape.LUNs = []target.LUN{{Size: 8 << 20}}
	}
	var err error
	if g.server, err = target.New(target.Config{Targets: []target.Target{shape}, Faults: faults}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.portal = l.Addr().String()
	g.recorder = &recorder{Listener: l, wake: make(chan struct{}), ends: map[int]ending{}}
	served := make(chan error, 1)
	go func() { served <- g.server.Serve(g.recorder) }()
	t.Cleanup(func() {
		g.ctl("-R", "-t", g.name, "--force")
		_ = g.server.Close()
		<-served
		for _, line := range always(g.trace()) {
			t.Errorf("at any time: %s", line)
		}
		if t.Failed() {
			list := g.trace()
			for _, p := range list[:min(len(list), 60)] {
				t.Log(p)
			}
		}
	})
	return g
}

// ctl runs iscsictl, and returns all that it says.
func (g *rig) ctl(args ...string) (string, error) {
	out, err := exec.Command(base+"/iscsictl", append([]string{"--socket", base + "/run/control.sock"}, args...)...).CombinedOutput()
	return string(out), err
}

// begin adds the session; lines are of its entry in iscsi.conf.
func (g *rig) begin(lines ...string) {
	g.Helper()
	file := filepath.Join(g.TempDir(), "iscsi.conf")
	text := fmt.Sprintf("%s {\n TargetName = %s\n TargetAddress = %s\n%s\n}\n", g.nick, g.name, g.portal, strings.Join(lines, "\n"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		g.Fatal(err)
	}
	var out string
	var err error
	for end := time.Now().Add(patience); ; { // the daemon may not serve yet
		if out, err = g.ctl("-A", "-n", g.nick, "-c", file); err == nil {
			return
		}
		if !strings.Contains(out, "is not running") || time.Now().After(end) {
			g.Fatalf("iscsictl -A: %v\n%s\n%s", err, out, text)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// state is what iscsictl -L -v tells of the session.
type state struct {
	State         string
	FailureReason string
	LastFailure   string
	Disk          []struct {
		LUN    int
		Device string
	}
	Target struct{ Name string }
}

func (g *rig) state() state {
	g.Helper()
	out, err := g.ctl("--libxo=json", "-L", "-v")
	var list struct{ Iscsictl struct{ Session []state } }
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	if err != nil {
		g.Fatalf("iscsictl -L: %v\n%s", err, out)
	}
	for _, s := range list.Iscsictl.Session {
		if s.Target.Name == g.name {
			return s
		}
	}
	return state{}
}

// up adds the session and waits for its disk.
func (g *rig) up(lines ...string) *nbdclient.Client {
	g.Helper()
	g.begin(lines...)
	return g.disk()
}

// disk waits for LUN 0 and opens it.
func (g *rig) disk() *nbdclient.Client {
	g.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if s := g.state(); len(s.Disk) > 0 {
			c, err := nbdclient.Dial(s.Disk[0].Device)
			if err != nil {
				g.Fatal(err)
			}
			g.Cleanup(func() { c.Close() })
			return c
		}
	}
	g.Fatalf("no disk: %+v", g.state())
	return nil
}

// fails adds the session and waits until its login has failed with that reason.
func (g *rig) fails(reason string, lines ...string) {
	g.Helper()
	g.begin(lines...)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s := g.state()
		if s.State == "Connected" {
			g.Fatal("the session is up, though it must not be")
		}
		if strings.Contains(s.LastFailure, reason) && s.LastFailure != "" {
			return
		}
	}
	g.Fatalf("the session has not failed with %q: %+v", reason, g.state())
}

// trace returns what was said so far.
func (r *recorder) trace() []*pdu {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*pdu(nil), r.pdus...)
}

// until waits until something is true of what was said, and returns that.
func (g *rig) until(what string, holds func([]*pdu) bool) []*pdu {
	g.Helper()
	late := time.After(patience)
	for {
		g.mu.Lock()
		list, wake := append([]*pdu(nil), g.pdus...), g.wake
		g.mu.Unlock()
		if holds(list) {
			return list
		}
		select {
		case <-wake:
		case <-late:
			g.Fatalf("waited in vain for %s", what)
		}
	}
}

// first waits for the first PDU that fits.
func (g *rig) first(what string, fits func(*pdu) bool) (found *pdu) {
	g.Helper()
	g.until(what, func(list []*pdu) bool {
		for _, p := range list {
			if fits(p) {
				found = p
				return true
			}
		}
		return false
	})
	return found
}

// all returns the PDUs of a kind.
func all(list []*pdu, opcode byte) (found []*pdu) {
	for _, p := range list {
		if p.opcode() == opcode {
			found = append(found, p)
		}
	}
	return found
}

// commands returns the SCSI commands with one of some operation codes.
func commands(list []*pdu, ops ...byte) (found []*pdu) {
	for _, p := range all(list, scsiCommand) {
		if bytes.IndexByte(ops, p.h[32]) >= 0 {
			found = append(found, p)
		}
	}
	return found
}

// Operation codes of SBC-3 that read and write.
var (
	reads  = []byte{0x28, 0x88}
	writes = []byte{0x2a, 0x8a}
)

// of returns the PDUs that bear a task's tag.
func of(list []*pdu, opcode byte, itt uint32) (found []*pdu) {
	for _, p := range all(list, opcode) {
		if p.itt() == itt {
			found = append(found, p)
		}
	}
	return found
}

// ended waits until a connection has ended.
func (g *rig) ended(conn int) ending {
	g.Helper()
	var e ending
	g.until(fmt.Sprintf("the end of connection %d", conn), func([]*pdu) bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		var ok bool
		e, ok = g.ends[conn]
		return ok
	})
	return e
}

// must fails the test where an operation on the disk has failed.
func (g *rig) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatalf("%v\n%+v", err, g.state())
	}
}

// same writes n bytes at off by one request and reads them back.
func (g *rig) same(c *nbdclient.Client, off int64, n int) {
	g.Helper()
	g.must(c.WriteAt(pattern(off, n), off))
	g.reads(c, off, n)
}

// reads reads back what same has written.
func (g *rig) reads(c *nbdclient.Client, off int64, n int) {
	g.Helper()
	got := make([]byte, n)
	g.must(c.ReadAt(got, off))
	if !bytes.Equal(got, pattern(off, n)) {
		g.Fatalf("%d bytes at %d are not what was written", n, off)
	}
}

func pattern(off int64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((off+int64(i))/512*7) ^ byte(i)
	}
	return b
}
