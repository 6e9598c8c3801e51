// Command bench measures the initiator's data path beside its peers, on this
// machine alone, and writes what it found into docs/performance.md:
//
//   - iscsibench, which is this project's session layer, against libiscsi's
//     iscsi-perf, on the same null logical unit of tgtd and of the embedded target;
//   - a bare loop over a TCP socket that moves the same bytes in the same framing,
//     as the limit;
//   - fio on the NBD socket of iscsid, which is the whole way of a request.
//
// What is compared runs in turn, A B A B, so that whatever else the machine does
// meets both; the result of a pair is a ratio, with the spread over the rounds.
// Peers that are not installed are left out, and the output says so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if limitRole(os.Args[1:]) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	measure := run
	if len(os.Args) > 1 && os.Args[1] == rdmaRole {
		measure = runRDMA
	}
	if err := measure(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// setup is what all measurements share.
type setup struct {
	ctx    context.Context
	dir    string // temporary
	bin    string // our programs
	rounds int
	time   time.Duration // of one run
	tracer *tracer       // nil: there is none
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "how often each pair is run")
	each := flags.Duration("time", 2*time.Second, "how long one run takes; whole seconds")
	doc := flags.String("doc", "", "the document whose tables are replaced (default: docs/performance.md of this module; - for none)")
	bin := flags.String("bin", "", "where our programs are (default: they are built)")
	only := flags.String("rows", "", "only the rows whose name has this in it, such as \"4 KiB\"")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 || *each < time.Second || *each%time.Second != 0 || flags.NArg() > 0 {
		return errors.New("want at least one round, whole seconds, and no operand")
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	// Not below TMPDIR: the path of a Unix socket has at most 107 bytes.
	dir, err := os.MkdirTemp("/tmp", "iscsi-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &setup{ctx: ctx, dir: dir, bin: *bin, rounds: *rounds, time: *each, tracer: findTracer(ctx)}
	if s.bin == "" {
		s.bin = filepath.Join(dir, "bin")
		if err := s.build(root); err != nil {
			return err
		}
	}
	var chosen []row
	for _, r := range rows() {
		if strings.Contains(r.name(), *only) {
			chosen = append(chosen, r)
		}
	}
	text, err := s.measureAll(chosen)
	if err != nil {
		return err
	}
	if *doc == "-" {
		return nil
	}
	if *doc == "" {
		*doc = filepath.Join(root, "docs", "performance.md")
	}
	return replaceTables(*doc, bySocket, text)
}

// moduleRoot is where go.mod lies.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	path := strings.TrimSpace(string(out))
	if err != nil || path == "" || path == os.DevNull {
		return "", errors.New("run me within the module: go run ./test/bench")
	}
	return filepath.Dir(path), nil
}

// build makes our programs, as the Makefile does.
func (s *setup) build(root string) error {
	cmd := exec.CommandContext(s.ctx, "go", "build", "-trimpath", "-o", s.bin+"/",
		"./cmd/iscsibench", "./cmd/iscsitarget", "./cmd/iscsid", "./cmd/iscsictl")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// measureAll runs everything and returns the tables.
func (s *setup) measureAll(rows []row) (string, error) {
	var doc document
	doc.facts(s)
	var targets []*target
	for _, start := range []func(*setup) (*target, error){startTgtd, startEmbedded} {
		t, err := start(s)
		if t != nil {
			defer t.stop()
		}
		if errors.Is(err, exec.ErrNotFound) {
			doc.leftOut(err)
			continue
		}
		if err != nil {
			return "", err
		}
		targets = append(targets, t)
	}
	for _, t := range targets {
		pairs, err := s.againstPeer(t, rows, &doc)
		if err != nil {
			return "", err
		}
		doc.peerTable(t, pairs)
	}
	for _, t := range targets {
		if t.embedded {
			limits, err := s.againstLimit(t, rows)
			if err != nil {
				return "", err
			}
			doc.limitTable(limits)
		}
	}
	whole, err := s.throughNBD(targets, rows)
	if errors.Is(err, exec.ErrNotFound) {
		doc.leftOut(err)
	} else if err != nil {
		return "", err
	}
	doc.nbdTable(whole)
	return doc.String(), nil
}
