package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"iscsictl/target"
)

// newISERTarget starts iscsitarget with a portal for iSER beside the one for TCP. The
// port of the former stays when the target is started again.
func newISERTarget(t *testing.T, c target.Config, w target.IWARP) (e *embedded, portal string) {
	t.Helper()
	portal = fmt.Sprintf("127.0.0.1:%d", newPort(t, "127.0.0.1"))
	c.Portals = []target.Portal{{Address: portal, ISER: true, IWARP: w}}
	e = newTarget(t, c)
	e.portal, _, _ = strings.Cut(e.portal, "\n") // the TCP portals come first
	return e, portal
}

// iserEntry is a section of an iscsi.conf; keys are more lines of it.
func iserEntry(nick, portal, name, keys string) string {
	return fmt.Sprintf("%s {\n TargetAddress = %s\n TargetName = %s\n Protocol = iSER\n%s}\n", nick, portal, name, keys)
}

// addISER adds a session by iSER and waits until it is up.
func (d *daemon) addISER(portal, name string) session {
	d.t.Helper()
	d.ok("-A", "-r", "-p", portal, "-t", name, "-w", "30")
	return d.connected(name)
}

// undisturbed wants no request of a session to have failed, and its connection to be
// the first.
func (d *daemon) undisturbed(name string) {
	d.t.Helper()
	if s := d.session(name); s.Errors != 0 || s.Reconnections != 0 {
		d.t.Errorf("%d errors, %d reconnections (%s)", s.Errors, s.Reconnections, s.LastFailure)
	}
}

// TestISER goes the whole way once by iSER: several logical units, lengths from a block
// to 8 MiB, also such as are no multiple of anything, and several at a time.
func TestISER(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:iser"
	files := newDir(t)
	c := target.Config{Targets: []target.Target{{Name: name}}}
	for lun := range 3 {
		c.Targets[0].LUNs = append(c.Targets[0].LUNs, target.LUN{
			Number: lun, Size: target.Size(16+lun) << 20, File: fmt.Sprintf("%s/%d", files, lun),
		})
	}
	e, portal := newISERTarget(t, c, target.IWARP{})
	d := newDaemon(t)
	s := d.addISER(portal, name)
	if s.HeaderDigest != "None" || s.DataDigest != "None" || s.Target.Portal != portal {
		t.Errorf("listing: %+v", s)
	}
	for lun := range 3 {
		in, out := fmt.Sprintf("%s/in%d", d.dir, lun), fmt.Sprintf("%s/out%d", d.dir, lun)
		data := newImage(t, in, (16+lun)<<20)
		copyNBD(t, in, uri(d.disk(name, lun)))
		wantSame(t, fmt.Sprintf("%s/%d", files, lun), data)
		copyNBD(t, uri(d.disk(name, lun)), out)
		wantSame(t, out, data)
	}
	for _, bs := range []string{"512", "4k", "60k", "1M", "8M"} {
		total := size(16)
		if bs == "512" {
			total = size(1)
		}
		fio(t, d.disk(name, 2), "--bs="+bs, total, "--iodepth=32")
	}
	// Around what goes along with the command, and around bursts; of lengths that are
	// no whole number of pages, at places that are no whole number of them.
	lengths := []int{512, 1024, 8192 - 512, 8192, 8192 + 512, 65536 + 512, 1<<20 - 512, 1 << 20, 1<<20 + 512, 8 << 20}
	var writes, reads []string
	for i, at := 0, 512; i < len(lengths); i++ {
		w, r := pattern(byte(i+1), at, lengths[i])
		writes, reads = append(writes, "aio_"+w), append(reads, r)
		at += lengths[i] + 1536
	}
	qemuIO(t, d.disk(name, 0), append(append(writes, "aio_flush"), reads...)...)
	qemuIO(t, d.disk(name, 1), "write -z 65536 131072", "read -P 0 65536 131072", "flush")
	if out, err := tryQemuIO(t, d.disk(name, 1), fmt.Sprintf("write %d 4096", 17<<20)); err == nil {
		t.Errorf("a write beyond the end:\n%s", out)
	}
	d.undisturbed(name)
	d.ok("-R", "-t", name)
	if e.says("level=WARN") || e.says("level=ERROR") {
		t.Error("the target found fault with iscsid")
	}
}

