package e2e

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"unicode"

	"iscsictl/iscsi"
	"iscsictl/target"
)

// iserFault is a wrong that a target does by iSER.
type iserFault struct {
	name   string
	faults []target.Fault
	w      target.IWARP
	drops  bool   // the connection is dropped and made again
	reason string // in what the listing or the log tells of it
}

// iserFaults lists them. at is the n-th PDU in the full-feature phase.
func iserFaults() []iserFault {
	command := func(name string, a target.Action) target.Fault {
		return target.Fault{Action: a, Command: name, Nth: 5}
	}
	at := func(pdu string, nth int, a target.Action) target.Fault {
		return target.Fault{Action: a, PDU: pdu, Nth: nth, Phase: "full-feature"}
	}
	one := func(f target.Fault, edit func(*target.Fault)) []target.Fault {
		if edit != nil {
			edit(&f)
		}
		return []target.Fault{f}
	}
	shape := func(s target.R2TShape) func(*target.Fault) { return func(f *target.Fault) { f.R2T = s } }
	some := func(n int) func(*target.Fault) { return func(f *target.Fault) { f.Bytes = n } }
	answer := func(text string) []target.Fault { // in the operational stage
		return []target.Fault{{Action: target.ActionAnswer, Text: text, Nth: 2}}
	}
	const drops, survives = true, false
	const beyond = "outside of the region"
	return []iserFault{
		// RDMA.
		{name: "bad STag of a read", faults: one(command("read", target.ActionBadSTag), nil), drops: drops, reason: "RDMA Write to the STag"},
		{name: "bad STag of a write", faults: one(command("write", target.ActionBadSTag), nil), drops: drops, reason: "RDMA Read from the STag"},
		{name: "stale STag of a read", faults: one(command("read", target.ActionStaleSTag), nil), drops: drops, reason: "RDMA Write to the STag"},
		{name: "stale STag of a write", faults: one(command("write", target.ActionStaleSTag), nil), drops: drops, reason: "RDMA Read from the STag"},
		{name: "data beyond the buffer", faults: one(command("read", target.ActionDataBeyond), nil), drops: drops, reason: beyond},
		{name: "RDMA Read beyond the buffer", faults: one(command("write", target.ActionR2T), shape(target.R2TShape{Burst: 4096, Beyond: 512})), drops: drops, reason: beyond},
		{name: "RDMA Reads in pieces", faults: one(command("write", target.ActionR2T), shape(target.R2TShape{Burst: 4096, Overlap: 512, Outstanding: 3, Reverse: true})), drops: survives},
		{name: "data out of order", faults: one(command("read", target.ActionDataReverse), nil), drops: survives},
		{name: "another STag invalidated", faults: one(at("scsi-response", 20, target.ActionInvalidateOther), nil), drops: drops},
		{name: "own STag invalidated", faults: one(at("scsi-response", 20, target.ActionInvalidate), nil), drops: survives},
		// Messages.
		{name: "Data-In", faults: one(command("read", target.ActionPlainData), nil), drops: drops},
		{name: "R2T", faults: one(command("write", target.ActionPlainData), nil), drops: drops},
		{name: "R2T of a read", faults: one(command("read", target.ActionR2T), shape(target.R2TShape{ForRead: true})), drops: drops},
		{name: "oversize Send", faults: one(at("scsi-response", 20, target.ActionOversizeSend), nil), drops: drops, reason: "into a receive of"},
		{name: "oversize data segment", faults: one(at("scsi-response", 20, target.ActionOversize), some(0xffffff)), drops: drops},
		{name: "garbage", faults: one(at("scsi-command", 40, target.ActionGarbage), some(4096)), drops: drops},
		{name: "short message", faults: one(at("scsi-response", 20, target.ActionDropAfter), some(20)), drops: drops},
		// The session.
		{name: "drop at a command", faults: one(at("scsi-command", 40, target.ActionDrop), nil), drops: drops},
		{name: "drop at a response", faults: one(at("scsi-response", 20, target.ActionDrop), nil), drops: drops},
		{name: "silence", faults: one(at("scsi-command", 40, target.ActionSilence), nil), drops: drops},
		{name: "lost response", faults: one(at("scsi-response", 20, target.ActionSwallow), nil), drops: drops, reason: "has not come"},
		{name: "ping", faults: one(at("scsi-command", 40, target.ActionPing), nil), drops: survives},
		{name: "window closed", faults: one(at("scsi-command", 40, target.ActionCloseWindow), func(f *target.Fault) { f.Delay = seconds(0.3) }), drops: survives},
		{name: "reject", faults: one(at("scsi-command", 40, target.ActionReject), func(f *target.Fault) { f.Reason = int(iscsi.RejectProtocolError) }), drops: survives},
		{name: "residual with GOOD", faults: one(at("scsi-response", 200, target.ActionResidual), func(f *target.Fault) { f.Delta = 512 }), drops: survives},
		{name: "StatSNs in another order", faults: append(
			one(at("scsi-response", 20, target.ActionStatSN), func(f *target.Fault) { f.Delta = 1 }),
			one(at("scsi-response", 21, target.ActionStatSN), func(f *target.Fault) { f.Delta = -1 })...), drops: survives},
		{name: "wrong StatSN", faults: one(at("scsi-response", 20, target.ActionStatSN), func(f *target.Fault) { f.Delta = 5000 }), drops: drops, reason: "is due"},
		{name: "unknown task", faults: one(at("scsi-response", 20, target.ActionUnknownITT), nil), drops: drops},
		{name: "asked to log out", faults: one(at("scsi-command", 40, target.ActionAsync), func(f *target.Fault) { f.Event, f.Parameters = 1, [3]uint16{0, 0, 1} }), drops: drops},
		{name: "no iSER at first", faults: answer("RDMAExtensions=No"), drops: survives, reason: "does not do iSER here"},
		{name: "digest at first", faults: answer("HeaderDigest=CRC32C"), drops: survives, reason: "HeaderDigest"},
		{name: "tiny segment at first", faults: answer("TargetRecvDataSegmentLength=17"), drops: survives, reason: "TargetRecvDataSegmentLength"},
		// The layers below, on every connection.
		{name: "wrong CRC", w: target.IWARP{CorruptCRC: 200}, drops: drops, reason: "CRC"},
		{name: "gap in the MSN", w: target.IWARP{SkipMSN: 120}, drops: drops, reason: "message sequence number"},
		{name: "MPA revision 1", w: target.IWARP{Revision: 1, NoCRC: true}, drops: survives},
	}
}

