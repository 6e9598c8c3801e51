package e2e

import (
	"strings"
	"testing"
	"time"

	"iscsictl/iscsi"
	"iscsictl/scsi"
	"iscsictl/target"
)

// second and its like in a target's configuration.
func seconds(n float64) target.Duration { return target.Duration(n * float64(time.Second)) }

// TestFaults lets a target do wrong while data is written and read back: whatever it
// is, the data is right and nobody saw an error.
func TestFaults(t *testing.T) {
	t.Parallel()
	const (
		busy     = int(scsi.Busy)
		setFull  = int(scsi.TaskSetFull)
		drops    = true
		survives = false
	)
	read := target.Fault{Command: "read", Nth: 5}
	write := target.Fault{Command: "write", Nth: 5}
	with := func(f target.Fault, a target.Action, edit func(*target.Fault)) target.Fault {
		f.Action = a
		if edit != nil {
			edit(&f)
		}
		return f
	}
	at := func(pdu string, nth int, a target.Action, edit func(*target.Fault)) target.Fault {
		return with(target.Fault{PDU: pdu, Nth: nth, Phase: "full-feature"}, a, edit)
	}
	status := func(s, times int) func(*target.Fault) {
		return func(f *target.Fault) { f.Status, f.Times = s, times }
	}
	sense := func(key scsi.SenseKey, code scsi.Code) func(*target.Fault) {
		return func(f *target.Fault) { f.Sense = target.Sense{Key: key, Code: code} }
	}
	event := func(e int, p ...uint16) func(*target.Fault) {
		return func(f *target.Fault) { f.Event = e; copy(f.Parameters[:], p) }
	}
	delta := func(n int) func(*target.Fault) { return func(f *target.Fault) { f.Delta = n } }
	some := func(n int) func(*target.Fault) { return func(f *target.Fault) { f.Bytes = n } }
	shape := func(s target.R2TShape) func(*target.Fault) { return func(f *target.Fault) { f.R2T = s } }
	for _, c := range []struct {
		name  string
		fault target.Fault
		drops bool // the connection is dropped and made again
	}{
		{"drop at a write", at("scsi-command", 40, target.ActionDrop, nil), drops},
		{"drop at data out", at("data-out", 5, target.ActionDrop, nil), drops},
		{"drop within data out", at("data-out", 5, target.ActionDropAfter, some(1000)), drops},
		{"drop at data in", at("data-in", 30, target.ActionDrop, nil), drops},
		{"drop within data in", at("data-in", 30, target.ActionDropAfter, some(5000)), drops},
		{"drop within a header", at("data-in", 30, target.ActionDropAfter, some(20)), drops},
		{"drop at a response", at("scsi-response", 20, target.ActionDrop, nil), drops},
		{"drop at an R2T", at("r2t", 5, target.ActionDrop, nil), drops},
		{"silence", at("scsi-command", 40, target.ActionSilence, nil), drops},
		{"delay", at("scsi-command", 40, target.ActionDelay, func(f *target.Fault) { f.Delay = seconds(0.5) }), survives},
		{"lost response", at("scsi-response", 20, target.ActionSwallow, nil), drops},
		{"lost data in", at("data-in", 30, target.ActionSwallow, nil), drops},
		{"busy", with(write, target.ActionStatus, status(busy, 4)), survives},
		{"task set full", with(read, target.ActionStatus, status(setFull, 4)), survives},
		{"unit attention", with(write, target.ActionCheck, sense(scsi.UnitAttention, 0x2900)), survives},
		{"not ready", with(read, target.ActionCheck, sense(scsi.NotReady, 0x0401)), survives},
		{"aborted command", with(write, target.ActionCheck, sense(scsi.AbortedCommand, 0)), survives},
		{"reject", at("scsi-command", 40, target.ActionReject, func(f *target.Fault) { f.Reason = int(iscsi.RejectProtocolError) }), survives},
		{"ping", at("scsi-command", 40, target.ActionPing, nil), survives},
		{"window closed", at("scsi-command", 40, target.ActionCloseWindow, func(f *target.Fault) { f.Delay = seconds(0.5) }), survives},
		{"asked to log out", at("scsi-command", 40, target.ActionAsync, event(1, 0, 0, 1)), drops},
		{"connection to be dropped", at("scsi-command", 40, target.ActionAsync, event(2, 0, 0, 0)), drops},
		{"asked to negotiate", at("scsi-command", 40, target.ActionAsync, event(4, 0, 0, 1)), drops},
		{"wrong StatSN", at("scsi-response", 20, target.ActionStatSN, delta(2)), drops},
		{"old MaxCmdSN", at("scsi-response", 20, target.ActionMaxCmdSN, delta(-4000)), survives},
		{"garbage", at("scsi-command", 40, target.ActionGarbage, some(4096)), drops},
		{"header digest", at("data-in", 30, target.ActionHeaderDigest, nil), drops},
		{"data digest", at("data-in", 30, target.ActionDataDigest, nil), drops},
		{"unknown task", at("data-in", 30, target.ActionUnknownITT, nil), drops},
		{"oversize data in", at("data-in", 30, target.ActionOversize, some(0xffffff)), drops},
		{"data out of order", with(read, target.ActionDataReverse, nil), drops},
		{"gap in DataSN", with(read, target.ActionDataGap, nil), drops},
		{"data beyond the buffer", with(read, target.ActionDataBeyond, nil), drops},
		{"data missing", with(read, target.ActionDataShort, nil), survives},
		{"residual with GOOD", at("data-in", 30, target.ActionResidual, delta(512)), survives},
		{"R2T in pieces", with(write, target.ActionR2T, shape(target.R2TShape{Burst: 4096})), survives},
		{"R2T beyond the buffer", with(write, target.ActionR2T, shape(target.R2TShape{Burst: 4096, Beyond: 512})), drops},
		{"R2T for a read", with(read, target.ActionR2T, shape(target.R2TShape{ForRead: true})), drops},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			name := "iqn.2026-11.example:" + strings.ReplaceAll(strings.ToLower(c.name), " ", "-")
			e := newTarget(t, target.Config{
				Targets: []target.Target{{
					Name: name, LUNs: []target.LUN{memory(0, 8)},
					Keys: map[string]string{
						"HeaderDigest": "CRC32C,None", "DataDigest": "CRC32C,None",
						"MaxRecvDataSegmentLength": "8192", "FirstBurstLength": "8192", "MaxBurstLength": "65536",
					},
				}},
				Faults: []target.Fault{c.fault},
			})
			d := newDaemon(t, "-o", "kern.iscsi.ping_timeout=2", "-o", "kern.iscsi.command_timeout=20", "-o", "kern.iscsi.arena_size=4m")
			digests := "None"
			if strings.Contains(string(c.fault.Action), "digest") {
				digests = "CRC32C"
			}
			file := d.conf("n {\n TargetAddress = " + e.portal + "\n TargetName = " + name +
				"\n HeaderDigest = " + digests + "\n DataDigest = " + digests + "\n}\n")
			d.ok("-A", "-n", "n", "-c", file, "-w", "30")
			fio(t, d.disk(name, 0), "--bs=32k", "--size=4M", "--iodepth=8")
			if !e.says(" action=" + string(c.fault.Action) + " at=") {
				t.Fatal("the fault did not happen")
			}
			s := d.session(name)
			if s.Errors != 0 {
				t.Errorf("%d requests have failed", s.Errors)
			}
			if (s.Reconnections > 0) != c.drops {
				t.Errorf("%d reconnections; want any: %v (%s)", s.Reconnections, c.drops, s.LastFailure)
			}
			if c.drops && !d.says("; reconnecting") && !d.says("logged out") || c.drops && !d.says("reconnected") {
				t.Error("the log does not say what has happened")
			}
		})
	}
}