// TestISERListed wants the listing to say how a session by iSER goes: provider, device,
// depths, remote invalidate.
func TestISERListed(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:iser-listed"
	tests := []struct {
		what string
		w    target.IWARP
		keys string
		want []string // after the label
	}{
		{"as it comes", target.IWARP{}, "", []string{
			`iSER \(RDMA\): +Yes`, `RDMA provider: +iwarp`, `RDMA device: +lo`, `RDMA connection: +MPA 2, CRC32C, .*`,
			`Queue depth: +[1-9]\d+ sends, [1-9]\d+ receives`, `RDMA Read depth: +[1-9]\d* in, \d+ out`, `Remote invalidate: +Yes`,
		}},
		{"pinned", target.IWARP{}, " Offload = iwarp\n", []string{`RDMA provider: +iwarp`, `Offload driver: +\S+`}},
		{"MPA revision 1", target.IWARP{Revision: 1}, "", []string{`RDMA connection: +MPA 1, .*`}},
		{"short FPDUs", target.IWARP{MULPDU: 1400}, "", []string{`iSER \(RDMA\): +Yes`}},
	}
	d := newDaemon(t)
	for _, c := range tests {
		t.Run(c.what, func(t *testing.T) {
			d := d.in(t)
			_, portal := newISERTarget(t, target.Config{Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 8)}}}}, c.w)
			d.ok("-A", "-n", "n", "-c", d.conf(iserEntry("n", portal, name, c.keys)), "-w", "30")
			text := d.ok("-L", "-v")
			for _, want := range c.want {
				if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(text) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			fio(t, d.disk(name, 0), "--bs=40k", "--size=4M", "--iodepth=8")
			d.undisturbed(name)
			d.ok("-R", "-a")
		})
	}
}

// TestISERCHAP logs in by iSER with the right and with wrong secrets, one way and
// mutual.
func TestISERCHAP(t *testing.T) {
	t.Parallel()
	const one, both = "iqn.2026-11.example:iser-one-way", "iqn.2026-11.example:iser-mutual"
	const alice = " chapIName = alice\n chapSecret = " + secretIn + "\n"
	users := []target.Credential{{Name: "alice", Secret: secretIn}}
	_, portal := newISERTarget(t, target.Config{Targets: []target.Target{
		{Name: one, LUNs: []target.LUN{memory(0, 8)}, CHAP: &target.CHAP{Users: users}},
		{Name: both, LUNs: []target.LUN{memory(0, 8)}, CHAP: &target.CHAP{
			Users: users, Mutual: &target.Credential{Name: "vault", Secret: secretOut},
		}},
	}}, target.IWARP{})
	d := newDaemon(t)
	for _, c := range []struct {
		what, target, keys string
		reason             string // "": connects
	}{
		{"one way", one, alice, ""},
		{"mutual", both, alice + " tgtChapName = vault\n tgtChapSecret = " + secretOut + "\n", ""},
		{"wrong secret", one, " chapIName = alice\n chapSecret = " + secretWrong + "\n", "Authentication failure"},
		{"wrong secret of the target", both, alice + " tgtChapName = vault\n tgtChapSecret = " + secretWrong + "\n", "Mutual CHAP failed"},
	} {
		t.Run(c.what, func(t *testing.T) {
			d := d.in(t)
			d.ok("-A", "-n", "n", "-c", d.conf(iserEntry("n", portal, c.target, c.keys)))
			if c.reason != "" {
				d.failing(c.target, c.reason)
			} else {
				d.connected(c.target)
				fio(t, d.disk(c.target, 0), "--bs=64k", "--size=2M", "--iodepth=4")
			}
			wantNoSecrets(t, d)
			d.ok("-R", "-a")
		})
	}
}

// TestISERDiscovery finds targets by iSER, and what it adds and prints is by iSER.
func TestISERDiscovery(t *testing.T) {
	t.Parallel()
	var names []string
	var c target.Config
	for i := range 3 {
		names = append(names, fmt.Sprintf("iqn.2026-11.example:iser-found%d", i))
		c.Targets = append(c.Targets, target.Target{Name: names[i], LUNs: []target.LUN{memory(1, 4)}})
	}
	_, portal := newISERTarget(t, c, target.IWARP{})
	d := newDaemon(t)
	wantISER := func() {
		t.Helper()
		wantAll(t, d, portal, names)
		if n := strings.Count(d.ok("-L", "-v"), "RDMA provider:            iwarp\n"); n != len(names) {
			t.Errorf("%d of %d sessions are by iSER", n, len(names))
		}
	}
	d.ok("-A", "-d", portal, "-r")
	wantISER()
	d.ok("-R", "-a")

	text := d.ok("--discover", portal, "-r")
	if list := d.sessions(); len(list) != 0 {
		t.Errorf("--discover has added %+v", list)
	}
	d.ok("-A", "-a", "-c", d.conf(text), "-w", "30")
	wantISER()
	d.ok("-R", "-a")
}

