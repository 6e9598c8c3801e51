package main

import (
	"fmt"
	"slices"
)

// row is a kind of load.
type row struct {
	block  int // bytes
	random bool
	depth  int // requests outstanding
}

func rows() []row {
	return []row{
		{4 << 10, true, 1},
		{4 << 10, true, 32},
		{4 << 10, true, 128},
		{128 << 10, false, 1},
		{128 << 10, false, 32},
		{128 << 10, false, 128},
	}
}

func (r row) name() string {
	order := "sequential"
	if r.random {
		order = "random"
	}
	return fmt.Sprintf("%d KiB %s", r.block>>10, order)
}

// sample is what one run of a client has shown.
type sample struct {
	rate      float64 // requests a second
	cpu       float64 // CPU time of the client for a request, in µs, user and system
	targetCPU float64 // CPUs that the target has kept busy
	daemonCPU float64 // CPU time of iscsid for a request, in µs, where one is in between
	machine   float64 // CPU time of the whole machine for a request, in µs, by RDMA
}

// side is what the rounds of one client have shown on one row.
type side struct {
	name    string
	samples []sample
	calls   float64 // system calls for a request, from a run of its own; 0: not known
}

// pair is a row with the two sides that took turns.
type pair struct {
	row  row
	a, b side
}

// of collects one figure of all samples.
func (s *side) of(get func(sample) float64) []float64 {
	var all []float64
	for _, x := range s.samples {
		all = append(all, get(x))
	}
	return all
}

func rate(s sample) float64      { return s.rate }
func cpu(s sample) float64       { return s.cpu }
func targetCPU(s sample) float64 { return s.targetCPU }
func daemonCPU(s sample) float64 { return s.daemonCPU }
func machine(s sample) float64   { return s.machine }

// ratios divides a figure of a by that of b, round by round.
func (p *pair) ratios(get func(sample) float64) []float64 {
	var all []float64
	for i := range min(len(p.a.samples), len(p.b.samples)) {
		if b := get(p.b.samples[i]); b > 0 {
			all = append(all, get(p.a.samples[i])/b)
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
