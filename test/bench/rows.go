package main

import (
	"fmt"
	"slices"
)

// row is a kind of load.
type row struct {
	block  int // bytes
	random bool
	write  bool
	depth  int     // requests outstanding in each session
	rate   float64 // requests a second; 0: as many as there can be
}

// name is what the document calls it, without the depth.
func (r row) name() string {
	size := fmt.Sprintf("%d KiB", r.block>>10)
	if r.block >= 1<<20 {
		size = fmt.Sprintf("%d MiB", r.block>>20)
	}
	order := "sequential"
	if r.random {
		order = "random"
	}
	return fmt.Sprintf("%s %s %s", size, order, r.direction())
}

func (r row) direction() string {
	if r.write {
		return "write"
	}
	return "read"
}

// mode is what iscsibench and fio call it.
func (r row) mode() string {
	if r.random {
		return "rand" + r.direction()
	}
	return r.direction()
}

// large reports whether the tables have the row among the large ones.
func (r row) large() bool { return r.block == 128<<10 || r.block == 1<<20 }

// both gives each row twice: as reads and as writes.
func both(rows ...row) []row {
	var all []row
	for _, write := range []bool{false, true} {
		for _, r := range rows {
			r.write = write
			all = append(all, r)
		}
	}
	return all
}

// byDepth are small requests, by how many are outstanding.
func byDepth() []row {
	var rows []row
	for _, depth := range []int{1, 8, 32, 128} {
		rows = append(rows, row{block: 4 << 10, random: true, depth: depth})
	}
	return both(rows...)
}

// sweepDepth is how many requests are outstanding where sizes are compared.
const sweepDepth = 8

// bySize are requests by their size, and then those of 128 KiB at other depths.
func bySize() []row {
	var rows []row
	for _, kib := range []int{4, 16, 64, 128, 256, 1024} {
		rows = append(rows, row{block: kib << 10, depth: sweepDepth})
	}
	return both(append(rows, row{block: 128 << 10, depth: 1}, row{block: 128 << 10, depth: 32})...)
}

// chief are the rows of what else is compared.
func chief() []row {
	return both(row{block: 4 << 10, random: true, depth: 32}, row{block: 128 << 10, depth: 32}, row{block: 1 << 20, depth: 8})
}

// sample is what one run of a contender has shown.
type sample struct {
	outcome
	cpu       float64 // CPU time of the client for a request, in µs, user and system
	targetCPU float64 // CPUs that the target has kept busy
	daemonCPU float64 // CPU time of iscsid for a request, in µs, where one is in between
	machine   float64 // CPU time of the whole machine for a request, in µs
	memory    float64 // the most that the client had, resident, in MiB
}

// outcome is what a client says itself.
type outcome struct {
	requests       float64
	rate           float64 // requests a second
	p50, p99, p999 float64 // latencies in µs
}

// side is what the rounds of one contender have shown on one row.
type side struct {
	name    string
	samples []sample
	calls   float64 // system calls for a request, from a run of its own; 0: not known
	failed  bool
}

// result is a row with all that took turns on it. The first is compared with the others.
type result struct {
	row   row
	sides []side
}

// of collects one figure of all samples.
func (s *side) of(get func(*sample) float64) []float64 {
	var all []float64
	for i := range s.samples {
		all = append(all, get(&s.samples[i]))
	}
	return all
}

func rate(s *sample) float64      { return s.rate }
func cpu(s *sample) float64       { return s.cpu }
func targetCPU(s *sample) float64 { return s.targetCPU }
func daemonCPU(s *sample) float64 { return s.daemonCPU }
func machine(s *sample) float64   { return s.machine }
func memory(s *sample) float64    { return s.memory }
func p50(s *sample) float64       { return s.p50 }
func p99(s *sample) float64       { return s.p99 }
func p999(s *sample) float64      { return s.p999 }

// ratios divides a figure of the first side by that of another, round by round.
func (r *result) ratios(other int, get func(*sample) float64) []float64 {
	var all []float64
	a, b := &r.sides[0], &r.sides[other]
	for i := range min(len(a.samples), len(b.samples)) {
		if v := get(&b.samples[i]); v > 0 {
			all = append(all, get(&a.samples[i])/v)
		}
	}
	return all
}

// median returns the middle of the values, 0 where there are none.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	switch n := len(v); {
	case n == 0:
		return 0
	case n%2 == 0:
		return (v[n/2-1] + v[n/2]) / 2
	default:
		return v[n/2]
	}
}