// TestISERTargetKilled kills the target while fio writes by iSER and while it reads
// back. fio sees no error, and the data is right.
func TestISERTargetKilled(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:iser-killed"
	mib := load(24, 512)
	e, portal := newISERTarget(t, target.Config{Targets: []target.Target{{
		Name: name, LUNs: []target.LUN{{Size: target.Size(mib) << 20, File: newDir(t) + "/image"}},
	}}}, target.IWARP{})
	d := newDaemon(t)
	d.addISER(portal, name)
	job := startFio(t, d.dir, d.disk(name, 0), "--bs=16k", size(mib), "--iodepth=16", rate(load(16, 128)))
	for i, busy := range []func(session) bool{
		func(s session) bool { return s.BytesWritten > 4<<20 },
		func(s session) bool { return s.BytesRead > 4<<20 },
	} {
		d.until(name, "I/O", busy)
		e.kill()
		d.until(name, "noticed", func(s session) bool { return s.State == "Disconnected" })
		if !job.running() {
			t.Fatalf("fio has ended without its disk:\n%s", job.output())
		}
		e.launch("127.0.0.1:0")
		d.until(name, "reconnected", func(s session) bool { return s.State == "Connected" && s.Reconnections == uint64(i+1) })
	}
	fioEnded(t, job)
	if s := d.session(name); s.Errors != 0 || s.LastFailure == "" {
		t.Errorf("%d requests have failed; the last failure is %q", s.Errors, s.LastFailure)
	}
}

// TestISERTargetHangs stops the target under I/O, so that it reads nothing more and its
// connection stays: the session notices by itself.
func TestISERTargetHangs(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:iser-hangs"
	e, portal := newISERTarget(t, target.Config{Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 16)}}}}, target.IWARP{})
	d := newDaemon(t, "-o", "kern.iscsi.ping_timeout=2")
	d.addISER(portal, name)
	job := startFio(t, d.dir, d.disk(name, 0), "--bs=64k", "--size=16M", "--iodepth=32", "--rate=16M")
	d.until(name, "I/O", func(s session) bool { return s.BytesWritten > 2<<20 })
	e.signal(syscall.SIGSTOP)
	defer e.signal(syscall.SIGCONT)
	d.until(name, "noticed", func(s session) bool { return s.State == "Disconnected" })
	e.signal(syscall.SIGCONT)
	d.until(name, "reconnected", func(s session) bool { return s.State == "Connected" && s.Reconnections > 0 })
	fioEnded(t, job)
	if s := d.session(name); s.Errors != 0 {
		t.Errorf("%d requests have failed", s.Errors)
	}
}

// TestISERRemoved removes a session under I/O, and adds it again. Nothing is asked of
// fio, whose engine waits for ever for a disk that has gone.
func TestISERRemoved(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:iser-removed"
	_, portal := newISERTarget(t, target.Config{Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 64)}}}}, target.IWARP{})
	d := newDaemon(t)
	for range 3 {
		d.addISER(portal, name)
		job := startFio(t, d.dir, d.disk(name, 0), "--bs=64k", "--size=64M", "--iodepth=16")
		d.until(name, "I/O", func(s session) bool { return s.BytesWritten > 1<<20 })
		begun := time.Now()
		d.ok("-R", "-t", name, "--force")
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("the removal has taken %v", took)
		}
		job.kill()
		if list := d.sessions(); len(list) != 0 {
			t.Fatalf("sessions after the removal: %+v", list)
		}
	}
	d.addISER(portal, name)
	fio(t, d.disk(name, 0), "--bs=64k", "--size=4M", "--iodepth=8")
	d.undisturbed(name)
}

