package target

import (
	"fmt"
	"path/filepath"
	"testing"

	"iscsictl/iscsi"
)

// TestReadWrite moves data under all combinations of what can be negotiated.
func TestReadWrite(t *testing.T) {
	dir := t.TempDir()
	conf := oneTarget(
		LUN{Number: 0, Size: 1 << 20},
		LUN{Number: 1, Size: 1 << 20, BlockSize: 4096},
		LUN{Number: 2, Size: 1 << 20, File: filepath.Join(dir, "lun")})
	conf.Targets[0].Keys = map[string]string{"MaxBurstLength": "16384", "FirstBurstLength": "8192", "MaxRecvDataSegmentLength": "4096"}
	for _, separate := range []bool{false, true} {
		conf.Targets[0].SeparateStatus = separate
		s, address := serve(t, conf)
		for bits := range 16 {
			yesNo := func(bit int) string { return [2]string{"No", "Yes"}[bits>>bit&1] }
			digest := func(bit int) string { return [2]string{"None", "CRC32C"}[bits>>bit&1] }
			keys := []string{
				"ImmediateData=" + yesNo(0), "InitialR2T=" + yesNo(1), "HeaderDigest=" + digest(2), "DataDigest=" + digest(3),
				"MaxRecvDataSegmentLength=2048", "MaxBurstLength=262144", "FirstBurstLength=65536", "MaxOutstandingR2T=3",
			}
			t.Run(fmt.Sprint(separate, keys[:4]), func(t *testing.T) {
				readWrite(t, s, address, keys, byte(bits))
			})
		}
	}
}

func readWrite(t *testing.T, s *Server, address string, keys []string, seed byte) {
	c := mustLogin(t, address, keys...)
	defer c.nc.Close()
	c.segment = 4096
	if c.answers["ImmediateData"] == "Yes" {
		c.immediate = 4095 // needs padding
	}
	if c.answers["InitialR2T"] == "No" {
		c.unsolicited = 8192 - c.immediate
	}
	for lun := range uint64(3) {
		size := 512
		if lun == 1 {
			size = 4096
		}
		for _, n := range []int{size, 4096, 8192, 12288, 131072} {
			out := pattern(n, seed+byte(n>>9)+byte(lun))
			c.good(lun<<48, cdb16(0x8a, 8, uint32(n/size)), 0, out)
			first := c.immediate + c.unsolicited
			if want := (max(n-first, 0) + 16383) / 16384; len(c.r2ts) != want {
				t.Errorf("LUN %d, %d bytes: %d R2Ts, want %d", lun, n, len(c.r2ts), want)
			}
			in := c.good(lun<<48, cdb10(0x28, 8, uint16(n/size)), uint32(n), nil)
			equal(t, fmt.Sprintf("LUN %d, %d bytes", lun, n), in, out)
			c.checkDataIn(n, 2048, 16384)
			m, err := s.Medium(testTarget, int(lun))
			if err != nil {
				t.Fatal(err)
			}
			stored := make([]byte, n)
			if _, err := m.ReadAt(stored, int64(8*size)); err != nil {
				t.Fatal(err)
			}
			equal(t, "medium", stored, out)
		}
	}
	for _, info := range s.Sessions() {
		if info.TSIH == c.tsih && (info.AckAhead != 0 || info.Commands != 30) {
			t.Errorf("session %+v", info)
		}
	}
}

// checkDataIn checks numbers, offsets and F bits of the last command's data.
func (c *client) checkDataIn(n, segment, burst int) {
	c.t.Helper()
	at := 0
	for i, d := range c.dataIn {
		if int(d.DataSN) != i || int(d.BufferOffset) != at || d.DataSegmentLength > segment {
			c.t.Fatalf("Data-In %d: %+v at %d", i, d, at)
		}
		at += d.DataSegmentLength
		if final := at == n || at%burst == 0; d.Final != final {
			c.t.Errorf("Data-In %d ends at %d of %d with F=%v", i, at, n, d.Final)
		}
	}
	if at != n {
		c.t.Errorf("%d bytes came, want %d", at, n)
	}
}

func TestNull(t *testing.T) {
	_, address := serve(t, oneTarget(LUN{Null: true, Size: 1 << 40, Pattern: 0x5a, MaxTransfer: 8 << 20}))
	c := mustLogin(t, address)
	c.immediate = 4096
	c.good(0, cdb16(0x8a, 1<<30, 64), 0, pattern(32768, 1))
	for _, n := range []int{512, 4096, 3 << 20} {
		for i, b := range c.good(0, cdb16(0x88, 1<<30, uint32(n/512)), uint32(n), nil) {
			if b != 0x5a {
				t.Fatalf("byte %d of %d is %#x", i, n, b)
			}
		}
	}
}

