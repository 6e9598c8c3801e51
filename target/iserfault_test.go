package target

import (
	"net"
	"strings"
	"testing"
	"time"

	"iscsictl/iscsi"
	"iscsictl/transport/rdma/iwarp"
)

// iserFaulty connects to a server with faults and logs in; the first command
// is done, so that a later one finds an earlier STag.
func iserFaulty(t *testing.T, w IWARP, f ...Fault) *client {
	t.Helper()
	conf := oneTarget(LUN{Number: 0, Size: 8 << 20})
	conf.Faults = f
	_, address := iserServer(t, conf, w)
	return dialISER(t, address).in()
}

// TestISERFaultRDMA checks what this side's iWARP says of RDMA that should not
// have come.
func TestISERFaultRDMA(t *testing.T) {
	const n = 16384
	for _, tt := range []struct {
		fault       Fault
		read, write string // in the reason for which the connection ends; empty: it goes on
	}{
		{Fault{Action: ActionBadSTag}, "RDMA Write to the STag", "RDMA Read from the STag"},
		{Fault{Action: ActionStaleSTag}, "RDMA Write to the STag", "RDMA Read from the STag"},
		{Fault{Action: ActionLateRDMA}, "RDMA Write to the STag", "RDMA Read from the STag"},
		{Fault{Action: ActionDataBeyond}, "outside of the region", ""},
		{Fault{Action: ActionR2T, R2T: R2TShape{Burst: 4096, Beyond: 4}}, "", "outside of the region"},
		{Fault{Action: ActionR2T, R2T: R2TShape{Burst: 4096, Overlap: 512, Outstanding: 3, Reverse: true}}, "", ""},
		{Fault{Action: ActionDataReverse}, "", ""},
		{Fault{Action: ActionInvalidateOther, PDU: "scsi-response", Nth: 2}, "which is not valid", "which is not valid"},
	} {
		for _, write := range []bool{false, true} {
			f := tt.fault
			if f.PDU == "" {
				f.Nth = 2
			}
			c := iserFaulty(t, IWARP{}, f)
			c.good(0, cdb10(0x28, 0, 8), 4096, nil)
			want, out, in, cdb := tt.read, []byte(nil), uint32(n), cdb10(0x28, 0, n/512)
			if write {
				want, out, in, cdb = tt.write, pattern(n, 7), 0, cdb10(0x2a, 0, n/512)
			}
			r, err := c.command(0, cdb, in, out)
			if want == "" {
				if err != nil || r.status != 0 || write && !stored(c, out) {
					t.Errorf("%s, write %v: %v, status %#x", f.Action, write, err, r.status)
				}
				continue
			}
			for err == nil { // the response may be there before
				_, err = c.receive()
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s, write %v: %v", f.Action, write, err)
			}
		}
	}
}

func stored(c *client, want []byte) bool {
	return string(c.good(0, cdb10(0x28, 0, uint16(len(want)/512)), uint32(len(want)), nil)) == string(want)
}

func TestISERFaultShort(t *testing.T) {
	c := iserFaulty(t, IWARP{}, Fault{Action: ActionDataShort, Command: "read"})
	out := pattern(8192, 3)
	c.good(0, cdb10(0x2a, 0, 16), 0, out)
	r := c.must(0, cdb10(0x28, 0, 16), 8192, nil)
	if r.status != 0 || r.under || string(r.data[:4096]) != string(out[:4096]) || r.data[4096] != 0 || r.data[8191] != 0 {
		t.Errorf("status %#x, %d bytes", r.status, len(r.data))
	}
}

func TestISERFaultPDU(t *testing.T) {
	// PDUs that belong to TCP.
	c := iserFaulty(t, IWARP{}, Fault{Action: ActionPlainData, Times: 2}, Fault{Action: ActionR2T, Nth: 3, R2T: R2TShape{ForRead: true}})
	c.begin(0, cdb10(0x28, 0, 8), 4096, nil)
	if p := c.mustReceive(iscsi.OpDataIn); len(p.data) != 4096 {
		t.Errorf("Data-In with %d bytes", len(p.data))
	}
	c.begin(0, cdb10(0x2a, 0, 8), 0, make([]byte, 4096))
	c.mustReceive(iscsi.OpR2T)
	c.begin(0, cdb10(0x28, 0, 8), 4096, nil)
	c.mustReceive(iscsi.OpR2T)
	c.mustReceive(iscsi.OpSCSIResponse)

	// Messages that are wrong.
	for _, tt := range []struct {
		fault Fault
		want  string
	}{
		{Fault{Action: ActionGarbage, PDU: "scsi-command", Bytes: 100}, "iSER header"},
		{Fault{Action: ActionDropAfter, PDU: "scsi-response", Bytes: 20}, "a message of 48 bytes"},
		{Fault{Action: ActionOversize, PDU: "scsi-response", Bytes: 1000}, "1000 bytes of data"},
		{Fault{Action: ActionOversizeSend, PDU: "scsi-response"}, "into a receive of"},
		{Fault{Action: ActionUnknownITT, PDU: "scsi-response"}, "response for task"},
		{Fault{Action: ActionStatSN, PDU: "scsi-response", Delta: 7}, "StatSN"},
		{Fault{Action: ActionDrop, PDU: "scsi-command"}, "closed"},
		{Fault{Action: ActionDrop, PDU: "scsi-response"}, "closed"},
	} {
		c := iserFaulty(t, IWARP{}, tt.fault)
		if _, err := c.command(0, testUnitReady(), 0, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.fault.Action, err)
		}
	}
}