// TestISERFaults lets a target do wrong by iSER while data is written and read back:
// whatever it is, the data is right and nobody saw an error.
func TestISERFaults(t *testing.T) {
	t.Parallel()
	for _, c := range iserFaults() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			name := nameFor("iser " + c.name)
			e, portal := newISERTarget(t, target.Config{
				Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 8)}}}, Faults: c.faults,
			}, c.w)
			d := newDaemon(t, "-o", "kern.iscsi.ping_timeout=2", "-o", "kern.iscsi.command_timeout=20", "-o", "kern.iscsi.arena_size=4m")
			d.addISER(portal, name)
			fio(t, d.disk(name, 0), "--bs=32k", "--size=4M", "--iodepth=8")
			for _, f := range c.faults {
				if !e.says(" action=" + string(f.Action) + " at=") {
					t.Errorf("the fault %s did not happen", f.Action)
				}
			}
			s := d.session(name)
			if s.Errors != 0 {
				t.Errorf("%d requests have failed", s.Errors)
			}
			if (s.Reconnections > 0) != c.drops {
				t.Errorf("%d reconnections; want any: %v (%s)", s.Reconnections, c.drops, s.LastFailure)
			}
			if !strings.Contains(s.LastFailure, c.reason) {
				t.Errorf("the last failure is %q, want %q", s.LastFailure, c.reason)
			}
			if c.drops {
				t.Logf("%d reconnections: %s", s.Reconnections, s.LastFailure)
			}
			d.ok("-R", "-t", name)
		})
	}
}

