package target

import (
	"io"
	"testing"
	"time"

	"iscsictl/iscsi"
)

// feed is a connection that delivers given bytes and drops what it is sent.
type feed struct {
	replay
	b []byte
}

func (f *feed) Read(p []byte) (int, error) {
	if len(f.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, f.b[:min(len(f.b), 1500)])
	f.b = f.b[n:]
	return n, nil
}

func fuzzServer(f *testing.F) *Server {
	f.Helper()
	conf := oneTarget(LUN{Number: 0, Size: 64 << 10, Thin: true}, LUN{Number: 1, Null: true, Size: 1 << 30, MaxTransfer: 64 << 10})
	conf.Targets[0].CHAP = &CHAP{Users: []Credential{{"u", "s"}}}
	conf.LoginTimeout = Duration(time.Minute)
	s, err := New(conf)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	return s
}

// seed builds PDUs from their encoders, with data.
func seed(list ...any) []byte {
	var b []byte
	for i := 0; i < len(list); i += 2 {
		var h iscsi.BHS
		list[i].(interface{ Encode(*iscsi.BHS) }).Encode(&h)
		data, _ := list[i+1].([]byte)
		h.SetDataSegmentLength(len(data))
		b = append(append(append(b, h[:]...), data...), make([]byte, iscsi.Pad(len(data)))...)
	}
	return b
}

// FuzzLogin sends anything to a connection that is not logged in.
func FuzzLogin(f *testing.F) {
	s := fuzzServer(f)
	req := &iscsi.LoginRequest{Transit: true, NextStage: iscsi.StageOperational, InitiatorTaskTag: 1, CmdSN: 1}
	f.Add(seed(req, normal("AuthMethod=CHAP,None"), &iscsi.LoginRequest{InitiatorTaskTag: 1, CmdSN: 1, ExpStatSN: 2}, pairs("CHAP_A=7,5"),
		&iscsi.LoginRequest{InitiatorTaskTag: 1, CmdSN: 1, ExpStatSN: 3}, pairs("CHAP_N=u", "CHAP_R=0x00")))
	f.Add(seed(&iscsi.LoginRequest{Transit: true, CurrentStage: 1, NextStage: 3}, pairs("InitiatorName=i", "SessionType=Discovery"),
		&iscsi.TextRequest{Final: true, InitiatorTaskTag: 1, TargetTransferTag: iscsi.ReservedTag, ExpStatSN: 2}, pairs("SendTargets=All")))
	f.Fuzz(func(_ *testing.T, b []byte) {
		c := newStream(s, &feed{b: b}, 1, 1)
		c.run()
	})
}

// FuzzFullFeature sends anything to a session.
func FuzzFullFeature(f *testing.F) {
	s := fuzzServer(f)
	write := func(sn uint32, cdb [16]byte, n int) *iscsi.SCSICommand {
		return &iscsi.SCSICommand{
			Final: true, Write: true, InitiatorTaskTag: 9, CmdSN: sn, ExpectedDataTransferLength: uint32(n), CDB: cdb,
		}
	}
	f.Add(seed(write(0, cdb10(0x2a, 0, 4), 2048), make([]byte, 1024),
		&iscsi.DataOut{Final: true, InitiatorTaskTag: 9, TargetTransferTag: 1, BufferOffset: 1024}, make([]byte, 1024)))
	f.Add(seed(write(0, [16]byte{0x42, 8: 24}, 24), make([]byte, 24), write(1, cdb10(0x41, 0, 4), 512), make([]byte, 512)))
	f.Add(seed(&iscsi.SCSICommand{Final: true, Read: true, ExpectedDataTransferLength: 4096, CDB: cdb16(0x88, 1<<20, 8), LUN: 1 << 48}, nil,
		&iscsi.NOPOut{CmdSN: 1, InitiatorTaskTag: 3, TargetTransferTag: iscsi.ReservedTag}, []byte("ping"),
		&iscsi.TaskManagementRequest{Immediate: true, CmdSN: 2, Function: iscsi.LogicalUnitReset}, nil,
		&iscsi.TextRequest{Final: true, CmdSN: 2, InitiatorTaskTag: 4, TargetTransferTag: iscsi.ReservedTag}, pairs("SendTargets="),
		&iscsi.LogoutRequest{CmdSN: 3}, nil))
	for _, op := range []byte{0x12, 0x1a, 0x5a, 0xa0, 0xa3, 0x9e, 0x03} {
		f.Add(seed(&iscsi.SCSICommand{Final: true, Read: true, ExpectedDataTransferLength: 255, CDB: [16]byte{op, 4: 255, 9: 255}}, nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newStream(s, &feed{b: b}, 1, 1)
		n := newNegotiation(s.nodes[0].own, false, false)
		n.declared = true
		n.value[keyInitialR2T] = 0
		p := n.params()
		p.HeaderDigest, p.DataDigest = false, false
		c.login = nil
		c.session = &session{node: s.nodes[0], params: p, tasks: make(map[uint32]*task)}
		c.mu.Lock()
		defer c.mu.Unlock()
		_ = c.serve()
		if len(c.session.tasks) > defaultWindow+moreImmediate {
			t.Errorf("%d tasks wait", len(c.session.tasks))
		}
	})
}