// TestISERFaultInvalidate has an STag invalidated though the initiator does not
// take that.
func TestISERFaultInvalidate(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.Faults = []Fault{{Action: ActionInvalidate}}
	_, address := iserServer(t, conf, IWARP{})
	c := dialISERWith(t, address, &iwarp.Provider{}, 4, iserNoZeroBased|iserNoSendInvalidate).in()
	for _, want := range []bool{true, false} {
		if r := c.must(0, cdb10(0x28, 0, 1), 512, nil); r.invalidated != want {
			t.Errorf("invalidated %v, want %v", r.invalidated, want)
		}
	}
}

// TestISERFaultInvalidateValid invalidates the STag of a command that is with
// the target, so that iWARP has nothing against it.
func TestISERFaultInvalidateValid(t *testing.T) {
	c := iserFaulty(t, IWARP{}, Fault{Action: ActionHold, Command: "read"}, Fault{Action: ActionInvalidateOther})
	c.begin(0, cdb10(0x28, 0, 8), 4096, nil)
	_, err := c.command(0, cdb10(0x28, 8, 8), 4096, nil)
	for err == nil {
		_, err = c.receive()
	}
	if !strings.Contains(err.Error(), "of another command") {
		t.Error(err)
	}
}

func TestISERFaultAnswer(t *testing.T) {
	c := iserFaulty(t, IWARP{}, Fault{Action: ActionAnswer, Text: "RDMAExtensions=No"}, Fault{Action: ActionAnswer, Text: "HeaderDigest=CRC32C"})
	if c.answers["RDMAExtensions"] != "No" || c.answers["HeaderDigest"] != "CRC32C" || c.answers["TargetRecvDataSegmentLength"] != "8192" {
		t.Error(c.answers)
	}
	conf := oneTarget(smallLUN)
	conf.Targets[0].Keys = map[string]string{"RDMAExtensions": "No"}
	_, address := iserServer(t, conf, IWARP{})
	if c := dialISER(t, address).in(); c.answers["RDMAExtensions"] != "No" {
		t.Error(c.answers)
	}
}

func TestISERFaultStates(t *testing.T) {
	const pause = 50 * time.Millisecond
	c := iserFaulty(t, IWARP{},
		Fault{Action: ActionDelay, Command: "0x00", Delay: Duration(pause)},
		Fault{Action: ActionDelay, PDU: "scsi-response", Nth: 2, Delay: Duration(pause)},
		Fault{Action: ActionHold, Command: "write", Delay: Duration(pause)},
		Fault{Action: ActionHold, Command: "read", Delay: Duration(pause)},
		Fault{Action: ActionSilence, Command: "0x35"})
	start := time.Now()
	c.good(0, testUnitReady(), 0, nil)
	c.good(0, testUnitReady(), 0, nil)
	out := pattern(65536, 2)
	c.good(0, cdb10(0x2a, 0, 128), 0, out)
	if !stored(c, out) {
		t.Error("held write and read")
	}
	if d := time.Since(start); d < 4*pause {
		t.Errorf("it took %v", d)
	}
	c.rdma.deadline = time.Now().Add(pause)
	_, err := c.command(0, cdb10(0x35, 0, 0), 0, nil)
	if e, ok := err.(net.Error); !ok || !e.Timeout() {
		t.Errorf("silence: %v", err)
	}
}

// TestISERFaultIWARP has the layers below misbehave.
func TestISERFaultIWARP(t *testing.T) {
	for _, tt := range []struct {
		what string
		w    IWARP
		want string
	}{
		{"CRC", IWARP{CorruptCRC: 3}, "CRC"},
		{"MSN", IWARP{SkipMSN: 3}, "message sequence number"},
		{"reads", IWARP{ExceedReads: true}, "RDMA Reads at a time"},
	} {
		conf := oneTarget(LUN{Number: 0, Size: 8 << 20})
		conf.Faults = []Fault{{Action: ActionR2T, Times: -1, R2T: R2TShape{Burst: 65536, Outstanding: 64}}}
		_, address := iserServer(t, conf, tt.w)
		c := dialISERWith(t, address, &iwarp.Provider{}, 1, iserNoZeroBased).in()
		var err error
		for range 3 {
			if err == nil {
				_, err = c.command(0, cdb16(0x8a, 0, 8192), 0, pattern(4<<20, 1))
			}
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
	_, address := iserServer(t, oneTarget(smallLUN), IWARP{Markers: true})
	if _, err := tryISER(t, address, &iwarp.Provider{}, 4); err == nil || !strings.Contains(err.Error(), "markers") {
		t.Errorf("markers: %v", err)
	}
	_, address = iserServer(t, oneTarget(smallLUN), IWARP{Revision: 1, NoCRC: true})
	c := dialISERWith(t, address, &iwarp.Provider{NoCRC: true}, 4, iserNoZeroBased).in()
	c.good(0, cdb10(0x28, 0, 1), 512, nil)
	if d := c.rdma.conn.Info().Detail; !strings.Contains(d, "MPA 1, no CRC") {
		t.Error(d)
	}
}