// TestISERLargeRequests has a target that takes no more of a command than tgtd's
// buffers, and closes the connection for more: no request is larger there.
func TestISERLargeRequests(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:iser-large"
	_, portal := newISERTarget(t, target.Config{
		Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 16)}}},
		Faults:  []target.Fault{{Action: target.ActionDrop, PDU: "scsi-command", Over: 512 << 10, Times: -1}},
	}, target.IWARP{})
	d := newDaemon(t)
	d.addISER(portal, name)
	fio(t, d.disk(name, 0), "--bs=8M", "--size=16M", "--iodepth=2")
	if s := d.session(name); s.Errors != 0 || s.Reconnections != 0 {
		t.Errorf("%d requests have failed, %d reconnections: %s", s.Errors, s.Reconnections, s.LastFailure)
	}
	d.ok("-R", "-t", name)
}

// TestISERLate has the target move the data of a command after its response. A read
// whose data has not come is sent again. Nothing tells that a write's data was not
// fetched, so that of here is zeroes, as the disk's. The connection is left when the
// memory is reached for that was taken back.
func TestISERLate(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "-o", "kern.iscsi.arena_size=4m")
	for command, reason := range map[string]string{"read": "RDMA Write to the STag", "write": "RDMA Read from the STag"} {
		t.Run(command, func(t *testing.T) {
			d := d.in(t)
			name := nameFor("iser late " + command)
			_, portal := newISERTarget(t, target.Config{
				Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 8)}}},
				Faults:  []target.Fault{{Action: target.ActionLateRDMA, Command: command}},
			}, target.IWARP{})
			d.addISER(portal, name)
			disk := d.disk(name, 0)
			pattern := map[string]string{"read": "7", "write": "0"}[command]
			qemuIO(t, disk, "write -P "+pattern+" 0 32k", "read -P "+pattern+" 0 32k")
			s := d.until(name, "reconnected", func(s session) bool { return s.State == "Connected" && s.Reconnections == 1 })
			if !strings.Contains(s.LastFailure, reason) {
				t.Errorf("the last failure is %q, want %q", s.LastFailure, reason)
			}
			fio(t, disk, "--bs=32k", "--size=2M", "--iodepth=8")
			if s = d.session(name); s.Errors != 0 || s.Reconnections != 1 {
				t.Errorf("%d errors, %d reconnections (%s)", s.Errors, s.Reconnections, s.LastFailure)
			}
			d.ok("-R", "-t", name)
		})
	}
}

// TestISERNever meets targets with which no attempt succeeds: the listing says why.
func TestISERNever(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "-o", "kern.iscsi.arena_size=4m")
	for _, c := range []struct {
		name   string
		keys   map[string]string
		w      target.IWARP
		reason string
	}{
		{name: "no iSER", keys: map[string]string{"RDMAExtensions": "No"}, reason: "does not do iSER here"},
		{name: "markers", w: target.IWARP{Markers: true}, reason: "markers"},
		{name: "wrong CRC at once", w: target.IWARP{CorruptCRC: 1}, reason: "CRC"},
		{name: "gap in the MSN at once", w: target.IWARP{SkipMSN: 1}, reason: "message sequence number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := d.in(t)
			name := nameFor("iser " + c.name)
			_, portal := newISERTarget(t, target.Config{
				Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 1)}, Keys: c.keys}},
			}, c.w)
			d.ok("-A", "-r", "-p", portal, "-t", name)
			s := d.until(name, "a reason", func(s session) bool { return s.LastFailure != "" && s.FailureReason != "" })
			if !strings.Contains(s.LastFailure, c.reason) || s.State == "Connected" {
				t.Errorf("%s: %q, %q; want %q", s.State, s.FailureReason, s.LastFailure, c.reason)
			}
			d.ok("-R", "-t", name)
		})
	}
}

