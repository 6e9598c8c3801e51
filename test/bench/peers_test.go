package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	embedded "iscsictl/target"
)

// TestMain lets the test binary play the roles that this program has.
func TestMain(m *testing.M) {
	if !playRole(os.Args[1:]) {
		os.Exit(m.Run())
	}
}

// serve starts the embedded target with null logical units in this process, and
// returns its portal.
func serve(t *testing.T) string {
	t.Helper()
	luns := make([]embedded.LUN, len(strings.Split(units, ",")))
	for i := range luns {
		luns[i] = embedded.LUN{Number: i, Null: true, Size: 1 << 30}
	}
	s, err := embedded.New(embedded.Config{Targets: []embedded.Target{{Name: targetName, LUNs: luns}}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	return l.Addr().String()
}

// TestBareInitiator sends single requests to the embedded target.
func TestBareInitiator(t *testing.T) {
	portal := serve(t)
	for _, r := range both(row{block: 4096, depth: 1}) {
		c, err := net.Dial("tcp", portal)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var report strings.Builder
		if err := pingPong(c, r, 20*time.Millisecond, &report); err != nil {
			t.Fatal(err)
		}
		if got, err := parseReport([]byte(report.String()), r); err != nil || got.requests == 0 || got.p50 == 0 {
			t.Errorf("%s: %+v, %v", r.name(), got, err)
		}
	}
}

// compiled is one of the peers in C.
func compiled(t *testing.T, source, library string) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skipf("SKIP: %v (run: make deps)", err)
	}
	s := &setup{ctx: context.Background(), dir: t.TempDir()}
	path, err := s.compile(source, library)
	if err != nil && library != "" {
		t.Skipf("SKIP: %s: %v", source, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBareLoopInC: it speaks with the one in Go, either way round.
func TestBareLoopInC(t *testing.T) {
	path := compiled(t, "bareloop.c", "")
	s := &setup{ctx: context.Background(), dir: t.TempDir(), time: time.Second}
	self := os.Args[0]
	for _, pair := range [][2][]string{
		{{path, "server"}, {path, "client"}},
		{{path, "server"}, {self, limitClient}},
		{{self, limitServer}, {path, "client"}},
		{{self, limitServer}, {path, "uring"}},
	} {
		c, server, err := s.startLimit("x", pair[0], pair[1])
		if err != nil {
			t.Fatal(err)
		}
		r := row{block: 8192, depth: 1, write: pair[1][0] == self}
		x, err := s.sample(&c, r)
		server.stop()
		if err != nil && strings.Contains(err.Error(), "io_uring_setup") {
			t.Logf("no io_uring here: %v", err)
		} else if err != nil || x.p50 == 0 || x.memory == 0 {
			t.Errorf("%v: %+v, %v", pair, x, err)
		}
	}
}

// TestLibiscsi runs libiscsi's load on the embedded target.
func TestLibiscsi(t *testing.T) {
	path := compiled(t, "libiscsiload.c", "-liscsi")
	portal := serve(t)
	for _, args := range []string{"0 randread 4096 8 1 0 1", units + " write 131072 4 2 0 1", "0 randwrite 4096 8 1 500 1"} {
		argv := append([]string{portal, targetName, initiatorName}, strings.Fields(args)...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, path, argv...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", args, err, out)
		}
		got, err := parseReport(out, row{})
		if err != nil || got.requests == 0 || got.p50 == 0 {
			t.Errorf("%s: %+v, %v", args, got, err)
		}
		if asked, _ := strconv.ParseFloat(strings.Fields(args)[5], 64); asked > 0 && got.requests > asked+1 {
			t.Errorf("%s: %v requests", args, got.requests)
		}
	}
}
