// Command bench measures the initiator's data path beside its peers, on this
// machine alone, and writes what it found into docs/performance.md: tables, and
// plots beside it. It is in sections, each of which has its own place there:
// iscsibench, which is this project's session layer, against libiscsi and against
// bare loops over a TCP socket that move the same bytes in the same framing; the
// same with digests, several logical units and sessions; latencies; fio on each
// kind of device that there is; the targets that all of this is measured on. With
// "rdma" as its first argument it is what runs in the virtual machine.
//
// What is compared runs in turn, A B A B, so that whatever else the machine does
// meets both; the result of a pair is a ratio, with the spread over the rounds.
// Peers that cannot be had are left out, and the output says so.
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
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if playRole(os.Args[1:]) {
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
	plots  string // the directory for plots; "": none
	rounds int
	time   time.Duration // of one run
	only   string        // rows whose name has this in it
	tracer *tracer       // nil: there is none
	peers  peers
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := flags.Int("rounds", 3, "how often all take turns on a row")
	each := flags.Duration("time", time.Second, "how long one run takes; whole seconds")
	doc := flags.String("doc", "", "the document whose tables are replaced, with plots/ beside it (default: docs/performance.md of this module; - for none)")
	bin := flags.String("bin", "", "where our programs are (default: they are built)")
	parts := flags.String("sections", strings.Join(sectionNames(), ","), "which sections to measure")
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
	s := &setup{ctx: ctx, dir: dir, bin: *bin, rounds: *rounds, time: *each, only: *only, tracer: findTracer(ctx)}
	if s.bin == "" {
		s.bin = filepath.Join(dir, "bin")
		if err := s.build(root); err != nil {
			return err
		}
	}
	switch *doc {
	case "":
		*doc = filepath.Join(root, "docs", "performance.md")
		fallthrough
	default:
		s.plots = filepath.Join(filepath.Dir(*doc), "plots")
	case "-":
	}
	return s.measureSections(strings.Split(*parts, ","), *doc)
}

// measureSections measures the named sections, and writes each when it is done.
func (s *setup) measureSections(names []string, doc string) error {
	var first document
	first.facts()
	s.findPeers(&first)
	var failed error
	for _, part := range sections() {
		if !slices.Contains(names, part.name) {
			continue
		}
		fmt.Printf("\n== %s\n", part.name)
		var d document
		if part.name == machineSection {
			d = first
		} else {
			d.conditions(s)
		}
		err := part.run(s, &d)
		if s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		failed = errors.Join(failed, err)
		if doc != "-" {
			failed = errors.Join(failed, replaceText(doc, marksOf(part.name), d.String()))
		}
	}
	return failed
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
