package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// contender is a program that makes a load, on something of its own.
type contender struct {
	name string
	// argv is the command for a row; nil where it cannot do that.
	argv func(r row) []string
	// parse finds out from the output what was done.
	parse func(stdout []byte, r row) (outcome, error)
	// target is the process that answers, and daemon one in between, whose CPU
	// time is looked at; each may be nil.
	target, daemon *server
	// partner has to run meanwhile, on a port; nil: nothing has to.
	partner  func(r row) []string
	port     int
	untraced bool // its system calls are not counted
	own      bool // it is this project's: it must not fail
}

// measure lets all contenders take turns on every row: A B C A B C. One that fails
// on a row is left out of its other rounds; that is an error of ours, and of a peer
// something that the tables say.
func (s *setup) measure(rows []row, contenders []contender) ([]result, error) {
	var all []result
	var failed error
	for _, r := range rows {
		if !strings.Contains(r.name(), s.only) {
			continue
		}
		result := result{row: r}
		for _, c := range contenders {
			result.sides = append(result.sides, side{name: c.name})
		}
		unable := make([]bool, len(contenders))
		for range s.rounds {
			for i, c := range contenders {
				if unable[i] || c.argv(r) == nil {
					continue
				}
				x, err := s.sample(&c, r)
				if err != nil {
					unable[i] = true
					result.sides[i].samples, result.sides[i].failed = nil, true
					err = fmt.Errorf("%s, %s, %d outstanding: %w", c.name, r.name(), r.depth, err)
					fmt.Println(err)
					if c.own {
						failed = errors.Join(failed, err)
					}
					continue
				}
				result.sides[i].samples = append(result.sides[i].samples, x)
			}
			if s.ctx.Err() != nil {
				return all, s.ctx.Err()
			}
		}
		for i, c := range contenders {
			if !unable[i] && c.argv(r) != nil && (r.random || r.large()) {
				if err := s.traced(&result.sides[i], &c, r); err != nil {
					failed = errors.Join(failed, fmt.Errorf("%s, %s, traced: %w", c.name, r.name(), err))
				}
			}
		}
		result.print()
		all = append(all, result)
	}
	return all, failed
}

// sample runs a contender once.
func (s *setup) sample(c *contender, r row) (x sample, err error) {
	if c.partner != nil {
		process, err := startServer(c.partner(r))
		if err != nil {
			return x, err
		}
		process.end = syscall.SIGKILL // it ends by itself with its client
		defer func() {
			if err != nil {
				err = process.failed(err)
				return
			}
			process.stop()
		}()
		if err := eventually(s.ctx, func() error { return listening(c.port) }); err != nil {
			return x, process.failed(err)
		}
	}
	target, daemon, whole, start := c.target.cpu(), c.daemon.cpu(), machineCPU(), time.Now()
	f, err := runToEnd(s.ctx, c.argv(r))
	if err != nil {
		return x, err
	}
	elapsed, all := time.Since(start), machineCPU()-whole
	x.outcome, err = c.parse(f.stdout, r)
	if err != nil || x.requests == 0 {
		return x, fmt.Errorf("no request was done (%v):\n%s", err, tail(f.stdout))
	}
	x.cpu = f.cpu.Seconds() / x.requests * 1e6
	x.memory = f.memory
	x.daemonCPU = (c.daemon.cpu() - daemon).Seconds() / x.requests * 1e6
	x.machine = all.Seconds() / x.requests * 1e6
	x.targetCPU = (c.target.cpu() - target).Seconds() / elapsed.Seconds()
	if c.target == nil {
		x.targetCPU = all.Seconds() / elapsed.Seconds()
	}
	return x, nil
}

// traced counts a contender's system calls, in a run of its own. (Rows that are in
// a plot only go without.)
func (s *setup) traced(to *side, c *contender, r row) error {
	if s.tracer == nil || c.untraced || c.partner != nil {
		return nil
	}
	calls, f, err := s.tracer.count(s, c.argv(r))
	if err != nil {
		return err
	}
	o, err := c.parse(f.stdout, r)
	if err == nil && o.requests > 0 {
		to.calls = calls / o.requests
	}
	return err
}

// listening reports whether somebody listens on a TCP port of this machine.
func listening(port int) error {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) { // sl local remote state ...
			if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[3] == "0A" {
				return nil
			}
		}
	}
	return fmt.Errorf("nobody listens on port %d", port)
}

// machineCPU is what all processors have worked so far.
func machineCPU() time.Duration {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	var total int64
	for i, f := range strings.Fields(line) { // cpu user nice system idle iowait irq softirq
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && i < 8 && i != 4 && i != 5 {
			total += n
		}
	}
	return time.Duration(total) * clockTick
}

// print shows a row while the measurement goes on.
func (r *result) print() {
	fmt.Printf("%-26s %3d:", r.row.name(), r.row.depth)
	for i := range r.sides {
		x := &r.sides[i]
		if len(x.samples) == 0 {
			continue
		}
		fmt.Printf(" %s %s/s %s µs", x.name, whole(median(x.of(rate))), tenth(median(x.of(cpu))))
		if i > 0 {
			fmt.Printf(" (rate %s, CPU %s)", spread(r.ratios(i, rate)), spread(r.ratios(i, cpu)))
		}
		fmt.Print(";")
	}
	fmt.Println()
}
