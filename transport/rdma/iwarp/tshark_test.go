package iwarp

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"iscsictl/transport/rdma"
	"iscsictl/transport/rdma/rdmatest"
)

// What we send is what Wireshark's dissectors take MPA, DDP and RDMAP to be.
func TestTsharkReadsIt(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("no tshark")
	}
	file := filepath.Join(t.TempDir(), "iwarp.pcap")
	rig := rdmatest.Rig{Provider: &Provider{MULPDU: 1442}, Addr: loopback}
	port := capture(t, file, func() uint16 {
		p := rdmatest.Connect(t, rig, func(a, b *rdma.Options) { a.PrivateData, b.PrivateData = []byte("ask"), []byte("answer") })
		x, y := p.Active.Alloc(64<<10, 'a'), p.Passive.Alloc(64<<10, 'b')
		w := p.Active.Grant(1, x, rdma.RemoteWrite|rdma.RemoteRead)
		p.Active.Post(rdma.WorkRequest{Op: rdma.OpSend, Data: x.Slice(0, 76)})
		p.Passive.AwaitReceived(1)
		p.Passive.Post(
			rdma.WorkRequest{Op: rdma.OpWrite, Data: y, Remote: w},
			rdma.WorkRequest{Op: rdma.OpRead, Data: y, Remote: w},
			rdma.WorkRequest{Op: rdma.OpSendInvalidate, Data: y.Slice(0, 77), Remote: w},
		)
		p.Active.AwaitReceived(1)
		p.Passive.Post(rdma.WorkRequest{Op: rdma.OpWrite, Data: y, Remote: w}) // which ends with a Terminate
		p.Active.AwaitClosed()
		p.Passive.AwaitClosed()
		return p.Active.Conn.Info().Remote.Port()
	})
	read := func(args ...string) string {
		t.Helper()
		args = append([]string{"-r", file, "-Y", "tcp.port==" + strconv.Itoa(int(port))}, args...)
		out, err := exec.Command("tshark", args...).Output()
		if err != nil {
			t.Fatalf("tshark %v: %v", args, err)
		}
		return string(out)
	}
	all := read("-V", "-O", "iwarp_mpa,iwarp_ddp_rdmap")
	for _, want := range []string{
		"Request frame header", "Reply frame header", "OpCode: Send (", "OpCode: Write (", "OpCode: Read Request (",
		"OpCode: Read Response (", "OpCode: Send with Invalidate (", "OpCode: Terminate (",
		"Error Code for DDP Tagged Buffer: Invalid STag", "(Good CRC32)",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("tshark sees no %q", want)
		}
	}
	for _, bad := range []string{"Malformed", "Bad CRC", "Expert Info (Error"} {
		if i := strings.Index(all, bad); i >= 0 {
			t.Errorf("tshark complains: %s", all[max(0, i-300):min(len(all), i+200)])
		}
	}
}

// capture records loopback while do runs, or skips.
func capture(t *testing.T, file string, do func() uint16) uint16 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "tshark", "-q", "-i", "lo", "-s", "0", "-B", "16", "-f", "tcp", "-w", file)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	grown := func(from int64) int64 { // waits until the file is longer, and returns its length
		for ; ; time.Sleep(20 * time.Millisecond) {
			if s, err := os.Stat(file); err == nil && s.Size() > from {
				return s.Size()
			}
			select {
			case err := <-ended:
				t.Skipf("tshark may not capture: %v", err)
			default:
			}
		}
	}
	grown(0)
	port := do()
	// Packets reach the file in their order: what comes last tells of the rest.
	for marker := dialTCP(t, listenWith(t, Faults{})).LocalAddr(); !captured(file, marker); {
		time.Sleep(100 * time.Millisecond)
		if ctx.Err() != nil {
			t.Fatal("the capture does not get on")
		}
	}
	_ = cmd.Process.Signal(os.Interrupt) // or it has ended
	<-ended
	return port
}

// captured reports whether a packet from a port of this machine is in the file.
func captured(file string, from net.Addr) bool {
	filter := fmt.Sprintf("tcp.srcport==%d", addrPort(from).Port())
	out, _ := exec.Command("tshark", "-r", file, "-Y", filter).Output() // a file cut short is an error
	return len(out) > 0
}
