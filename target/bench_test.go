package target

import (
	"io"
	"net"
	"runtime"
	"testing"

	"iscsictl/iscsi"
)

// replay is a connection that delivers the same commands again and again and
// drops what it is sent. The CmdSNs go on.
type replay struct {
	net.Conn
	pdus  []byte // SCSI commands of 48 bytes, perhaps with data of size bytes
	size  int
	left  int // commands
	at    int
	cmdSN uint32
	wrote int64
}

func (r *replay) Read(p []byte) (int, error) {
	step := iscsi.BHSLen + r.size
	if r.at == 0 {
		for i := 0; i < len(r.pdus); i += step {
			if r.left == 0 {
				r.pdus = r.pdus[:i]
				break
			}
			r.left--
			b := r.pdus[i+24:]
			b[0], b[1], b[2], b[3] = byte(r.cmdSN>>24), byte(r.cmdSN>>16), byte(r.cmdSN>>8), byte(r.cmdSN)
			r.cmdSN++
		}
	}
	if len(r.pdus) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.pdus[r.at:])
	r.at = (r.at + n) % len(r.pdus)
	return n, nil
}

func (r *replay) Write(p []byte) (int, error) { r.wrote += int64(len(p)); return len(p), nil }
func (r *replay) Close() error                { return nil }
func (r *replay) RemoteAddr() net.Addr        { return &net.TCPAddr{} }
func (r *replay) LocalAddr() net.Addr         { return &net.TCPAddr{} }

// session makes a connection in full-feature phase that carries out count
// commands.
func (r *replay) session(t testing.TB, l LUN, cdb [16]byte, size, count int) *conn {
	t.Helper()
	s, err := New(oneTarget(l))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	cmd := iscsi.SCSICommand{
		Final: true, Read: cdb[0] == 0x28, Write: cdb[0] == 0x2a, Attribute: iscsi.Simple,
		InitiatorTaskTag: 1, ExpStatSN: 1, CDB: cdb, DataSegmentLength: size,
	}
	if cmd.Read || cmd.Write {
		cmd.ExpectedDataTransferLength = 4096
	}
	var h iscsi.BHS
	cmd.Encode(&h)
	r.size, r.left = size, count
	for range 32 {
		r.pdus = append(append(r.pdus, h[:]...), make([]byte, size)...)
	}
	c := newStream(s, r, 1, 1)
	n := newNegotiation(s.nodes[0].own, false, false)
	n.declared = true
	c.login = nil
	c.session = &session{node: s.nodes[0], params: n.params(), tasks: make(map[uint32]*task)}
	return c
}

// TestNoAllocation carries out commands and counts allocations: there are none
// for each, only some for the first.
func TestNoAllocation(t *testing.T) {
	for _, tt := range []struct {
		what string
		lun  LUN
		cdb  [16]byte
		size int
	}{
		{"read of a null unit", LUN{Null: true, Size: 1 << 30}, cdb10(0x28, 0, 8), 0},
		{"read of memory", LUN{Size: 1 << 20}, cdb10(0x28, 0, 8), 0},
		{"write to a null unit", LUN{Null: true, Size: 1 << 30}, cdb10(0x2a, 0, 8), 4096},
		{"write to memory", LUN{Size: 1 << 20}, cdb10(0x2a, 0, 8), 4096},
		{"test unit ready", LUN{Size: 1 << 20}, testUnitReady(), 0},
	} {
		const count = 20000
		r := &replay{}
		c := r.session(t, tt.lun, tt.cdb, tt.size, count)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c.mu.Lock()
		err := c.serve()
		c.mu.Unlock()
		if err != io.EOF {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		got := after.Mallocs - before.Mallocs
		if n := c.session.counters.commands.Load(); n != count {
			t.Fatalf("%s: %d commands", tt.what, n)
		}
		if got > count/100 {
			t.Errorf("%s: %v allocations for %d commands", tt.what, got, count)
		}
	}
}

func BenchmarkReadNull(b *testing.B) {
	r := &replay{}
	c := r.session(b, LUN{Null: true, Size: 1 << 30}, cdb10(0x28, 0, 8), 0, b.N)
	b.SetBytes(4096)
	b.ReportAllocs()
	b.ResetTimer()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.serve(); err != io.EOF {
		b.Fatal(err)
	}
}
