package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"iscsictl/target"
)

const iqn = "iqn.2026-01.example:bench"

// serve starts the embedded target and returns its portal.
func serve(t *testing.T, conf target.Config) (string, *target.Server) {
	t.Helper()
	s, err := target.New(conf)
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
	return l.Addr().String(), s
}

func oneTarget(luns ...target.LUN) target.Config {
	return target.Config{Targets: []target.Target{{Name: iqn, LUNs: luns}}}
}

// command runs the command line as main does.
func command(ctx context.Context, args ...string) (stdout string, err error) {
	var out, errs bytes.Buffer
	err = newApp(&out, &errs).RunContext(ctx, append([]string{"iscsibench"}, args...))
	return out.String(), err
}

// measured runs a measurement and returns its report.
func measured(t *testing.T, portal string, args ...string) report {
	t.Helper()
	out, err := command(t.Context(), append([]string{"-p", portal, "-t", iqn, "--time", "100ms", "--json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if r.Requests == 0 || r.Rate <= 0 || r.Latency.P50 <= 0 || r.Latency.Max < r.Latency.P50 || r.User+r.System <= 0 {
		t.Errorf("report %+v", r)
	}
	return r
}

func TestModes(t *testing.T) {
	portal, _ := serve(t, oneTarget(target.LUN{Number: 0, Size: 1 << 20}, target.LUN{Number: 3, Size: 1 << 20, BlockSize: 4096}))
	for _, args := range []string{
		"--rw randread",
		"--rw read --block 64k --depth 4",
		"--rw write --block 8k --destroy-data --luns 0,3",
		"--rw randwrite --destroy-data -l 3 --digests",
		"--rw mixed --destroy-data --sessions 3 --depth 5",
		"--rw read --block 1m --depth 2 --sessions 2",
	} {
		t.Run(args, func(t *testing.T) {
			r := measured(t, portal, strings.Fields(args)...)
			if want := strings.Count(args, ",") + 1; len(r.Units) != want {
				t.Errorf("units %q", r.Units)
			}
			if r.SentAgain != 0 {
				t.Errorf("%d requests were sent again", r.SentAgain)
			}
		})
	}
}

// serveISER is serve by iSER.
func serveISER(t *testing.T, conf target.Config) string {
	t.Helper()
	_, server := serve(t, conf)
	l, err := target.ListenISER(t.Context(), target.Portal{Address: "127.0.0.1:0", ISER: true})
	if err != nil {
		t.Fatal(err)
	}
	go server.ServeISER(l, 1)
	return l.Addr().String()
}

// TestISER: the same load by iSER, which says what carries it.
func TestISER(t *testing.T) {
	portal := serveISER(t, oneTarget(target.LUN{Size: 4 << 20}))
	for _, args := range []string{"--iser", "--iser --offload iwarp --rw write --block 1m --depth 4 --destroy-data"} {
		r := measured(t, portal, strings.Fields(args)...)
		if !r.ISER || r.Connection["rdmaProvider"] != "iwarp" || r.Connection["remoteInvalidate"] == "" {
			t.Errorf("%s: iSER %v, %v", args, r.ISER, r.Connection)
		}
	}
	out, err := command(t.Context(), "-p", portal, "-t", iqn, "--time", "10ms", "--iser")
	if err != nil || !strings.Contains(out, "iSER by iwarp") {
		t.Errorf("%v, %s", err, out)
	}
}

// TestSequentialWritesAll checks that what is written sequentially goes everywhere,
// and that reads change nothing.
func TestSequentialWritesAll(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	portal, _ := serve(t, oneTarget(target.LUN{File: file}))
	measured(t, portal, "--rw", "randread")
	if zeroes(t, file) != 16 {
		t.Error("reading has changed the disk")
	}
	measured(t, portal, "--rw", "write", "--destroy-data")
	if n := zeroes(t, file); n != 0 {
		t.Errorf("%d of 16 blocks were not written", n)
	}
}

// zeroes counts the blocks of 4 KiB that have nothing in them.
func zeroes(t *testing.T, file string) (n int) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for ; len(data) > 0; data = data[4096:] {
		if bytes.Equal(data[:4096], make([]byte, 4096)) {
			n++
		}
	}
	return n
}

func TestRate(t *testing.T) {
	portal, _ := serve(t, oneTarget(target.LUN{Null: true, Size: 1 << 30}))
	r := measured(t, portal, "--rate", "1000", "--sessions", "2", "--time", "200ms")
	// All that was due is done, however late: 200, and for each session one at the start.
	if r.Requests > 202 || r.Requests < 100 {
		t.Errorf("%d requests in %v s at 1000 a second", r.Requests, r.Seconds)
	}
}

// TestNoAllocation: the whole way of a request, from this program to the target,
// which is in this process, and back. What is left is not of requests: ticks, and
// the end.
func TestNoAllocation(t *testing.T) {
	if raceEnabled() {
		t.Skip("SKIP: the race detector has pools forget; make test runs this without it as well")
	}
	null := oneTarget(target.LUN{Number: 0, Null: true, Size: 1 << 30})
	tcp, _ := serve(t, null)
	iser := serveISER(t, null)
	for _, args := range []string{
		"--iser --rw randread --depth 32",
		"--iser --rw randwrite --depth 32 --destroy-data",
		"--iser --rw write --block 128k --depth 8 --destroy-data",
		"--rw randread --depth 32",
		"--rw randwrite --depth 32 --destroy-data",
		"--rw read --block 128k --depth 8",
		"--rw write --block 128k --depth 8 --destroy-data",
		"--rw randread --depth 8 --digests",
	} {
		portal := tcp
		if strings.HasPrefix(args, "--iser") {
			portal = iser
		}
		r := measured(t, portal, strings.Fields(args)...)
		if n := r.Allocations * float64(r.Requests); n > 200+float64(r.Requests)/100 {
			t.Errorf("%s: %.0f allocations for %d requests", args, n, r.Requests)
		}
	}
}

func raceEnabled() bool {
	b, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(b.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

func TestCHAP(t *testing.T) {
	conf := oneTarget(target.LUN{Null: true, Size: 1 << 30})
	conf.Targets[0].CHAP = &target.CHAP{
		Users:  []target.Credential{{Name: "alice", Secret: "correct horse"}},
		Mutual: &target.Credential{Name: "target", Secret: "battery staple"},
	}
	portal, _ := serve(t, conf)
	secret := func(text string) string {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	measured(t, portal, "--user", "alice", "--secret-file", secret("correct horse"),
		"--mutual-user", "target", "--mutual-secret-file", secret("battery staple"))
	_, err := command(t.Context(), "-p", portal, "-t", iqn, "--user", "alice", "--secret-file", secret("wrong secret"))
	if err == nil || !strings.Contains(err.Error(), portal) {
		t.Errorf("with a wrong secret: %v", err)
	}
}

// TestErrors has the ways in which nothing can be measured.
func TestErrors(t *testing.T) {
	portal, _ := serve(t, oneTarget(target.LUN{Number: 1, Size: 1 << 20, BlockSize: 4096}))
	to := "-p " + portal + " -t " + iqn + " "
	for args, want := range map[string]string{
		"-t " + iqn:                                  "portal (-p) and a target (-t) are needed",
		to + "operand":                               `not "operand"`,
		to + "--nonsense":                            "nonsense",
		to + "--rw randwrite":                        "--destroy-data",
		to + "--rw mixed":                            "--destroy-data",
		to + "--rw sideways":                         "not one of randread",
		to + "--block 0":                             "not a size",
		to + "--block 4x":                            "not a size",
		to + "--block 17m":                           "not a size",
		to + "--block 512":                           "blocks of 4096 bytes, of which that is no multiple",
		to + "--block 2m":                            "has 256 blocks of 4096 bytes only",
		to + "--depth 0":                             "not 1 to 4096",
		to + "--depth 4096 --block 16m":              "over 2147483648 bytes",
		to + "--sessions 65":                         "not 1 to 64",
		to + "--time 0s":                             "not a time",
		to + "--rate -1":                             "--rate -1",
		to + "--luns 1,x":                            `"x" is not the number`,
		to + "--luns 7":                              "LUN 7",
		to + "--user alice":                          "--user and --secret-file go together",
		to + "--secret-file /nonexistent":            "--user and --secret-file go together",
		to + "--user a --secret-file /nonexistent":   "/nonexistent",
		to + "--offload iwarp":                       "for Protocol = iSER",
		to + "--iser --offload cxgbei":               "no offload driver",
		to + "--iser --digests":                      "--digests is not for --iser",
		to + "--spin 50":                             "--spin is for --iser",
		to + "--iser --spin 2000":                    "a number from 0 to 1000 microseconds",
		"-p " + portal + " -t " + iqn + ":missing":   portal,
		"-p 127.0.0.1:1 -t " + iqn:                   "connection refused",
		to + "--time 1ms --cpuprofile /nonexistent/": "--cpuprofile",
	} {
		if _, err := command(t.Context(), strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", args, err, want)
		}
	}
}

func TestNoDisk(t *testing.T) {
	portal, _ := serve(t, oneTarget())
	if _, err := command(t.Context(), "-p", portal, "-t", iqn); err == nil || !strings.Contains(err.Error(), "is a disk") {
		t.Errorf("%v", err)
	}
}

// TestConnectionLost takes the target away during a measurement.
func TestConnectionLost(t *testing.T) {
	for _, rate := range []string{"0", "500"} {
		portal, server := serve(t, oneTarget(target.LUN{Null: true, Size: 1 << 30}))
		go func() { // when the measurement is under way on both sessions
			for busy := 0; busy < 2; time.Sleep(time.Millisecond) {
				busy = 0
				for _, s := range server.Sessions() {
					if s.Commands > 40 {
						busy++
					}
				}
			}
			server.Close()
		}()
		_, err := command(t.Context(), "-p", portal, "-t", iqn, "--time", "1m", "--rate", rate, "--sessions", "2")
		if err == nil || !strings.Contains(err.Error(), "the connection was lost: ") || strings.HasSuffix(err.Error(), ": ") {
			t.Errorf("rate %s: %v", rate, err)
		}
	}
}

// TestInterrupt ends a measurement before its time, which is no error.
func TestInterrupt(t *testing.T) {
	portal, _ := serve(t, oneTarget(target.LUN{Null: true, Size: 1 << 30}))
	for _, rate := range []string{"0", "500"} {
		// The deadline may be met while logging in, on a slow machine.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		out, err := command(ctx, "-p", portal, "-t", iqn, "--time", "1h", "--rate", rate)
		cancel()
		if err != nil || !strings.Contains(out, "requests/s") {
			t.Errorf("rate %s: %v, %s", rate, err, out)
		}
	}
}

func TestText(t *testing.T) {
	portal, _ := serve(t, oneTarget(target.LUN{Null: true, Size: 1 << 30}))
	out, err := command(t.Context(), "-p", portal, "-t", iqn, "--time", "50ms", "--digests", "--rate", "10000")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{iqn + " at " + portal, "LUN 0", "digests", "10000 requests/s asked for", "p99.9", "for a million requests", "allocations"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