// TestLargeUnit uses a unit beyond what 32 bits address.
func TestLargeUnit(t *testing.T) {
	_, address := serve(t, oneTarget(LUN{Size: 3 << 40, Thin: true}))
	c := mustLogin(t, address)
	const last = 3<<40/512 - 1
	out := pattern(512, 9)
	c.good(0, cdb16(0x8a, last, 1), 0, out)
	equal(t, "last block", c.good(0, cdb16(0x88, last, 1), 512, nil), out)
	if r := c.must(0, cdb16(0x88, last, 2), 1024, nil); r.code() != "5/21/00" {
		t.Errorf("beyond the end: %#x %s", r.status, r.code())
	}
}

func TestResiduals(t *testing.T) {
	onBoth(t, oneTarget(smallLUN), func(t *testing.T, _ *Server, connect func() *client) {
		residuals(t, connect().in())
	})
}

func residuals(t *testing.T, c *client) {
	c.immediate = 8192
	tests := []struct {
		what        string
		cdb         [16]byte
		read, write int
		moved       int
		over, under bool
		residual    uint32
		status      uint8
	}{
		{"read exact", cdb10(0x28, 0, 2), 1024, 0, 1024, false, false, 0, 0},
		{"read, more expected", cdb10(0x28, 0, 2), 4096, 0, 1024, false, true, 3072, 0},
		{"read, less expected", cdb10(0x28, 0, 2), 700, 0, 700, true, false, 324, 0},
		{"read, nothing expected", cdb10(0x28, 0, 2), 0, 0, 0, true, false, 1024, 0},
		{"no data, some expected", testUnitReady(), 512, 0, 0, false, true, 512, 0},
		{"write, more expected", cdb10(0x2a, 0, 1), 0, 1024, 0, false, true, 512, 0},
		{"write, less expected", cdb10(0x2a, 0, 2), 0, 512, 0, true, false, 512, 0},
		{"inquiry, short", cdbOf(0x12, 0, 0, 0, 36), 255, 0, 36, false, true, 219, 0},
		{"error", cdb10(0x28, 1<<20, 1), 512, 0, 0, false, true, 512, 2},
		{"write that is a read", cdb10(0x28, 0, 1), 0, 512, 0, false, true, 512, 2},
		{"read that is a write", cdb10(0x2a, 0, 1), 512, 0, 0, false, true, 512, 2},
	}
	for _, tt := range tests {
		r := c.must(0, tt.cdb, uint32(tt.read), pattern(tt.write, 3))
		if len(r.data) != tt.moved || r.over != tt.over || r.under != tt.under || r.residual != tt.residual || r.status != tt.status {
			t.Errorf("%s: %d bytes, overflow %v, underflow %v, residual %d, status %#x", tt.what, len(r.data), r.over, r.under, r.residual, r.status)
		}
	}
}