// TestISERRefused asks for what cannot be, and reads why.
func TestISERRefused(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:iser-refused"
	e, portal := newISERTarget(t, target.Config{Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 1)}}}}, target.IWARP{})
	d := newDaemon(t, "-o", "kern.iscsi.arena_size=4m")
	file := d.conf(iserEntry("verbs", portal, name, " Offload = verbs\n") + iserEntry("other", portal, name, " Offload = cxgbei\n"))
	if r := d.ctl("-A", "-n", "verbs", "-c", file); r.status == 0 {
		t.Log("there is an RDMA device here")
		d.ok("-R", "-a")
	} else if !regexp.MustCompile(`^iscsictl: .*Offload = verbs: .*(RDMA|rdma|ibverbs)`).MatchString(r.stderr) {
		t.Errorf("Offload = verbs: %+v", r)
	}
	d.refused(`no offload driver "cxgbei"`, "-A", "-n", "other", "-c", file)
	if list := d.sessions(); len(list) != 0 {
		t.Errorf("there are sessions: %+v", list)
	}
	// The wrong port, both ways.
	d.ok("-A", "-r", "-p", e.portal, "-t", name)
	s := d.until(name, "a reason", func(s session) bool { return s.FailureReason != "" && s.LastFailure != "" })
	if !strings.Contains(s.FailureReason+s.LastFailure, "not an iWARP listener") || !strings.Contains(s.LastFailure, "plain iSCSI") {
		t.Errorf("iSER at a plain iSCSI portal: %q, %q", s.FailureReason, s.LastFailure)
	}
	d.ok("-R", "-a")
	d.ok("-A", "-p", portal, "-t", name)
	s = d.until(name, "a reason", func(s session) bool { return s.FailureReason != "" && s.LastFailure != "" })
	if s.State == "Connected" {
		t.Errorf("TCP at an iSER portal: %s", s.State)
	}
	d.ok("-R", "-a")
}

// rdma has tshark dissect a capture of iWARP. Heuristics find the layers; those that
// take iSER for RPC or SMB go too far.
func (c *capture) rdma(args ...string) string {
	c.t.Helper()
	out, err := c.dissectRDMA(args...)
	if err != nil {
		c.t.Fatalf("tshark %q: %v\n%s", args, err, out)
	}
	return out
}

func (c *capture) dissectRDMA(args ...string) (string, error) {
	cmd := exec.Command("tshark", append([]string{
		"-r", c.file, "-2", "-o", "tcp.analyze_sequence_numbers:FALSE",
		"--disable-heuristic", "rpcrdma_iwarp", "--disable-heuristic", "smb_direct_iwarp",
	}, args...)...)
	out, err := cmd.Output()
	return string(out), err
}

// TestISERWire has Wireshark read a session by iSER, from discovery to logout. The
// lengths are such that a TCP segment has whole FPDUs: Wireshark looks for no others.
func TestISERWire(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:iser-wire"
	_, portal := newISERTarget(t, target.Config{Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 8)}}}}, target.IWARP{})
	d := newDaemon(t)
	var port int
	if _, err := fmt.Sscanf(portal, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	c := newCapture(t, d.dir, port)
	d.ok("--discover", portal, "-r")
	d.addISER(portal, name)
	w, r := pattern(0xa5, 0, 24<<10)
	w2, r2 := pattern(0x5a, 4<<20, 512)
	qemuIO(t, d.disk(name, 0), w, w2, "flush", r, r2)
	d.undisturbed(name)
	d.ok("-R", "-a")
	// The MPA request and reply of both sessions, and the ends of both.
	eventually(t, "all is captured", func() bool {
		out, err := c.dissectRDMA("-Y", fmt.Sprintf("tcp.flags.fin == 1 && tcp.dstport == %d && tcp.seq > 200", port))
		return err == nil && strings.Count(out, "\n") >= 2
	})
	c.done()
	if bad := c.rdma("-Y", `_ws.malformed || _ws.expert.severity == "Error"`); bad != "" {
		t.Errorf("Wireshark finds fault with\n%s", bad)
	}
	all := c.rdma("-V", "-O", "iwarp_mpa,iwarp_ddp_rdmap,iser,iscsi")
	for _, want := range []string{
		"Request frame header", "Reply frame header", "OpCode: Send (", "OpCode: Send with Invalidate (", "OpCode: Write (",
		"OpCode: Read Request (", "OpCode: Read Response (", "(Good CRC32)",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("Wireshark sees no %q", want)
		}
	}
	for _, bad := range []string{"Bad CRC", "OpCode: Terminate ("} {
		if i := strings.Index(all, bad); i >= 0 {
			t.Errorf("Wireshark sees %q:\n%s", bad, all[max(0, i-600):min(len(all), i+300)])
		}
	}
}
