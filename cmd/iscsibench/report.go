package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// report is what a run has found, as --json has it. Rates are in requests and
// bytes a second; times are in the unit that their name says.
type report struct {
	Target   string   `json:"target"`
	Portal   string   `json:"portal"`
	Units    []string `json:"units"`
	Mode     mode     `json:"mode"`
	Block    int      `json:"block_bytes"`
	Depth    int      `json:"depth"`
	Sessions int      `json:"sessions"`
	Digests  bool     `json:"digests"`
	ISER     bool     `json:"iser"`
	// Connection is what there is to know of the first session's, with iSER.
	Connection map[string]string `json:"connection,omitempty"`
	Asked      float64           `json:"rate_asked,omitempty"` // requests a second

	Seconds   float64 `json:"seconds"`
	Requests  uint64  `json:"requests"`
	SentAgain uint64  `json:"sent_again"` // after BUSY, TASK SET FULL or a unit attention
	Rate      float64 `json:"requests_per_second"`
	Bytes     float64 `json:"bytes_per_second"`

	Latency latency `json:"latency_microseconds"`

	User        float64 `json:"cpu_seconds_user"`
	System      float64 `json:"cpu_seconds_system"`
	PerMillion  float64 `json:"cpu_seconds_per_million_requests"`
	Allocations float64 `json:"allocations_per_request"`
	Voluntary   int64   `json:"context_switches_voluntary"`
	Involuntary int64   `json:"context_switches_involuntary"`
}

type latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// report sums up what all loads have done. They must have ended.
func (b *bench) report(elapsed time.Duration, used usage) *report {
	r := &report{
		Target: b.o.target.TargetName, Portal: b.o.target.TargetAddress,
		Mode: b.o.mode, Block: b.o.block, Depth: b.o.depth, Sessions: b.o.sessions,
		Digests: b.o.target.DataDigest, ISER: b.o.target.ISER, Asked: b.o.rate,
		Seconds: elapsed.Seconds(), User: used.user.Seconds(), System: used.system.Seconds(),
		Voluntary: used.voluntary, Involuntary: used.involuntary,
	}
	for _, u := range b.loads[0].units {
		r.Units = append(r.Units, fmt.Sprintf("LUN %v, %s, %d blocks of %d bytes", u.lun, u.name, u.blocks, u.blockLength))
	}
	for _, f := range b.nexus[0].session.Info().Facts {
		if r.Connection == nil {
			r.Connection = map[string]string{}
		}
		r.Connection[f.Name] = f.Value
	}
	all := &histogram{}
	for _, l := range b.loads {
		all.merge(&l.latency)
		r.Requests += l.requestN
		r.SentAgain += l.again
	}
	r.Rate = float64(r.Requests) / r.Seconds
	r.Bytes = r.Rate * float64(r.Block)
	r.Latency = latency{
		Mean: microseconds(all.mean()), P50: microseconds(all.quantile(0.5)), P99: microseconds(all.quantile(0.99)),
		P999: microseconds(all.quantile(0.999)), Max: microseconds(all.max),
	}
	if n := float64(r.Requests); n > 0 {
		r.PerMillion = (r.User + r.System) / n * 1e6
		r.Allocations = float64(used.allocations) / n
	}
	return r
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r *report) writeText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s\n", r.Target, r.Portal)
	for _, u := range r.Units {
		fmt.Fprintf(&b, "  %s\n", u)
	}
	fmt.Fprintf(&b, "%s, %d bytes, %d outstanding, %d session(s)", r.Mode, r.Block, r.Depth, r.Sessions)
	if r.Digests {
		b.WriteString(", digests")
	}
	if r.ISER {
		fmt.Fprintf(&b, ", iSER by %s", r.Connection["rdmaProvider"])
		if device := r.Connection["rdmaDevice"]; device != "" {
			fmt.Fprintf(&b, " on %s", device)
		}
	}
	if r.Asked > 0 {
		fmt.Fprintf(&b, ", %.0f requests/s asked for", r.Asked)
	}
	fmt.Fprintf(&b, "\n\nrequests          %d in %.2f s", r.Requests, r.Seconds)
	if r.SentAgain > 0 {
		fmt.Fprintf(&b, " (and %d sent again: busy target or unit attention)", r.SentAgain)
	}
	fmt.Fprintf(&b, "\nrate              %.0f requests/s, %.1f MB/s\n", r.Rate, r.Bytes/1e6)
	fmt.Fprintf(&b, "latency           p50 %.0f, p99 %.0f, p99.9 %.0f, max %.0f, mean %.0f µs\n",
		r.Latency.P50, r.Latency.P99, r.Latency.P999, r.Latency.Max, r.Latency.Mean)
	fmt.Fprintf(&b, "CPU               %.2f s user, %.2f s system; %.2f s for a million requests\n", r.User, r.System, r.PerMillion)
	fmt.Fprintf(&b, "context switches  %d voluntary, %d involuntary\n", r.Voluntary, r.Involuntary)
	fmt.Fprintf(&b, "allocations       %.4f for a request\n", r.Allocations)
	_, err := io.WriteString(w, b.String())
	return err
}