// TestStrict does what RFC 7143 forbids; the target ends the connection.
func TestStrict(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.Targets[0].Keys = map[string]string{"FirstBurstLength": "1024", "MaxBurstLength": "2048"}
	_, address := serve(t, conf)
	write := func(c *client, mod func(*iscsi.SCSICommand), data []byte) {
		c.itt++
		cmd := iscsi.SCSICommand{
			Final: true, Write: true, InitiatorTaskTag: c.itt, ExpectedDataTransferLength: 4096, CmdSN: c.cmdSN,
			ExpStatSN: c.statSN, CDB: cdb10(0x2a, 0, 8),
		}
		mod(&cmd)
		var h iscsi.BHS
		cmd.Encode(&h)
		c.mustSend(&h, data)
	}
	dataOut := func(c *client, d iscsi.DataOut, n int) {
		d.InitiatorTaskTag = c.itt
		var h iscsi.BHS
		d.Encode(&h)
		c.mustSend(&h, make([]byte, n))
	}
	unsolicited := func(d iscsi.DataOut, n int) func(c *client) {
		return func(c *client) {
			write(c, func(cmd *iscsi.SCSICommand) { cmd.Final = false }, nil)
			d.TargetTransferTag = iscsi.ReservedTag
			dataOut(c, d, n)
		}
	}
	solicited := func(d iscsi.DataOut, n int) func(c *client) {
		return func(c *client) {
			write(c, func(*iscsi.SCSICommand) {}, nil)
			r2t := c.mustReceive(iscsi.OpR2T)
			d.TargetTransferTag += r2t.h.TargetTransferTag()
			dataOut(c, d, n)
		}
	}
	tests := map[string]func(c *client){
		"CmdSN with a gap":          func(c *client) { write(c, func(cmd *iscsi.SCSICommand) { cmd.CmdSN += 2 }, nil) },
		"immediate data over burst": func(c *client) { write(c, func(*iscsi.SCSICommand) {}, make([]byte, 1028)) },
		"immediate data over length": func(c *client) {
			write(c, func(cmd *iscsi.SCSICommand) { cmd.ExpectedDataTransferLength = 4 }, make([]byte, 8))
		},
		"unsolicited over burst": unsolicited(iscsi.DataOut{Final: true}, 2048),
		"unsolicited at offset":  unsolicited(iscsi.DataOut{Final: true, BufferOffset: 512}, 512),
		"unsolicited DataSN":     unsolicited(iscsi.DataOut{Final: true, DataSN: 1}, 512),
		"solicited DataSN":       solicited(iscsi.DataOut{Final: true, DataSN: 1}, 2048),
		"solicited at offset":    solicited(iscsi.DataOut{Final: true, BufferOffset: 4}, 512),
		"solicited beyond":       solicited(iscsi.DataOut{Final: true}, 2052),
		"solicited without F":    solicited(iscsi.DataOut{}, 2048),
		"solicited, unknown tag": solicited(iscsi.DataOut{Final: true, TargetTransferTag: 5}, 2048),
		"oversize":               func(c *client) { write(c, func(*iscsi.SCSICommand) {}, make([]byte, 262148)) },
		"ExpStatSN ahead":        func(c *client) { write(c, func(cmd *iscsi.SCSICommand) { cmd.ExpStatSN += 1 }, nil) },
		"login again": func(c *client) {
			var h iscsi.BHS
			(&iscsi.LoginRequest{CurrentStage: iscsi.StageOperational, CmdSN: c.cmdSN}).Encode(&h)
			c.mustSend(&h, nil)
		},
		"NOP-Out without ping": func(c *client) {
			var h iscsi.BHS
			(&iscsi.NOPOut{Immediate: true, InitiatorTaskTag: iscsi.ReservedTag, TargetTransferTag: 3, CmdSN: c.cmdSN}).Encode(&h)
			c.mustSend(&h, nil)
		},
	}
	for what, provoke := range tests {
		t.Run(what, func(t *testing.T) {
			c := mustLogin(t, address, "InitialR2T=No", "MaxBurstLength=65536", "FirstBurstLength=65536")
			provoke(c)
			c.gone()
		})
	}
}

// TestShortBurst ends an R2T's data early: the command fails.
func TestShortBurst(t *testing.T) {
	_, address := serve(t, oneTarget(smallLUN))
	c := mustLogin(t, address)
	tag, _ := c.begin(0, cdb10(0x2a, 0, 8), 0, make([]byte, 4096))
	q := c.mustReceive(iscsi.OpR2T)
	c.dataOut(tag, q.h.TargetTransferTag(), make([]byte, 4096), span{0, 1024})
	r, err := c.finish(tag, 0, nil)
	if err != nil || r.code() != "b/4b/00" {
		t.Errorf("%v, %#x %s", err, r.status, r.code())
	}
}

// TestWindow checks that waiting commands take room in the command window, and
// that what is outside of it is ignored.
func TestWindow(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.Targets[0].Window = 4
	_, address := serve(t, conf)
	c := mustLogin(t, address)
	out := make([]byte, 512)
	var tags []uint32
	var ttts []uint32
	top := c.cmdSN + 3
	for range 4 {
		tag, _ := c.begin(0, cdb10(0x2a, 0, 1), 0, out)
		q := c.mustReceive(iscsi.OpR2T)
		if c.maxCmdSN != top {
			t.Errorf("MaxCmdSN %d, want %d", c.maxCmdSN, top)
		}
		tags, ttts = append(tags, tag), append(ttts, q.h.TargetTransferTag())
	}
	c.begin(0, testUnitReady(), 0, nil) // CmdSN is above MaxCmdSN: ignored
	c.cmdSN--
	for i := range tags {
		c.dataOut(tags[i], ttts[i], out, span{0, 512})
		if _, err := c.finish(tags[i], 0, nil); err != nil {
			t.Fatal(err)
		}
		if c.maxCmdSN != top+uint32(i)+1 {
			t.Errorf("MaxCmdSN %d after %d commands, want %d", c.maxCmdSN, i+1, top+uint32(i)+1)
		}
	}
	c.good(0, testUnitReady(), 0, nil)
}
