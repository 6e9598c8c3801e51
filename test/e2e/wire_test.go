package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// capture is what Wireshark's dissectors are to judge: all that was said at a port.
type capture struct {
	*process
	t    *testing.T
	file string
	port int
}

// newCapture captures at a port of the loopback interface until done is called.
func newCapture(t *testing.T, dir string, port int) *capture {
	t.Helper()
	needRoot(t)
	tool(t, "tshark", "tshark")
	c := &capture{t: t, file: fmt.Sprintf("%s/%d.pcapng", dir, port), port: port}
	c.process = job(t, c.file+".log", "tshark", "-q", "-i", "lo", "-f", fmt.Sprintf("tcp port %d", port), "-w", c.file)
	eventually(t, "tshark captures", func() bool {
		if !c.running() {
			t.Skipf("SKIP: tshark cannot capture here:\n%s", c.output())
		}
		return c.says("Capturing on")
	})
	// It says so a little before it does: connections show when it has begun.
	eventually(t, "tshark has captured something", func() bool {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			conn.Close()
		}
		info, err := os.Stat(c.file)
		return err == nil && info.Size() > 1024
	})
	return c
}

// read has tshark dissect what was captured. TCP's own remarks are left out: that a
// window is full, or a port is used again, is no matter of iSCSI.
func (c *capture) read(args ...string) string {
	c.t.Helper()
	out, err := c.dissect(args...)
	if err != nil {
		c.t.Fatalf("tshark %q: %v\n%s", args, err, out)
	}
	return out
}

func (c *capture) dissect(args ...string) (string, error) {
	cmd := exec.Command("tshark", append([]string{
		"-r", c.file, "-2", "-d", fmt.Sprintf("tcp.port==%d,iscsi", c.port),
		"-o", fmt.Sprintf("iscsi.target_ports:%d", c.port), "-o", "tcp.analyze_sequence_numbers:FALSE",
	}, args...)...)
	out, err := cmd.Output()
	return string(out), err
}

// until waits until the capture has so many PDUs that a filter matches. While it
// is being written it may end in the middle of a packet, which tshark reports.
func (c *capture) until(n int, filter string) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%d captured of %s", n, filter), func() bool {
		out, err := c.dissect("-Y", filter)
		return err == nil && strings.Count(out, "\n") >= n
	})
}

// done ends the capture.
func (c *capture) done() {
	c.t.Helper()
	c.signal(syscall.SIGINT)
	if _, ok := c.ended(patience); !ok {
		c.t.Fatal("tshark does not end")
	}
}

// wantSound wants the dissectors to find nothing wrong.
func (c *capture) wantSound() {
	c.t.Helper()
	bad := c.read("-T", "fields", "-e", "frame.number", "-e", "_ws.expert.message", "-e", "iscsi.opcode",
		"-Y", `_ws.malformed || iscsi.keyvalue.invalid || iscsi.opcode.invalid || iscsi && _ws.expert.severity >= "Warning"`)
	for line := range strings.Lines(bad) {
		if !strings.Contains(line, "\t"+retransmitted+"\t") && !strings.Contains(line, "\t"+early) {
			c.t.Errorf("Wireshark finds fault with frame %s", line)
		}
	}
}

// retransmitted is a remark of TCP's that stays: on a busy machine the kernel sends
// again what is only late.
const retransmitted = "New fragment overlaps old data (retransmission?)"

// early is a remark on Data-In (0x25), which the target sends: with several CPUs a
// capture on lo can have it before the command that it answers.
const early = "Unknown SCSI exchange, can not decode SCSI data\t0x25"

// pdus are the values of a field over the whole capture, with their numbers.
type pdus map[string]map[string]int

// fields counts the values of fields. A frame may have several PDUs.
func (c *capture) fields(names ...string) pdus {
	c.t.Helper()
	args := []string{"-Y", "iscsi", "-T", "fields", "-E", "aggregator=|"}
	p := pdus{}
	for _, name := range names {
		args = append(args, "-e", name)
		p[name] = map[string]int{}
	}
	for line := range strings.Lines(c.read(args...)) {
		for i, cell := range strings.Split(strings.TrimSuffix(line, "\n"), "\t") {
			for _, value := range strings.Split(cell, "|") {
				if value != "" {
					p[names[i]][value]++
				}
			}
		}
	}
	return p
}

// wantSome wants some PDUs to have one of the values.
func (p pdus) wantSome(t *testing.T, what, field string, values ...string) {
	t.Helper()
	for _, v := range values {
		if p[field][v] > 0 {
			return
		}
	}
	t.Errorf("no %s: no %s is any of %q, but %v", what, field, values, p[field])
}

