package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// tracer counts the system calls of a process and its threads. perf slows it
// down little; strace a lot, so that more answers wait at each call and there
// are fewer calls for a request than there would be.
type tracer struct {
	name  string
	argv  func(out string) []string
	parse func(out string) (calls float64, err error)
}

var perfStat = tracer{
	name: "perf stat",
	argv: func(out string) []string {
		return []string{"perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-o", out, "--"}
	},
	parse: func(out string) (float64, error) {
		for line := range strings.Lines(out) {
			if count, _, ok := strings.Cut(line, ","); ok && strings.Contains(line, "raw_syscalls") {
				return strconv.ParseFloat(count, 64)
			}
		}
		return 0, errors.New("perf stat has counted nothing")
	},
}

var strace = tracer{
	name: "strace -c -f",
	argv: func(out string) []string { return []string{"strace", "-c", "-f", "-o", out, "--"} },
	parse: func(out string) (float64, error) {
		for line := range strings.Lines(out) {
			// "100.00  0.325031  16  20042  22 total"
			if f := strings.Fields(line); len(f) >= 5 && f[len(f)-1] == "total" {
				return strconv.ParseFloat(f[3], 64)
			}
		}
		return 0, errors.New("strace has counted nothing")
	},
}

// findTracer returns the first that works here.
func findTracer(ctx context.Context) *tracer {
	dir, err := os.MkdirTemp("", "tracer")
	if err != nil {
		return nil
	}
	defer os.RemoveAll(dir)
	for _, t := range []*tracer{&perfStat, &strace} {
		if _, err := exec.LookPath(t.argv("")[0]); err != nil {
			continue
		}
		if n, _, err := t.run(ctx, filepath.Join(dir, "out"), []string{"true"}); err == nil && n > 0 {
			return t
		}
	}
	return nil
}

func (t *tracer) count(s *setup, argv []string) (calls float64, f finished, err error) {
	return t.run(s.ctx, filepath.Join(s.dir, "calls"), argv)
}

func (t *tracer) run(ctx context.Context, out string, argv []string) (calls float64, f finished, err error) {
	f, err = runToEnd(ctx, append(t.argv(out), argv...))
	if err != nil {
		return 0, f, err
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return 0, f, err
	}
	if calls, err = t.parse(string(data)); err != nil {
		return 0, f, fmt.Errorf("%w:\n%s", err, data)
	}
	return calls, f, nil
}