// TestRedirected follows targets that have moved.
func TestRedirected(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:moved"
	for _, permanent := range []bool{false, true} {
		t.Run(map[bool]string{false: "temporarily", true: "permanently"}[permanent], func(t *testing.T) {
			t.Parallel()
			there := newTarget(t, target.Config{Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 8)}}}})
			here := newTarget(t, target.Config{Targets: []target.Target{{
				Name: name, LUNs: []target.LUN{memory(0, 8)}, Redirect: &target.Redirect{Address: there.portal, Permanent: permanent},
			}}})
			d := newDaemon(t)
			s := d.add(here.portal, name)
			want := here.portal
			if permanent {
				want = there.portal
			}
			if s.Target.Portal != want {
				t.Errorf("the portal is %s, want %s", s.Target.Portal, want)
			}
			fio(t, d.disk(name, 0), "--bs=32k", "--size=2M", "--iodepth=8")
			d.ok("-R", "-p", here.portal)
		})
	}
}

// TestRedirectedInACircle gives up an attempt that would never end.
func TestRedirectedInACircle(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:circle"
	e := newTarget(t, target.Config{
		Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 8)}}},
		Faults:  []target.Fault{},
	})
	self := target.Config{Targets: []target.Target{{
		Name: name, LUNs: []target.LUN{memory(0, 8)}, Redirect: &target.Redirect{Address: e.portal},
	}}}
	one := newTarget(t, self)
	self.Targets[0].Redirect.Address = one.portal
	two := newTarget(t, self)
	d := newDaemon(t)
	d.ok("-A", "-p", two.portal, "-t", name, "-w", "30") // two, one, e: not a circle yet
	d.ok("-R", "-a")

	loop, portal := newServer(t, target.Config{Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 8)}}}})
	if err := loop.AddFault(target.Fault{Action: target.ActionRedirect, Address: portal, Times: -1}); err != nil {
		t.Fatal(err)
	}
	d.ok("-A", "-p", portal, "-t", name)
	s := d.failing(name, "Target moved temporarily")
	if !strings.Contains(s.LastFailure, "circle") {
		t.Errorf("the last failure is %q", s.LastFailure)
	}
	if n := loop.Accepted(); n > 20 {
		t.Errorf("%d connections for an attempt or two", n)
	}
}

