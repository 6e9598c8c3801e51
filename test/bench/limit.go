package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"iscsictl/iscsi"
)

// The limit is what two processes reach that move the bytes of the same reads
// over a TCP connection and do nothing else: requests of the size of a SCSI
// Command PDU one way, and answers of the size of a Data-In PDU the other. They
// read as much as there is, and write all that it leads to at once.

const (
	limitServer = "limit-server"
	limitClient = "limit-client"
	// limitBuffer is how much is read or written at once, in bytes.
	limitBuffer = 1 << 20
)

// limitRole runs one of the two, where the arguments say so.
func limitRole(args []string) bool {
	var err error
	switch {
	case len(args) == 2 && args[0] == limitServer:
		err = serveLimit(args[1])
	case len(args) == 5 && args[0] == limitClient:
		err = askLimit(args[1:])
	default:
		return false
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	return true
}

// serveLimit answers on an address that it writes to a file. Each connection
// begins with one byte: the answers' data in units of 4 KiB.
func serveLimit(readyFile string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := os.WriteFile(readyFile+".new", []byte(l.Addr().String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(readyFile+".new", readyFile); err != nil {
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

// answer answers requests until the connection ends.
func answer(c net.Conn) {
	in, out := make([]byte, 64<<10), make([]byte, limitBuffer)
	if _, err := c.Read(in[:1]); err != nil {
		return
	}
	size := iscsi.BHSLen + int(in[0])<<12
	for have := 0; ; {
		n, err := c.Read(in)
		if err != nil {
			return
		}
		have += n
		for due := have / iscsi.BHSLen * size; due > 0; {
			n, err := c.Write(out[:min(due, len(out)/size*size)])
			if err != nil {
				return
			}
			due -= n
		}
		have %= iscsi.BHSLen
	}
}

// askLimit keeps requests outstanding; the arguments are address, bytes, depth
// and seconds. It prints how many requests there were, and the seconds.
func askLimit(args []string) error {
	block, err1 := strconv.Atoi(args[1])
	depth, err2 := strconv.Atoi(args[2])
	length, err3 := time.ParseDuration(args[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	n, elapsed, err := askFor(c, block, depth, length)
	fmt.Println(n, elapsed.Seconds())
	return err
}

// askFor is the client's loop.
func askFor(c net.Conn, block, depth int, length time.Duration) (requests int, elapsed time.Duration, err error) {
	in, out := make([]byte, limitBuffer), make([]byte, depth*iscsi.BHSLen)
	if _, err := c.Write([]byte{byte(block >> 12)}); err != nil {
		return 0, 0, err
	}
	size := iscsi.BHSLen + block
	start := time.Now()
	for have, due := 0, depth; elapsed < length || requests == 0; elapsed = time.Since(start) {
		if due > 0 {
			if _, err := c.Write(out[:due*iscsi.BHSLen]); err != nil {
				return 0, 0, err
			}
		}
		n, err := c.Read(in)
		if err != nil {
			return 0, 0, err
		}
		have += n
		due = have / size
		have -= due * size
		requests += due
	}
	return requests, elapsed, nil
}

// bareLoop is the limit's client.
var bareLoop = client{
	name: "bare loop",
	argv: func(s *setup, t *target, r row) []string {
		self, _ := os.Executable() // on Linux, /proc/self/exe
		return []string{self, limitClient, t.portal, strconv.Itoa(r.block), strconv.Itoa(r.depth), s.time.String()}
	},
	requests: func(_ *setup, stdout []byte) (n, rate float64, err error) {
		var seconds float64
		_, err = fmt.Sscan(string(stdout), &n, &seconds)
		if err == nil && seconds > 0 {
			rate = n / seconds
		}
		return n, rate, err
	},
}

// startLimit starts the limit's server.
func startLimit(s *setup) (*target, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ready := s.dir + "/limit"
	process, err := startServer([]string{self, limitServer, ready})
	if err != nil {
		return nil, err
	}
	var address []byte
	if err := eventually(s.ctx, func() (err error) { address, err = os.ReadFile(ready); return err }); err != nil {
		return nil, process.failed(err)
	}
	return &target{server: process, name: "bare loop", portal: strings.TrimSpace(string(address))}, nil
}

// againstLimit lets ours on a target and the bare loop take turns.
func (s *setup) againstLimit(t *target, rows []row) ([]pair, error) {
	limit, err := startLimit(s)
	if err != nil {
		return nil, err
	}
	defer limit.stop()
	var pairs []pair
	for _, r := range rows {
		p := pair{row: r, a: side{name: ours.name}, b: side{name: bareLoop.name}}
		for range s.rounds {
			x, err := s.sampleOf(ours, t, r)
			if err != nil {
				return nil, err
			}
			y, err := s.sampleOf(bareLoop, limit, r)
			if err != nil {
				return nil, err
			}
			p.a.samples, p.b.samples = append(p.a.samples, x), append(p.b.samples, y)
		}
		if err := s.traced(&p.b, bareLoop, limit, r); err != nil {
			return nil, err
		}
		p.print("limit")
		pairs = append(pairs, p)
	}
	return pairs, nil
}