// TestWire has Wireshark read a discovery, a login with CHAP, reads, writes and a
// logout, without and with digests.
func TestWire(t *testing.T) {
	t.Parallel()
	for _, digests := range []string{"None", "CRC32C"} {
		t.Run("digests "+digests, func(t *testing.T) {
			t.Parallel()
			const name = "iqn.2026-11.example:wire"
			g, d := newTgtd(t), newDaemon(t)
			tid := g.target(name)
			g.account(tid, "alice", secretIn)
			g.account(tid, "vault", secretOut, "--outgoing")
			g.set(tid, "HeaderDigest", digests)
			g.set(tid, "DataDigest", digests)
			g.lun(tid, 1, 8)
			c := newCapture(t, d.dir, g.port)
			d.ok("--discover", g.portal())
			d.ok("-A", "-n", "n", "-c", d.conf(fmt.Sprintf(`n {
				TargetAddress = %s
				TargetName = %s
				InitiatorName = iqn.2026-11.example:initiator
				InitiatorAlias = "wire test"
				chapIName = alice
				chapSecret = %s
				tgtChapName = vault
				tgtChapSecret = %s
				chapDigest = MD5
				HeaderDigest = %s
				DataDigest = %s
			}`, g.portal(), name, secretIn, secretOut, digests, digests)), "-w", "30")
			w, r := pattern(0xa5, 0, 1<<20)
			w2, r2 := pattern(0x5a, 4<<20, 512)
			qemuIO(t, d.disk(name, 1), w, w2, "flush", r, r2)
			d.ok("-R", "-a")
			c.until(2, "iscsi.opcode == 0x26") // of the discovery and of the session
			c.done()
			c.wantSound()
			wantSaid(t, c, name, digests)
			raw, err := os.ReadFile(c.file)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{secretIn, secretOut} {
				if strings.Contains(string(raw), secret) {
					t.Errorf("the secret %s was sent", secret)
				}
			}
		})
	}
}

// wantSaid wants what TestWire has done to have been sent, as meant.
func wantSaid(t *testing.T, c *capture, name, digests string) {
	t.Helper()
	const opcode, key, sbc = "iscsi.opcode", "iscsi.keyvalue", "scsi_sbc.opcode"
	p := c.fields(opcode, key, sbc, "iscsi.headerdigest32", "iscsi.datadigest32")
	for what, value := range map[string]string{
		"Login": "0x03", "Text": "0x04", "SCSI Command": "0x01", "Data-Out": "0x05", "Logout": "0x06",
		"R2T": "0x31", "Data-In": "0x25", "SCSI Response": "0x21",
	} {
		p.wantSome(t, what, opcode, value)
	}
	p.wantSome(t, "WRITE", sbc, "0x2a", "0x8a")
	p.wantSome(t, "READ", sbc, "0x28", "0x88")
	p.wantSome(t, "SYNCHRONIZE CACHE", sbc, "0x35", "0x91")
	for _, value := range []string{
		"InitiatorName=iqn.2026-11.example:initiator", "InitiatorAlias=wire test", "SessionType=Discovery", "SessionType=Normal",
		"TargetName=" + name, "AuthMethod=CHAP", "CHAP_A=5", "CHAP_N=alice", "CHAP_N=vault", "SendTargets=All",
	} {
		p.wantSome(t, value, key, value)
	}
	headers, data := len(p["iscsi.headerdigest32"]), len(p["iscsi.datadigest32"])
	if digests == "None" {
		if headers+data != 0 {
			t.Errorf("%d header digests, %d data digests without any agreed", headers, data)
		}
		return
	}
	p.wantSome(t, "header digest", key, "HeaderDigest=CRC32C")
	p.wantSome(t, "data digest", key, "DataDigest=CRC32C")
	tree, good := c.read("-V", "-Y", "iscsi.headerdigest32 || iscsi.datadigest32"), 0
	for line := range strings.Lines(tree) {
		switch {
		case !strings.Contains(line, "Digest: 0x"):
		case strings.Contains(line, "(Good CRC32)"):
			good++
		default:
			t.Errorf("a digest is wrong: %s", line)
		}
	}
	if headers == 0 || data == 0 || good < headers+data {
		t.Errorf("%d header digests, %d data digests, %d of them are right", headers, data, good)
	}
}

// TestWireReconnection has Wireshark read what is said when a connection is lost: the
// login keeps its ISID and has TSIH 0 (RFC 7143 §6.3.5).
func TestWireReconnection(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:wire-again"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	g.lun(tid, 1, 8)
	c := newCapture(t, d.dir, g.port)
	d.add(g.portal(), name)
	d.disk(name, 1)
	g.crash()
	d.until(name, "noticed", func(s session) bool { return s.State == "Disconnected" })
	g.restart()
	d.until(name, "reconnected", func(s session) bool { return s.State == "Connected" && s.Reconnections > 0 })
	qemuIO(t, d.disk(name, 1), "write -P 3 0 65536", "read -P 3 0 65536")
	d.ok("-R", "-t", name)
	c.until(1, "iscsi.opcode == 0x26")
	c.done()
	c.wantSound()
	streams, isids := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(c.read("-Y", "iscsi.opcode == 0x03", "-T", "fields", "-e", "tcp.stream", "-e", "iscsi.isid", "-e", "iscsi.tsih")) {
		fields := strings.Fields(line)
		if len(fields) != 3 || strings.Trim(fields[2], "0x") != "" {
			t.Errorf("a login has another TSIH than 0: %q", line)
			continue
		}
		streams[fields[0]], isids[fields[1]] = true, true
	}
	if len(streams) < 2 || len(isids) != 1 {
		t.Errorf("on %d connections, the logins have the ISIDs %v", len(streams), isids)
	}
}
