package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// client is a program that makes a load.
type client struct {
	name string
	// argv is the command for a row on a target.
	argv func(s *setup, t *target, r row) []string
	// requests finds out from the output how many requests were done, and how
	// many of them a second.
	requests func(s *setup, stdout []byte) (n, rate float64, err error)
}

// ours is this project's session layer.
var ours = client{
	name: "iscsibench",
	argv: func(s *setup, t *target, r row) []string {
		mode := "read"
		if r.random {
			mode = "randread"
		}
		return []string{
			filepath.Join(s.bin, "iscsibench"), "-p", t.portal, "-t", targetName, "-l", strconv.Itoa(t.lun),
			"--block", strconv.Itoa(r.block), "--depth", strconv.Itoa(r.depth), "--rw", mode,
			"--time", s.time.String(), "--initiator", initiatorName, "--json",
		}
	},
	requests: func(_ *setup, stdout []byte) (n, rate float64, err error) {
		var report struct {
			Requests float64 `json:"requests"`
			Rate     float64 `json:"requests_per_second"`
		}
		err = json.Unmarshal(stdout, &report)
		return report.Requests, report.Rate, err
	},
}

// sector is the size of tgtd's blocks and of the embedded target's, in bytes.
const sector = 512

// libiscsi is what the same load costs with libiscsi.
var libiscsi = client{
	name: "iscsi-perf",
	argv: func(s *setup, t *target, r row) []string {
		argv := []string{
			"iscsi-perf", "-i", initiatorName, "-b", strconv.Itoa(r.block / sector),
			"-m", strconv.Itoa(r.depth), "-t", strconv.Itoa(int(s.time / time.Second)),
		}
		if r.random {
			argv = append(argv, "-r")
		}
		return append(argv, t.url())
	},
	requests: func(s *setup, stdout []byte) (n, rate float64, err error) {
		rate, err = parsePerf(stdout)
		return rate * s.time.Seconds(), rate, err
	},
}

var perfAverage = regexp.MustCompile(`iops average (\d+)`)

// parsePerf returns the last average of iscsi-perf's output.
func parsePerf(stdout []byte) (float64, error) {
	all := perfAverage.FindAllSubmatch(stdout, -1)
	if len(all) == 0 {
		return 0, fmt.Errorf("iscsi-perf gave no average:\n%s", tail(stdout))
	}
	return strconv.ParseFloat(string(all[len(all)-1][1]), 64)
}

// sampleOf runs a client once.
func (s *setup) sampleOf(c client, t *target, r row) (sample, error) {
	before, err := cpuOf(t.pid())
	if err != nil {
		return sample{}, err
	}
	start := time.Now()
	f, err := runToEnd(s.ctx, c.argv(s, t, r))
	if err != nil {
		return sample{}, err
	}
	elapsed := time.Since(start)
	after, err := cpuOf(t.pid())
	if err != nil {
		return sample{}, err
	}
	n, rate, err := c.requests(s, f.stdout)
	if err != nil || n == 0 {
		return sample{}, fmt.Errorf("%s did no request (%v):\n%s", c.name, err, tail(f.stdout))
	}
	return sample{
		rate:      rate,
		cpu:       f.cpu.Seconds() / n * 1e6,
		targetCPU: (after - before).Seconds() / elapsed.Seconds(),
	}, nil
}

// againstPeer lets ours and libiscsi take turns on a target.
func (s *setup) againstPeer(t *target, rows []row, doc *document) ([]pair, error) {
	clients := []client{ours}
	if _, err := find("iscsi-perf"); err != nil {
		doc.leftOut(err)
	} else {
		clients = append(clients, libiscsi)
	}
	var pairs []pair
	for _, r := range rows {
		p := pair{row: r}
		sides := []*side{&p.a, &p.b}
		for range s.rounds {
			for i, c := range clients {
				x, err := s.sampleOf(c, t, r)
				if err != nil {
					return nil, err
				}
				sides[i].samples = append(sides[i].samples, x)
			}
		}
		for i, c := range clients {
			sides[i].name = c.name
			if err := s.traced(sides[i], c, t, r); err != nil {
				return nil, err
			}
		}
		p.print(t.name)
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// traced counts a client's system calls, in a run of its own.
func (s *setup) traced(to *side, c client, t *target, r row) error {
	if s.tracer == nil {
		return nil
	}
	calls, f, err := s.tracer.count(s, c.argv(s, t, r))
	if err != nil {
		return err
	}
	n, _, err := c.requests(s, f.stdout)
	if err == nil && n > 0 {
		to.calls = calls / n
	}
	return err
}