// TestLoginStatus shows the words for each reason of a refused login.
func TestLoginStatus(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for status, reason := range map[int]string{
		0x0200: "Initiator error", 0x0201: "Authentication failure", 0x0202: "Authorization failure",
		0x0203: "Not found", 0x0204: "Target removed", 0x0205: "Unsupported version", 0x0206: "Too many connections",
		0x0207: "Missing parameter", 0x0208: "Can't include in session", 0x0209: "Session type not supported",
		0x020a: "Session does not exist", 0x020b: "Invalid during login", 0x0300: "Target error",
		0x0301: "Service unavailable", 0x0302: "Out of resources", 0x02fe: "unknown initiator error; Status-Class 0x2, Status-Detail 0xfe",
	} {
		t.Run(reason, func(t *testing.T) {
			d := d.in(t)
			const name = "iqn.2026-11.example:status"
			server, portal := newServer(t, target.Config{Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 1)}}}})
			if err := server.AddFault(target.Fault{Action: target.ActionLoginStatus, Status: status, Times: -1}); err != nil {
				t.Fatal(err)
			}
			d.ok("-A", "-p", portal, "-t", name)
			d.failing(name, reason)
			server.ClearFaults()
			d.ok("-R", "-p", portal)
		})
	}
}

// TestAuthenticationRequired shows what a target wants that asks for CHAP.
func TestAuthenticationRequired(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:wants-chap"
	e := newTarget(t, target.Config{Targets: []target.Target{{
		Name: name, LUNs: []target.LUN{memory(0, 1)},
		CHAP: &target.CHAP{Users: []target.Credential{{Name: "alice", Secret: secretIn}}},
	}}})
	d := newDaemon(t)
	d.ok("-A", "-p", e.portal, "-t", name)
	s := d.until(name, "refused", func(s session) bool { return s.FailureReason != "" && s.LastFailure != "" })
	if s.FailureReason != "Authentication required" && s.FailureReason != "Authentication failure" {
		t.Errorf("the reason is %q", s.FailureReason)
	}
}

// TestAlgorithms uses each CHAP algorithm, pinned, both ways.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:algorithms"
	e := newTarget(t, target.Config{Targets: []target.Target{{
		Name: name, LUNs: []target.LUN{memory(0, 1)},
		CHAP: &target.CHAP{
			Users:  []target.Credential{{Name: "alice", Secret: secretIn}},
			Mutual: &target.Credential{Name: "vault", Secret: secretOut},
		},
	}}})
	d := newDaemon(t)
	for _, digest := range []string{"", "MD5", "SHA1", "SHA-256", "SHA3-256"} {
		keys := " chapIName = alice\n chapSecret = " + secretIn + "\n tgtChapName = vault\n tgtChapSecret = " + secretOut + "\n"
		if digest != "" {
			keys += " chapDigest = " + digest + "\n"
		}
		d.ok("-A", "-n", "n", "-c", d.conf("n {\n TargetAddress = "+e.portal+"\n TargetName = "+name+"\n"+keys+"}\n"), "-w", "30")
		d.connected(name)
		d.ok("-R", "-a")
	}
	wantNoSecrets(t, d)
}
