package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"iscsictl/iscsi"
)

// The limit is what two processes reach that move the bytes of the same requests
// over a TCP connection and do nothing else: PDUs of the size of a SCSI Command,
// with the data of a write, one way, and answers of the size of a Data-In or of a
// SCSI Response the other. They read as much as there is, and write all that it
// leads to at once. Here it is in Go, and in peers/bareloop.c in C.

const (
	limitServer = "limit-server"
	limitClient = "limit-client"
	// limitBuffer is how much is read or written at once, in bytes.
	limitBuffer = 1 << 20
	// limitSamples is how many latencies are kept.
	limitSamples = 1 << 20
)

// helloLen is what a connection begins with: the bytes of a request and whether
// it writes, as two big-endian numbers.
const helloLen = 8

// roles are what this program is to be, when its first argument says so.
var roles = map[string]func(args []string) error{
	limitServer:   serveLimit,
	limitClient:   askLimit,
	bareInitiator: runBareInitiator,
}

// playRole runs a role, if the arguments ask for one.
func playRole(args []string) bool {
	if len(args) == 0 || roles[args[0]] == nil {
		return false
	}
	if err := roles[args[0]](args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	return true
}

// serveLimit answers on an address that it writes to a file.
func serveLimit(args []string) error {
	if len(args) != 1 {
		return errors.New("want the file for the address")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := os.WriteFile(args[0]+".new", []byte(l.Addr().String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(args[0]+".new", args[0]); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		answer(c) // until the client ends, as it does
		c.Close()
	}
}

// sizes are the bytes of a request and of its answer.
func sizes(block int, write bool) (ask, reply int) {
	if write {
		return iscsi.BHSLen + block, iscsi.BHSLen
	}
	return iscsi.BHSLen, iscsi.BHSLen + block
}

// put writes n bytes from a buffer that is used again and again.
func put(c net.Conn, buf []byte, n int) error {
	for n > 0 {
		k, err := c.Write(buf[:min(n, len(buf))])
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// answer answers requests until the connection ends.
func answer(c net.Conn) {
	in, out := make([]byte, limitBuffer), make([]byte, limitBuffer)
	if _, err := io.ReadFull(c, in[:helloLen]); err != nil {
		return
	}
	ask, reply := sizes(int(binary.BigEndian.Uint32(in)), binary.BigEndian.Uint32(in[4:]) != 0)
	for have := 0; ; have %= ask {
		n, err := c.Read(in)
		if err != nil {
			return
		}
		have += n
		if put(c, out, have/ask*reply) != nil {
			return
		}
	}
}

// askLimit keeps requests outstanding; the arguments are host, port, read or
// write, bytes, depth and seconds.
func askLimit(args []string) error {
	if len(args) != 6 {
		return errors.New("want HOST PORT read|write BLOCK DEPTH SECONDS")
	}
	block, err1 := strconv.Atoi(args[3])
	depth, err2 := strconv.Atoi(args[4])
	length, err3 := strconv.Atoi(args[5])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	c, err := net.Dial("tcp", net.JoinHostPort(args[0], args[1]))
	if err != nil {
		return err
	}
	defer c.Close()
	return askFor(c, row{block: block, write: args[2] == "write", depth: depth}, time.Duration(length)*time.Second, os.Stdout)
}

// askFor is the client's loop. It receives to as much memory as is outstanding, as
// whoever wants the data has.
func askFor(c net.Conn, r row, length time.Duration, report io.Writer) error {
	hello := binary.BigEndian.AppendUint32(nil, uint32(r.block))
	flag := uint32(0)
	if r.write {
		flag = 1
	}
	if _, err := c.Write(binary.BigEndian.AppendUint32(hello, flag)); err != nil {
		return err
	}
	ask, reply := sizes(r.block, r.write)
	in, out := filled(max(reply*r.depth, limitBuffer)), filled(max(ask*r.depth, limitBuffer))
	latencies := make([]time.Duration, 0, limitSamples)
	start := time.Now()
	var elapsed, sent time.Duration
	requests := 0
	for at, have, due := 0, 0, r.depth; elapsed < length || requests == 0; {
		if due > 0 {
			sent = elapsed
			if err := put(c, out, due*ask); err != nil {
				return err
			}
		}
		n, err := c.Read(in[at:])
		if err != nil {
			return err
		}
		at = (at + n) % len(in)
		have += n
		due = have / reply
		have -= due * reply
		requests += due
		elapsed = time.Since(start)
		if r.depth == 1 && due > 0 && len(latencies) < limitSamples {
			latencies = append(latencies, elapsed-sent)
		}
	}
	return tell(report, requests, elapsed, latencies)
}

// filled makes memory that is there.
func filled(n int) []byte { return slices.Repeat([]byte{1}, n) }

// tell reports as iscsibench does.
func tell(w io.Writer, requests int, elapsed time.Duration, latencies []time.Duration) error {
	slices.Sort(latencies)
	at := func(q float64) float64 {
		if len(latencies) == 0 {
			return 0
		}
		return float64(latencies[int(q*float64(len(latencies)-1))].Nanoseconds()) / 1000
	}
	_, err := fmt.Fprintf(w, `{"requests": %d, "requests_per_second": %f, "latency_microseconds": {"p50": %f, "p99": %f, "p99_9": %f}}`+"\n",
		requests, float64(requests)/elapsed.Seconds(), at(0.5), at(0.99), at(0.999))
	return err
}

// startLimit starts a limit's server, of Go or of C, and returns its client.
func (s *setup) startLimit(name string, server, client []string) (contender, *server, error) {
	ready := filepath.Join(s.dir, "ready."+filepath.Base(server[0])+".limit")
	_ = os.Remove(ready) // of one before
	process, err := startServer(append(server, ready))
	if err != nil {
		return contender{}, nil, err
	}
	var address []byte
	if err := eventually(s.ctx, func() (err error) { address, err = os.ReadFile(ready); return err }); err != nil {
		return contender{}, nil, process.failed(err)
	}
	host, port, err := net.SplitHostPort(string(address))
	return contender{
		name: name, target: process, parse: parseReport,
		argv: func(r row) []string {
			return append(slices.Clip(client), host, port, r.direction(), strconv.Itoa(r.block), strconv.Itoa(r.depth), s.seconds())
		},
	}, process, err
}

// limits starts the bare loops that there are.
func (s *setup) limits() (contenders []contender, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	var started []*server
	stop = func() {
		for _, p := range started {
			p.stop()
		}
	}
	for _, l := range []struct{ name, program, server, client string }{
		{"bare loop, Go", self, limitServer, limitClient},
		{"bare loop, C", s.peers.bareLoop, "server", "client"},
	} {
		if l.program == "" {
			continue
		}
		c, process, err := s.startLimit(l.name, []string{l.program, l.server}, []string{l.program, l.client})
		if err != nil {
			stop()
			return nil, nil, err
		}
		started = append(started, process)
		contenders = append(contenders, c)
	}
	return contenders, stop, nil
}
