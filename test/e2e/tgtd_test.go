package e2e

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tgtd is a target of the package tgt. It is told by tgtadm what to offer, and
// is told the same again when it was started anew.
type tgtd struct {
	*process
	t    *testing.T
	dir  string
	host string
	port int
	told [][]string
	tids int
	// before are words before the program's own: a command that becomes it.
	before []string
}

// newTgtd starts tgtd on a port of its own.
func newTgtd(t *testing.T) *tgtd {
	t.Helper()
	return newTgtdAt(t, "127.0.0.1")
}

func newTgtdAt(t *testing.T, host string) *tgtd {
	t.Helper()
	return startTgtd(t, host, newPort(t, host))
}

func startTgtd(t *testing.T, host string, port int, before ...string) *tgtd {
	t.Helper()
	tool(t, "tgtd", "tgt")
	tool(t, "tgtadm", "tgt")
	g := &tgtd{t: t, dir: newDir(t), host: host, port: port, before: before}
	t.Cleanup(func() {
		g.kill()
		// tgtd leaves its socket where it is killed.
		os.Remove(g.dir + "/ipc.0")
		if t.Failed() {
			t.Logf("log of tgtd:\n%s", tail(g.output(), 20))
		}
	})
	g.launch()
	return g
}

func (g *tgtd) portal() string { return net.JoinHostPort(g.host, fmt.Sprint(g.port)) }

// env gives tgtd and tgtadm a control socket of their own.
func (g *tgtd) env() []string { return []string{"TGT_IPC_SOCKET=" + g.dir + "/ipc"} }

func (g *tgtd) launch() {
	g.t.Helper()
	os.Remove(g.dir + "/ipc.0")
	command := append(slices.Clone(g.before), "tgtd", "-f", "-C", "0", "--iscsi", "portal="+g.portal())
	g.process = start(g.t, g.dir+"/tgtd.log", g.env(), command[0], command[1:]...)
	eventually(g.t, "tgtd answers", func() bool {
		if !g.running() {
			g.t.Fatalf("tgtd has ended:\n%s", g.output())
		}
		_, err := g.adm("--op", "show", "--mode", "system")
		return err == nil
	})
}

func (g *tgtd) adm(args ...string) (string, error) {
	args = append([]string{"-C", "0", "--lld", "iscsi"}, args...)
	return attempt("env", append(g.env(), append([]string{"tgtadm"}, args...)...)...)
}

// once tells tgtd something that a restart forgets.
func (g *tgtd) once(args ...string) string {
	g.t.Helper()
	out, err := g.adm(args...)
	if err != nil {
		g.t.Fatalf("tgtadm %q: %v\n%s", args, err, out)
	}
	return out
}

// tell tells tgtd something that holds after a restart too.
func (g *tgtd) tell(args ...string) {
	g.t.Helper()
	g.once(args...)
	g.told = append(g.told, args)
}

// crash kills tgtd.
func (g *tgtd) crash() { g.kill() }

// restart starts tgtd anew, with the same port and the same targets.
func (g *tgtd) restart() {
	g.t.Helper()
	g.launch()
	for _, args := range g.told {
		g.once(args...)
	}
}

// target makes a target that everybody may use, and returns its number.
func (g *tgtd) target(name string) (tid string) {
	g.t.Helper()
	g.tids++
	tid = fmt.Sprint(g.tids)
	g.tell("--op", "new", "--mode", "target", "--tid", tid, "-T", name)
	g.tell("--op", "bind", "--mode", "target", "--tid", tid, "-I", "ALL")
	return tid
}

// set sets a parameter of a target.
func (g *tgtd) set(tid, name, value string) {
	g.t.Helper()
	g.tell("--op", "update", "--mode", "target", "--tid", tid, "-n", name, "-v", value)
}

// lun adds a logical unit on a new file of so many MiB, and returns its path.
func (g *tgtd) lun(tid string, lun, mib int, args ...string) (path string) {
	g.t.Helper()
	path = fmt.Sprintf("%s/%s-%d.img", g.dir, tid, lun)
	newEmpty(g.t, path, mib)
	g.serve(tid, lun, path, args...)
	return path
}

// serve makes a logical unit of a file.
func (g *tgtd) serve(tid string, lun int, path string, args ...string) {
	g.t.Helper()
	g.tell(append([]string{"--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", fmt.Sprint(lun), "-b", path}, args...)...)
}

// newEmpty makes a file of so many MiB without data.
func newEmpty(t *testing.T, path string, mib int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(mib) << 20); err != nil {
		t.Fatal(err)
	}
}

// account makes an account and gives it to a target.
func (g *tgtd) account(tid, user, secret string, args ...string) {
	g.t.Helper()
	g.tell("--op", "new", "--mode", "account", "--user", user, "--password", secret)
	g.tell(append([]string{"--op", "bind", "--mode", "account", "--tid", tid, "--user", user}, args...)...)
}

// connections counts the initiators that are logged in to a target.
func (g *tgtd) connections(tid string) int {
	g.t.Helper()
	return strings.Count(g.once("--op", "show", "--mode", "conn", "--tid", tid), "Connection:")
}

// pause stops the process, so that the connection stays and nothing is answered.
func (g *tgtd) pause() { g.signal(syscall.SIGSTOP) }

func (g *tgtd) resume() { g.signal(syscall.SIGCONT) }
