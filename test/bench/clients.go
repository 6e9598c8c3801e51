package main

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// seconds is the length of a run as other programs want it.
func (s *setup) seconds() string { return strconv.Itoa(int(s.time / time.Second)) }

// parseReport reads what iscsibench prints, and the peers written in C.
func parseReport(stdout []byte, _ row) (outcome, error) {
	var report struct {
		Requests float64 `json:"requests"`
		Rate     float64 `json:"requests_per_second"`
		Latency  struct {
			P50  float64 `json:"p50"`
			P99  float64 `json:"p99"`
			P999 float64 `json:"p99_9"`
		} `json:"latency_microseconds"`
	}
	err := json.Unmarshal(stdout, &report)
	l := report.Latency
	return outcome{report.Requests, report.Rate, l.P50, l.P99, l.P999}, err
}

// ours is this project's session layer, with further options of iscsibench.
func (s *setup) ours(name string, t *target, options ...string) contender {
	return contender{
		name: name, target: t.server, parse: parseReport, own: true,
		argv: func(r row) []string {
			argv := []string{
				filepath.Join(s.bin, "iscsibench"), "-p", t.portal, "-t", targetName,
				"--block", strconv.Itoa(r.block), "--depth", strconv.Itoa(r.depth), "--rw", r.mode(),
				"--time", s.time.String(), "--initiator", initiatorName, "--destroy-data", "--json",
			}
			if r.rate > 0 {
				argv = append(argv, "--rate", fmt.Sprint(r.rate))
			}
			return append(argv, options...)
		},
	}
}

// libiscsi makes the same load with libiscsi, on these logical units (separated by
// commas) and in so many sessions.
func (s *setup) libiscsi(name string, t *target, luns string, sessions int) contender {
	return contender{
		name: name, target: t.server, parse: parseReport,
		argv: func(r row) []string {
			return []string{
				s.peers.libiscsi, t.portal, targetName, initiatorName, luns, r.mode(), strconv.Itoa(r.block),
				strconv.Itoa(r.depth), strconv.Itoa(sessions), fmt.Sprint(r.rate), s.seconds(),
			}
		},
	}
}

// sector is the size of tgtd's blocks and of the embedded target's, in bytes.
const sector = 512

// iscsiPerf is libiscsi's own benchmark. It only reads. url names the logical unit.
func (s *setup) iscsiPerf(t *target, url string) contender {
	c := contender{
		name: "iscsi-perf",
		argv: func(r row) []string {
			if r.write || r.rate > 0 {
				return nil
			}
			argv := []string{
				"iscsi-perf", "-i", initiatorName, "-b", strconv.Itoa(r.block / sector),
				"-m", strconv.Itoa(r.depth), "-t", s.seconds(),
			}
			if r.random {
				argv = append(argv, "-r")
			}
			return append(argv, url)
		},
		parse: func(stdout []byte, _ row) (o outcome, err error) {
			o.rate, err = parsePerf(stdout)
			o.requests = o.rate * s.time.Seconds()
			return o, err
		},
	}
	if t != nil {
		c.target = t.server
	}
	return c
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

//go:embed peers/*.c
var peerSources embed.FS

// peers are what could be had to be compared with; an empty path says that one could not.
type peers struct {
	bareLoop, libiscsi string
	perf               bool
}

// findPeers compiles those that are written in C. What is missing is said in the document.
func (s *setup) findPeers(d *document) {
	for _, p := range []struct {
		what, source, library string
		to                    *string
	}{
		{"the bare loop in C", "bareloop.c", "", &s.peers.bareLoop},
		{"libiscsi", "libiscsiload.c", "-liscsi", &s.peers.libiscsi},
	} {
		path, err := s.compile(p.source, p.library)
		if err != nil {
			d.leftOut(p.what, err)
			continue
		}
		*p.to = path
	}
	if _, err := find("iscsi-perf"); err != nil {
		d.leftOut("iscsi-perf", err)
	} else {
		s.peers.perf = true
	}
}

// compile makes a program of one source.
func (s *setup) compile(source, library string) (string, error) {
	text, err := peerSources.ReadFile("peers/" + source)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, strings.TrimSuffix(source, ".c"))
	if err := os.WriteFile(path+".c", text, 0o644); err != nil {
		return "", err
	}
	args := []string{"-O2", "-Wall", "-Wextra", "-o", path, path + ".c"}
	if library != "" {
		args = append(args, library)
	}
	out, err := exec.CommandContext(s.ctx, "gcc", args...).CombinedOutput()
	switch first, _, _ := strings.Cut(string(out), "\n"); {
	case errors.Is(err, exec.ErrNotFound):
		return "", err
	case err != nil:
		return "", fmt.Errorf("it does not compile (make deps installs what it needs): %s", first)
	}
	return path, nil
}
