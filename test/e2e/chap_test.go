package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Secrets of these tests; they must turn up nowhere.
const (
	secretIn    = "correct-horse-1"
	secretOut   = "battery-staple-2"
	secretWrong = "tr0ub4dor-and-3"
)

// wantNoSecrets looks for secrets in all that the daemon tells.
func wantNoSecrets(t *testing.T, d *daemon) {
	t.Helper()
	said := map[string]string{"the log": d.output()}
	for _, args := range [][]string{{"-L"}, {"-L", "-v"}, {"--libxo=json", "-Lv"}, {"--libxo=xml", "-Lv"}, {"--sysctl"}} {
		said["iscsictl "+strings.Join(args, " ")] = d.ok(args...)
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", d.cmd.Process.Pid))
	said["the command line"] = string(line)
	files, _ := filepath.Glob(d.run + "/*")
	for _, f := range files {
		text, _ := os.ReadFile(f)
		said[f] = string(text)
	}
	for where, text := range said {
		for _, secret := range []string{secretIn, secretOut, secretWrong} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has the secret %s:\n%s", where, secret, text)
			}
		}
	}
}

// TestCHAP logs in with the right and with wrong secrets, one way and mutual.
func TestCHAP(t *testing.T) {
	t.Parallel()
	const one, both = "iqn.2026-11.example:one-way", "iqn.2026-11.example:mutual"
	g := newTgtd(t)
	tid := g.target(one)
	g.account(tid, "alice", secretIn)
	g.lun(tid, 1, 8)
	tid = g.target(both)
	g.once("--op", "bind", "--mode", "account", "--tid", tid, "--user", "alice")
	g.account(tid, "vault", secretOut, "--outgoing")
	g.lun(tid, 1, 8)

	const (
		alice = " chapIName = alice\n chapSecret = " + secretIn + "\n"
		vault = " tgtChapName = vault\n tgtChapSecret = " + secretOut + "\n"
	)
	for _, c := range []struct {
		name, target, keys string
		reason             string // "": connects
	}{
		{"one way", one, alice, ""},
		{"one way, MD5", one, alice + " chapDigest = MD5\n", ""},
		{"mutual", both, alice + vault, ""},
		{"not mutual with a target that can", both, alice, ""},
		{"wrong secret", one, " chapIName = alice\n chapSecret = " + secretWrong + "\n", "Authentication failure"},
		{"wrong user", one, " chapIName = mallory\n chapSecret = " + secretIn + "\n", "Authentication failure"},
		{"nothing configured", one, "", "Authentication failure"},
		{"wrong secret of the target", both, alice + " tgtChapName = vault\n tgtChapSecret = " + secretWrong + "\n", "Mutual CHAP failed"},
		{"wrong name of the target", both, alice + " tgtChapName = other\n tgtChapSecret = " + secretOut + "\n", "Mutual CHAP failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			file := d.conf(fmt.Sprintf("nick {\n TargetAddress = %s\n TargetName = %s\n%s}\n", g.portal(), c.target, c.keys))
			d.ok("-A", "-n", "nick", "-c", file)
			if c.reason != "" {
				d.failing(c.target, c.reason)
				d.refused(c.reason, "-L", "-w", "1")
				wantNoSecrets(t, d)
				return
			}
			s := d.connected(c.target)
			fio(t, d.disk(c.target, 1), "--bs=64k", "--size=2M", "--iodepth=4")
			if s.Auth.User != "alice" || s.Auth.Secret != "********" {
				t.Errorf("listed are the user %q, the secret %q", s.Auth.User, s.Auth.Secret)
			}
			wantNoSecrets(t, d)
		})
	}
}

// TestCHAPCorrected mends a session with a wrong secret by iscsictl -M, from a file
// of secrets.
func TestCHAPCorrected(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:corrected"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	g.account(tid, "alice", secretIn)
	g.lun(tid, 1, 4)
	wrong := writeFile(t, d.dir+"/wrong", secretWrong+"\n")
	right := writeFile(t, d.dir+"/right", secretIn+"\n")
	d.ok("-A", "-p", g.portal(), "-t", name, "-u", "alice", "--secret-file", wrong)
	id := fmt.Sprint(d.failing(name, "Authentication failure").ID)
	d.ok("-M", "-i", id, "--secret-file", right)
	if s := d.connected(name); fmt.Sprint(s.ID) != id || s.Auth.User != "alice" {
		t.Errorf("session-id %d, user %q after -M; want %s, alice", s.ID, s.Auth.User, id)
	}
	wantNoSecrets(t, d)
}

// TestSecretFiles uses a configuration whose secrets are in files, and warns of those
// that others can read.
func TestSecretFiles(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:files"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	g.account(tid, "alice", secretIn)
	g.lun(tid, 1, 4)
	secret := writeFile(t, d.dir+"/secret", secretIn+"\n")
	file := d.conf(fmt.Sprintf("n {\n TargetAddress = %s\n TargetName = %s\n chapIName = alice\n chapSecret = \"file:%s\"\n}\n", g.portal(), name, secret))
	if err := os.Chmod(file, 0o604); err != nil {
		t.Fatal(err)
	}
	r := d.ctl("-A", "-a", "-c", file, "-w", "30")
	if want := "iscsictl: " + file + " is world-readable\n"; r.status != 0 || r.stderr != want {
		t.Errorf("status %d, %q; want %q", r.status, r.stderr, want)
	}
	d.connected(name)
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	d.refused(secret, "-A", "-a", "-c", file)
	wantNoSecrets(t, d)
}