// TestISERReadsExceeded has the target ask for more RDMA Reads at a time than were
// agreed, over and over: the reason is told, and the rest of the daemon is not disturbed.
func TestISERReadsExceeded(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:iser-reads"
	_, portal := newISERTarget(t, target.Config{
		Targets: []target.Target{{Name: name, LUNs: []target.LUN{memory(0, 64)}}},
		Faults:  []target.Fault{{Action: target.ActionR2T, Times: -1, R2T: target.R2TShape{Burst: 65536, Outstanding: 64}}},
	}, target.IWARP{ExceedReads: true})
	d := newDaemon(t)
	d.addISER(portal, name)
	job := startFio(t, d.dir, d.disk(name, 0), "--bs=4M", "--size=64M", "--iodepth=16")
	s := d.until(name, "dropped", func(s session) bool { return s.LastFailure != "" })
	if !strings.Contains(s.LastFailure, "RDMA Reads at a time") {
		t.Errorf("the last failure is %q", s.LastFailure)
	}
	job.kill()
	d.ok("-R", "-t", name, "--force")
}

// mpaReply is an MPA reply frame (RFC 5044 §7.1.1) with flags, a revision and private
// data, of which length is told.
func mpaReply(flags, revision byte, length int, private string) string {
	return "MPA ID Rep Frame" + string([]byte{flags, revision, byte(length >> 8), byte(length)}) + private
}

// TestISERHostile points sessions by iSER at services that speak something else, stop
// speaking, or agree to a connection and then send nonsense: the daemon survives, says
// why it left, and tries again.
func TestISERHostile(t *testing.T) {
	t.Parallel()
	after := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.ReadFull(c, make([]byte, 20))
			_, _ = io.WriteString(c, text)
		}
	}
	stay := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			after(text)(c)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	const enhanced = "\x00\x10\x00\x10" // 16 RDMA Reads in, 16 out
	agreed := mpaReply(0x50, 2, 4+4, enhanced+"\x80\x00\x00\x00")
	d := newDaemon(t, "-t", "3", "-o", "kern.iscsi.login_timeout=2", "-o", "kern.iscsi.arena_size=4m")
	services := map[string]func(net.Conn){
		"ssh":                   stay("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"),
		"http":                  after("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
		"closes":                func(net.Conn) {},
		"silence":               stay(""),
		"echo":                  func(c net.Conn) { _, _ = io.Copy(c, c) },
		"ones":                  after(strings.Repeat("\xff", 1<<16)),
		"half a reply":          after("MPA ID Rep Fr"),
		"refused":               after(mpaReply(0x20, 2, 0, "")),
		"private data too long": after(mpaReply(0x40, 2, 0xffff, strings.Repeat("x", 0xffff))),
		"other revision":        after(mpaReply(0x40, 9, 0, "")),
		"never an FPDU":         stay(agreed),
		"closes after MPA":      after(agreed),
		"zeroes as FPDUs":       stay(agreed + strings.Repeat("\x00", 1<<16)),
		"ones as FPDUs":         stay(agreed + strings.Repeat("\xff", 1<<17)),
		"text as FPDUs":         stay(agreed + strings.Repeat("HTTP/1.1 400 Bad Request\r\n", 4096)),
		"half an FPDU": func(c net.Conn) {
			after(agreed + "\x04\x00\x41\x43")(c)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		},
	}
	var names []string
	servers := map[string]*server{}
	for what, handle := range services {
		servers[what] = newHandler(t, handle)
		names = append(names, what)
		d.ok("-A", "-r", "-p", servers[what].portal, "-t", nameFor(what))
	}
	slices.Sort(names)
	for _, what := range names {
		s := servers[what]
		got := d.until(nameFor(what), "what is wrong", func(s session) bool { return s.LastFailure != "" })
		if got.LastFailure == "EOF" || strings.ContainsFunc(got.LastFailure, unicode.IsControl) {
			t.Errorf("%s: what is wrong is not well said: %q", what, got.LastFailure)
		}
		if strings.HasSuffix(what, "as FPDUs") && !strings.Contains(got.LastFailure, "broke the protocol") {
			t.Errorf("%s: what is wrong is %q", what, got.LastFailure)
		}
		if !d.says(fmt.Sprintf("%s (%s): ", s.portal, nameFor(what))) {
			t.Errorf("%s: the log does not tell of it", what)
		}
		eventually(t, what+": another attempt", func() bool { return s.accepted.Load() >= 2 })
		d.ok("-R", "-p", s.portal)
		t.Logf("%s: %s", what, got.LastFailure)
	}
}
