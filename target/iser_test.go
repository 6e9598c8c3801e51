package target

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iscsictl/iscsi"
	"iscsictl/transport/rdma/iwarp"
)

func iserServer(t *testing.T, conf Config, w IWARP) (*Server, string) {
	t.Helper()
	s, _ := serve(t, conf)
	return s, serveISER(t, s, w)
}

func TestISERLogin(t *testing.T) {
	_, address := iserServer(t, oneTarget(smallLUN), IWARP{})
	c := dialISER(t, address)
	private := c.rdma.conn.Info().PrivateData
	if !bytes.Equal(private, []byte{iserNoZeroBased, 0, 0, 0}) {
		t.Errorf("private data %x", private)
	}
	c.in("HeaderDigest=CRC32C,None", "DataDigest=None", "MaxBurstLength=262144", "iSERHelloRequired=No", "MaxOutstandingUnexpectedPDUs=0")
	for key, want := range map[string]string{
		"RDMAExtensions": "Yes", "InitiatorRecvDataSegmentLength": "8192", "TargetRecvDataSegmentLength": "8192",
		"HeaderDigest": "None", "DataDigest": "None", "iSERHelloRequired": "NotUnderstood",
		"MaxOutstandingUnexpectedPDUs": "NotUnderstood", "MaxRecvDataSegmentLength": "",
	} {
		if got := c.answers[key]; got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	if c.maxCmdSN != c.cmdSN {
		t.Errorf("MaxCmdSN %d after login, want %d: one command", c.maxCmdSN, c.cmdSN)
	}
	c.good(0, testUnitReady(), 0, nil)
	if want := c.cmdSN + defaultWindow - 1; c.maxCmdSN != want {
		t.Errorf("MaxCmdSN %d after a command, want %d", c.maxCmdSN, want)
	}
	c = dialISER(t, address)
	if _, err := c.loginStep(iscsi.StageOperational, iscsi.StageFullFeature,
		normal("RDMAExtensions=Yes", "InitiatorRecvDataSegmentLength=600", "MaxRecvDataSegmentLength=100000")); err != nil {
		t.Fatal(err)
	}
	if c.answers["InitiatorRecvDataSegmentLength"] != "600" || c.answers["TargetRecvDataSegmentLength"] != "" {
		t.Error(c.answers)
	}
	var h iscsi.BHS
	(&iscsi.NOPOut{Immediate: true, InitiatorTaskTag: 9, TargetTransferTag: iscsi.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c.statSN}).Encode(&h)
	c.mustSend(&h, make([]byte, 8192))
	if p := c.mustReceive(iscsi.OpNOPIn); len(p.data) != 600 {
		t.Errorf("%d bytes where the initiator takes 600", len(p.data))
	}
}

func TestISERLoginRefused(t *testing.T) {
	_, address := iserServer(t, oneTarget(smallLUN), IWARP{})
	for _, tt := range []struct {
		keys []string
		want iscsi.LoginStatus
	}{
		{nil, iscsi.LoginMissingParameter},
		{[]string{"RDMAExtensions=Yes", "HeaderDigest=CRC32C"}, iscsi.LoginInitiatorError},
		{[]string{"RDMAExtensions=Yes", "TargetRecvDataSegmentLength=511"}, iscsi.LoginInitiatorError},
	} {
		c := dialISER(t, address)
		if _, err := c.loginStep(iscsi.StageOperational, iscsi.StageFullFeature, normal(tt.keys...)); err == nil || c.status != tt.want {
			t.Errorf("%v: %v, want %v", tt.keys, err, tt.want)
		}
		c.gone()
	}
	// TCP has no such keys.
	_, tcp := serve(t, oneTarget(smallLUN))
	c := mustLogin(t, tcp, "RDMAExtensions=Yes", "TargetRecvDataSegmentLength=8192")
	if c.answers["RDMAExtensions"] != "No" || c.answers["TargetRecvDataSegmentLength"] != "NotUnderstood" {
		t.Error(c.answers)
	}
}

// TestISERReadWrite moves data with and without immediate and unsolicited data.
func TestISERReadWrite(t *testing.T) {
	conf := oneTarget(
		LUN{Number: 0, Size: 16 << 20},
		LUN{Number: 1, Size: 16 << 20, BlockSize: 4096},
		LUN{Number: 2, Size: 16 << 20, File: filepath.Join(t.TempDir(), "lun")})
	s, address := iserServer(t, conf, IWARP{})
	for bits := range 4 {
		yesNo := func(bit int) string { return [2]string{"No", "Yes"}[bits>>bit&1] }
		keys := []string{"ImmediateData=" + yesNo(0), "InitialR2T=" + yesNo(1), "FirstBurstLength=8192", "MaxBurstLength=262144"}
		t.Run(fmt.Sprint(keys), func(t *testing.T) {
			c := dialISER(t, address).in(keys...)
			c.segment = 2048
			if bits&1 != 0 {
				c.immediate = 3071 // needs padding
			}
			if bits&2 == 0 {
				c.unsolicited = 8192 - c.immediate
			}
			for lun := range uint64(3) {
				iserReadWrite(t, s, c, lun, byte(bits))
			}
		})
	}
}

func iserReadWrite(t *testing.T, s *Server, c *client, lun uint64, seed byte) {
	size := 512
	if lun == 1 {
		size = 4096
	}
	before := sessionOf(t, s, c)
	for _, n := range []int{size, 8192, 12288, 1 << 20, 5<<20 + 4096} {
		out := pattern(n, seed+byte(n>>9)+byte(lun))
		c.good(lun<<48, cdb16(0x8a, 8, uint32(n/size)), 0, out)
		r := c.must(lun<<48, cdb16(0x88, 8, uint32(n/size)), uint32(n), nil)
		if r.status != 0 || !r.invalidated {
			t.Errorf("LUN %d, %d bytes: %+v", lun, n, r.status)
		}
		equal(t, fmt.Sprintf("LUN %d, %d bytes", lun, n), r.data, out)
	}
	if len(c.r2ts)+len(c.dataIn) > 0 {
		t.Error("R2T or Data-In")
	}
	after := sessionOf(t, s, c)
	if after.RDMAReads == before.RDMAReads || after.RDMAWrites == before.RDMAWrites || !after.ISER || !after.Params.RDMAExtensions {
		t.Errorf("session %+v", after)
	}
}

func sessionOf(t *testing.T, s *Server, c *client) SessionInfo {
	t.Helper()
	for _, info := range s.Sessions() {
		if info.TSIH == c.tsih {
			return info
		}
	}
	t.Fatal("no session")
	return SessionInfo{}
}

// TestISERInvalidate checks that the target uses Send with Invalidate where,
// and only where, the initiator takes it.
func TestISERInvalidate(t *testing.T) {
	_, address := iserServer(t, oneTarget(smallLUN), IWARP{})
	for _, tt := range []struct {
		flags []byte
		reply byte
		want  bool
	}{
		{[]byte{iserNoZeroBased}, iserNoZeroBased, true},
		{[]byte{iserNoZeroBased | iserNoSendInvalidate}, iserNoZeroBased | iserNoSendInvalidate, false},
		{nil, iserNoZeroBased | iserNoSendInvalidate, false},
	} {
		c, err := tryISER(t, address, &iwarp.Provider{}, 4, tt.flags...)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.rdma.conn.Info().PrivateData; len(got) != 4 || got[0] != tt.reply {
			t.Errorf("%x: private data %x", tt.flags, got)
		}
		c.in()
		for _, r := range []result{
			c.must(0, cdb10(0x28, 0, 8), 4096, nil), c.must(0, cdb10(0x2a, 0, 8), 0, make([]byte, 4096)),
			c.must(0, cdb10(0x28, 1<<20, 8), 4096, nil), // ends with an error
		} {
			if r.invalidated != tt.want {
				t.Errorf("%x: invalidated %v", tt.flags, r.invalidated)
			}
		}
	}
}

func TestISERDiscovery(t *testing.T) {
	s, tcp := serve(t, oneTarget(smallLUN))
	address := serveISER(t, s, IWARP{})
	find := func(c *client) string {
		if _, err := c.loginStep(iscsi.StageOperational, iscsi.StageFullFeature,
			pairs("InitiatorName="+testInitiator, "SessionType=Discovery", "RDMAExtensions=Yes")); err != nil {
			t.Fatal(err)
		}
		q := iscsi.TextRequest{Final: true, InitiatorTaskTag: 5, TargetTransferTag: iscsi.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c.statSN}
		c.cmdSN++
		var h iscsi.BHS
		q.Encode(&h)
		c.mustSend(&h, pairs("SendTargets=All"))
		p := c.mustReceive(iscsi.OpTextResponse)
		(&iscsi.LogoutRequest{CmdSN: c.cmdSN, InitiatorTaskTag: 6, ExpStatSN: c.statSN}).Encode(&h)
		c.mustSend(&h, nil)
		c.mustReceive(iscsi.OpLogoutResponse)
		c.gone()
		return string(p.data)
	}
	c := dialISER(t, address)
	if got, want := find(c), string(pairs("TargetName="+testTarget, "TargetAddress="+address+",1")); got != want {
		t.Errorf("over iSER: %q, want %q", got, want)
	}
	if c.answers["RDMAExtensions"] != "Irrelevant" {
		t.Error(c.answers)
	}
	if got, want := find(dial(t, tcp)), string(pairs("TargetName="+testTarget, "TargetAddress="+tcp+",1")); got != want {
		t.Errorf("over TCP: %q, want %q", got, want)
	}
}

func TestISERControl(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.Faults = []Fault{
		{Action: ActionHold, Command: "0x35"},
		{Action: ActionReject, PDU: "scsi-command", Command: "0x03", Reason: 4},
	}
	s, address := iserServer(t, conf, IWARP{})
	c := dialISER(t, address).in()
	var h iscsi.BHS
	(&iscsi.NOPOut{Immediate: true, InitiatorTaskTag: 9, TargetTransferTag: iscsi.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c.statSN}).Encode(&h)
	c.mustSend(&h, []byte("hello"))
	if p := c.mustReceive(iscsi.OpNOPIn); string(p.data) != "hello" || c.maxCmdSN != c.cmdSN+defaultWindow-1 {
		t.Errorf("NOP-In with %q, MaxCmdSN %d", p.data, c.maxCmdSN)
	}
	tag, _ := c.begin(0, cdb10(0x35, 0, 0), 0, nil)
	if r := c.manage(iscsi.AbortTask, 0, tag); r != iscsi.TaskFunctionComplete {
		t.Error("abort:", r)
	}
	c.begin(0, cdbOf(0x03), 0, nil)
	if p := c.mustReceive(iscsi.OpReject); len(p.data) != iscsi.BHSLen {
		t.Errorf("reject with %d bytes", len(p.data))
	}
	if r := c.manage(iscsi.LogicalUnitReset, 0, 0); r != iscsi.TaskFunctionComplete {
		t.Error("reset:", r)
	}
	if r := c.must(0, testUnitReady(), 0, nil); r.code() != "6/29/03" {
		t.Error("after reset:", r.code())
	}
	if err := s.Async(testTarget, AsyncEvent{Event: iscsi.AsyncLogoutRequest, Parameters: [3]uint16{0, 0, 3}}); err != nil {
		t.Fatal(err)
	}
	c.mustReceive(iscsi.OpAsyncMessage)
	if err := s.Ping(testTarget); err != nil {
		t.Fatal(err)
	}
	c.mustReceive(iscsi.OpNOPIn)
	(&iscsi.LogoutRequest{CmdSN: c.cmdSN, InitiatorTaskTag: 6, ExpStatSN: c.statSN}).Encode(&h)
	c.mustSend(&h, nil)
	c.mustReceive(iscsi.OpLogoutResponse)
	c.gone()
}

// TestISERReinstatement logs in again over iSER, and over TCP: a nexus is one
// whatever its data moves by.
func TestISERReinstatement(t *testing.T) {
	s, tcp := serve(t, oneTarget(smallLUN))
	address := serveISER(t, s, IWARP{})
	old := dialISER(t, address).in()
	c := dialISER(t, address).in()
	old.gone()
	c.good(0, testUnitReady(), 0, nil)
	mustLogin(t, tcp)
	c.gone()
	if list := s.Sessions(); len(list) != 1 || list[0].ISER {
		t.Errorf("sessions %+v", list)
	}
}

// TestISERManyWrites has more data to fetch at a time than there is memory for.
func TestISERManyWrites(t *testing.T) {
	_, address := iserServer(t, oneTarget(LUN{Size: 64 << 20}), IWARP{})
	c := dialISER(t, address).in("MaxBurstLength=1048576")
	c.good(0, testUnitReady(), 0, nil)
	const n, count = 1<<20 + 512, 24
	var tags []uint32
	for i := range count {
		tag, _ := c.begin(0, cdb16(0x8a, uint64(i*n/512), n/512), 0, pattern(n, byte(i)))
		tags = append(tags, tag)
	}
	open := map[uint32]bool{}
	for _, tag := range tags {
		open[tag] = true
	}
	for range count {
		p := c.mustReceive(iscsi.OpSCSIResponse)
		if !open[p.h.InitiatorTaskTag()] || p.h[3] != 0 {
			t.Fatalf("response %x", p.h)
		}
		delete(open, p.h.InitiatorTaskTag())
		c.rdma.taken(p.h.InitiatorTaskTag(), &iscsi.SCSIResponse{})
	}
	for i := range count {
		equal(t, fmt.Sprint("write ", i), c.good(0, cdb16(0x88, uint64(i*n/512), n/512), n, nil), pattern(n, byte(i)))
	}
}

// TestISERStrict does what RFC 7145 forbids; the target ends the connection.
func TestISERStrict(t *testing.T) {
	_, address := iserServer(t, oneTarget(smallLUN), IWARP{})
	command := func(c *client, mod func(*iscsi.SCSICommand), r iscsi.ISERHeader) {
		cmd := iscsi.SCSICommand{
			Final: true, Read: true, InitiatorTaskTag: 50, ExpectedDataTransferLength: 4096, CmdSN: c.cmdSN,
			ExpStatSN: c.statSN, CDB: cdb10(0x28, 0, 8),
		}
		mod(&cmd)
		var h iscsi.BHS
		cmd.Encode(&h)
		c.rdma.next = r
		c.mustSend(&h, nil)
	}
	as := func(*iscsi.SCSICommand) {}
	writes := func(cmd *iscsi.SCSICommand) { cmd.Read, cmd.Write, cmd.CDB = false, true, cdb10(0x2a, 0, 8) }
	message := func(change func(m []byte) []byte) func(c *client) {
		return func(c *client) {
			m := make([]byte, iserHeaders)
			(&iscsi.ISERHeader{}).Encode((*[iscsi.ISERHeaderLen]byte)(m))
			(&iscsi.NOPOut{Immediate: true, InitiatorTaskTag: 9, TargetTransferTag: iscsi.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c.statSN}).
				Encode((*iscsi.BHS)(m[iscsi.ISERHeaderLen:]))
			if err := c.rdma.message(change(m)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for what, provoke := range map[string]func(c *client){
		"read without STag":  func(c *client) { command(c, as, iscsi.ISERHeader{}) },
		"write without STag": func(c *client) { command(c, writes, iscsi.ISERHeader{}) },
		"read with a write's STag": func(c *client) {
			command(c, as, iscsi.ISERHeader{HasRead: true, ReadSTag: 1, HasWrite: true, WriteSTag: 2})
		},
		"an STag that is not valid": func(c *client) { command(c, writes, iscsi.ISERHeader{HasWrite: true, WriteSTag: 0x12345678}) },
		"an STag with a NOP-Out": func(c *client) {
			c.rdma.next = iscsi.ISERHeader{HasRead: true, ReadSTag: 1}
			var h iscsi.BHS
			(&iscsi.NOPOut{Immediate: true, InitiatorTaskTag: 9, TargetTransferTag: iscsi.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c.statSN}).Encode(&h)
			c.mustSend(&h, nil)
		},
		"solicited Data-Out": func(c *client) {
			var h iscsi.BHS
			(&iscsi.DataOut{Final: true, InitiatorTaskTag: 1, TargetTransferTag: 1, ExpStatSN: c.statSN}).Encode(&h)
			c.mustSend(&h, make([]byte, 512))
		},
		"short message":    message(func(m []byte) []byte { return m[:75] }),
		"Hello":            message(func(m []byte) []byte { m[0] = 0x20; return m }),
		"data are missing": message(func(m []byte) []byte { m[iscsi.ISERHeaderLen+7] = 8; return m }),
		"AHS is missing":   message(func(m []byte) []byte { m[iscsi.ISERHeaderLen+4] = 3; return m }),
		"data left over":   message(func(m []byte) []byte { return append(m, 1, 2, 3, 4) }),
		"oversize Send":    message(func(m []byte) []byte { return append(m, make([]byte, 10000)...) }),
	} {
		t.Run(what, func(t *testing.T) {
			c := dialISER(t, address).in()
			provoke(c)
			c.gone()
		})
	}
}

// TestISERNoReads is what an initiator that answers no RDMA Reads gets: all
// but a write that needs one.
func TestISERNoReads(t *testing.T) {
	_, address := iserServer(t, oneTarget(smallLUN), IWARP{})
	c := dialISERWith(t, address, &iwarp.Provider{}, 0, iserNoZeroBased).in()
	c.immediate = 512
	c.good(0, cdb10(0x2a, 0, 1), 0, make([]byte, 512))
	c.good(0, cdb10(0x28, 0, 1), 512, nil)
	if _, err := c.command(0, cdb10(0x2a, 0, 2), 0, make([]byte, 1024)); err == nil {
		t.Error("written")
	}
}

// TestISERLoginTimeout connects and says nothing.
func TestISERLoginTimeout(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.LoginTimeout = Duration(30 * time.Millisecond)
	onBoth(t, conf, func(_ *testing.T, _ *Server, connect func() *client) { connect().gone() })
}

// TestISERPlainConnection connects without iWARP, and disappears.
func TestISERPlainConnection(t *testing.T) {
	_, address := iserServer(t, oneTarget(smallLUN), IWARP{})
	c := dial(t, address)
	if err := c.login(); err == nil {
		t.Error("logged in")
	}
	dialISER(t, address).in().good(0, testUnitReady(), 0, nil)
}

func TestListenISER(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1", "127.0.0.1:x", "192.0.2.1:1"} {
		if l, err := ListenISER(t.Context(), Portal{Address: address}); err == nil {
			_ = l.Close()
			t.Errorf("listens at %q", address)
		} else if !strings.Contains(err.Error(), "portal") {
			t.Error(err)
		}
	}
	for _, address := range []string{":0", "localhost:0"} {
		l, err := ListenISER(t.Context(), Portal{Address: address})
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
}

// TestISERDeaf has an initiator that asks for much and takes nothing in: the
// connection waits, and can be dropped all the same.
func TestISERDeaf(t *testing.T) {
	s, address := iserServer(t, oneTarget(LUN{Null: true, Size: 1 << 30}), IWARP{})
	c := dialISER(t, address).in()
	c.good(0, testUnitReady(), 0, nil)
	for range 40 {
		c.begin(0, cdb16(0x88, 0, 2048), 1<<20, nil)
	}
	c.rdma.mu.Lock() // with which its provider comes to a stop
	for sessionOf(t, s, c).RDMAWrites < 8 {
		time.Sleep(time.Millisecond)
	}
	s.DropAll()
	for len(s.Sessions()) > 0 {
		time.Sleep(time.Millisecond)
	}
	c.rdma.mu.Unlock()
	c.gone()
}

// TestISERAbort aborts writes whose data are being fetched: once that is
// answered, the target leaves their memory alone, which the client's iWARP
// makes sure of.
func TestISERAbort(t *testing.T) {
	s, address := iserServer(t, oneTarget(LUN{Size: 64 << 20}), IWARP{})
	c := dialISERWith(t, address, &iwarp.Provider{}, 1, iserNoZeroBased).in("MaxBurstLength=65536")
	c.good(0, testUnitReady(), 0, nil)
	for range 20 {
		tag, _ := c.begin(0, cdb16(0x8a, 0, 16384), 0, make([]byte, 8<<20))
		r := c.manage(iscsi.AbortTask, 0, tag)
		c.rdma.mu.Lock()
		l := c.rdma.loans[tag]
		l.over = c.rdma.conn.Revoke(l.region)
		c.rdma.mu.Unlock()
		if r != iscsi.TaskFunctionComplete {
			t.Fatal(r)
		}
		c.rdma.taken(tag, &iscsi.SCSIResponse{})
	}
	c.good(0, testUnitReady(), 0, nil)
	if n := sessionOf(t, s, c).BytesWritten; n != 0 {
		t.Errorf("%d bytes written", n)
	}
}
