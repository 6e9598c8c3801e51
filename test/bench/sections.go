package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
)

// section is a part of the measurement that has its own place in the document.
type section struct {
	name string
	run  func(s *setup, d *document) error
}

// machineSection says where all was measured, and what was not there.
const machineSection = "machine"

func sections() []section {
	return []section{
		{machineSection, func(*setup, *document) error { return nil }},
		{"depth", (*setup).overDepth},
		{"size", (*setup).overSize},
		{"variants", (*setup).variants},
		{"latency", (*setup).latency},
		{"devices", (*setup).throughDevices},
		{"targets", (*setup).targets},
		{"io_uring", (*setup).ring},
	}
}

func sectionNames() []string {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	return names
}

// all are ours and libiscsi's, on the embedded target, and the limits.
func (s *setup) all() (contenders []contender, stop func(), err error) {
	t, err := startEmbedded(s)
	if err != nil {
		return nil, nil, err
	}
	contenders = append(contenders, s.ours("ours", t))
	if s.peers.libiscsi != "" {
		contenders = append(contenders, s.libiscsi("libiscsi", t, "0", 1))
	}
	limits, end, err := s.limits()
	if err != nil {
		t.stop()
		return nil, nil, err
	}
	return append(contenders, limits...), func() { end(); t.stop() }, nil
}

// overDepth is 4 KiB at any depth.
func (s *setup) overDepth(d *document) error {
	contenders, stop, err := s.all()
	if err != nil {
		return err
	}
	defer stop()
	results, err := s.measure(byDepth(), contenders)
	d.comparison(results)
	return errors.Join(err, s.plot("depth", "requests outstanding, of 4 KiB", func(r row) int { return r.depth }, results))
}

// overSize is requests of any size: all of them in a plot, the large ones in tables.
func (s *setup) overSize(d *document) error {
	contenders, stop, err := s.all()
	if err != nil {
		return err
	}
	defer stop()
	results, err := s.measure(bySize(), contenders)
	var some, sweep []result
	for _, r := range results {
		if r.row.large() {
			some = append(some, r)
		}
		if r.row.depth == sweepDepth {
			sweep = append(sweep, r)
		}
	}
	d.comparison(some)
	return errors.Join(err, s.plot("size", fmt.Sprintf("KiB a request, of which %d are outstanding", sweepDepth), func(r row) int { return r.block >> 10 }, sweep))
}

// comparison is the tables of what has been compared in full.
func (d *document) comparison(results []result) {
	d.table(results, figureRate)
	d.table(results, figureCPU)
	d.calls(results)
	d.table(results, figureMemory)
}

// variants compares ours with itself, and libiscsi's with ours: digests, several
// logical units, several sessions.
func (s *setup) variants(d *document) error {
	t, err := startEmbedded(s)
	if err != nil {
		return err
	}
	defer t.stop()
	contenders := []contender{
		s.ours("one LUN, one session", t), s.ours("digests", t, "--digests"),
		s.ours("4 LUNs", t, "-l", units), s.ours("8 sessions", t, "--sessions", "8"),
	}
	if s.peers.libiscsi != "" {
		contenders = append(contenders, s.libiscsi("libiscsi, 4 LUNs", t, units, 1), s.libiscsi("libiscsi, 8 sessions", t, "0", 8))
	}
	for i := range contenders {
		contenders[i].untraced = true
	}
	results, err := s.measure(chief(), contenders)
	d.table(results, figureRate)
	d.table(results, figureCPU)
	d.table(results, figureMemory)
	return err
}

// latency is that of single requests beside a bare ping-pong, and that at fixed rates.
func (s *setup) latency(d *document) error {
	t, err := startEmbedded(s)
	if err != nil {
		return err
	}
	defer t.stop()
	limits, stop, err := s.limits()
	if err != nil {
		return err
	}
	defer stop()
	pair := []contender{s.ours("ours", t)}
	if s.peers.libiscsi != "" {
		pair = append(pair, s.libiscsi("libiscsi", t, "0", 1))
	}
	alone := append(append(pair[:len(pair):len(pair)], s.bareInitiator(t)), limits...)
	for i := range alone {
		alone[i].untraced = true
	}
	single, err1 := s.measure(both(row{block: 4 << 10, random: true, depth: 1}), alone)
	d.WriteString("\n#### One request at a time\n")
	d.table(single, figureP50)
	d.table(single, figureP99)
	var rows []row
	for _, rate := range []float64{5000, 20000, 40000, 100000, 200000} {
		rows = append(rows, row{block: 4 << 10, random: true, depth: 128, rate: rate})
	}
	for i := range pair {
		pair[i].untraced = true
	}
	fixed, err2 := s.measure(rows, pair)
	d.WriteString("\n#### At fixed rates\n")
	for _, f := range []figure{figureRate, figureP50, figureP99, figureP999, figureCPU} {
		d.table(fixed, f)
	}
	return errors.Join(err1, err2)
}

// targets compares the embedded target with tgtd, by the same client, and has
// iscsi-perf beside ours on both.
func (s *setup) targets(d *document) error {
	t, err := startEmbedded(s)
	if err != nil {
		return err
	}
	defer t.stop()
	contenders := []contender{s.ours("ours, embedded target", t)}
	tgt, err := startTgtd(s)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		d.leftOut("tgtd", err)
	case err != nil:
		return err
	default:
		defer tgt.stop()
		contenders = append(contenders, s.ours("ours, tgtd", tgt))
	}
	if s.peers.perf {
		c := s.iscsiPerf(t, t.url())
		c.name += ", embedded target"
		contenders = append(contenders, c)
		if tgt != nil {
			c := s.iscsiPerf(tgt, tgt.url())
			c.name += ", tgtd"
			contenders = append(contenders, c)
		}
	}
	rows := append(both(row{block: 4 << 10, random: true, depth: 1}, row{block: 4 << 10, random: true, depth: 128}), chief()...)
	results, err := s.measure(rows, contenders)
	d.table(results, figureRate)
	d.table(results, figureCPU)
	d.table(results, figure{"CPUs that the target had busy", targetCPU, hundredth, false})
	return err
}

// ring compares the bare loop in C with the same by io_uring, which says what a
// ring for the socket would be worth.
func (s *setup) ring(d *document) error {
	limits, stop, err := s.limits()
	if err != nil {
		return err
	}
	defer stop()
	if s.peers.bareLoop == "" {
		return nil
	}
	plain := limits[len(limits)-1]
	uring := plain
	plain.name, uring.name = "write and read", "io_uring"
	uring.argv = func(r row) []string {
		argv := plain.argv(r)
		argv[1] = "uring"
		return argv
	}
	single := row{block: 4 << 10, random: true, depth: 1}
	results, err := s.measure(append(both(single), chief()...), []contender{plain, uring})
	d.table(results, figureRate)
	d.table(results, figureCPU)
	d.table(results, figureP50)
	return err
}

// plot draws the rates and the CPU time of rows over one of their properties.
func (s *setup) plot(name, axis string, x func(row) int, results []result) error {
	if s.plots == "" {
		return nil
	}
	var panels []panel
	for _, write := range []bool{false, true} {
		what := row{write: write}.direction() + "s"
		for _, f := range []struct {
			title string
			get   func(*sample) float64
		}{{"requests/s, " + what, rate}, {"CPU µs/request, " + what, cpu}} {
			p := panel{title: f.title, axis: axis}
			for _, r := range results {
				if r.row.write == write {
					p.add(x(r.row), r.sides, f.get)
				}
			}
			panels = append(panels, p)
		}
	}
	return writeSVG(filepath.Join(s.plots, name+".svg"), panels)
}
