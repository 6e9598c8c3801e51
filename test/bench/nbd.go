package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// daemon is an iscsid with one session.
type daemon struct {
	*server
	socket string // of the disk
}

// startDaemon starts iscsid in a directory of its own, and adds a session.
func startDaemon(s *setup, t *target) (*daemon, error) {
	run := filepath.Join(s.dir, "run")
	process, err := startServer([]string{
		filepath.Join(s.bin, "iscsid"), "-d", "-P", filepath.Join(s.dir, "iscsid.pid"), "--run", run, "-o", "device=socket",
	})
	if err != nil {
		return nil, err
	}
	add := func() error {
		cmd := exec.CommandContext(s.ctx, filepath.Join(s.bin, "iscsictl"), "--socket", filepath.Join(run, "control.sock"),
			"-A", "-p", t.portal, "-t", targetName)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("iscsictl: %w: %s", err, out)
		}
		return nil
	}
	if err := eventually(s.ctx, add); err != nil {
		return nil, process.failed(err)
	}
	var sockets []string
	err = eventually(s.ctx, func() error {
		sockets, _ = filepath.Glob(filepath.Join(run, "nbd", "*.sock")) // the pattern is well formed
		if len(sockets) == 0 {
			return fmt.Errorf("iscsid shows no disk of %s", t.name)
		}
		return nil
	})
	if err != nil {
		return nil, process.failed(err)
	}
	return &daemon{process, sockets[0]}, nil
}

// fio is the client of the daemon's NBD socket.
func fio(socket string) client {
	return client{
		name: "fio",
		argv: func(s *setup, _ *target, r row) []string {
			mode := "read"
			if r.random {
				mode = "randread"
			}
			return []string{
				"fio", "--name=bench", "--thread", "--ioengine=nbd", "--uri=nbd+unix:///?socket=" + socket,
				"--rw=" + mode, "--bs=" + strconv.Itoa(r.block), "--iodepth=" + strconv.Itoa(r.depth),
				"--time_based", "--runtime=" + strconv.Itoa(int(s.time/time.Second)), "--output-format=json",
			}
		},
		requests: func(_ *setup, stdout []byte) (n, rate float64, err error) { return parseFio(stdout) },
	}
}

// parseFio reads fio's report.
func parseFio(stdout []byte) (n, rate float64, err error) {
	var report struct {
		Jobs []struct {
			Error int `json:"error"`
			Read  struct {
				Total float64 `json:"total_ios"`
				Rate  float64 `json:"iops"`
			} `json:"read"`
		} `json:"jobs"`
	}
	// The nbd engine says that it is connected before the report begins.
	if err := json.Unmarshal(stdout[max(bytes.IndexByte(stdout, '{'), 0):], &report); err != nil {
		return 0, 0, fmt.Errorf("fio's report: %w", err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Error != 0 {
		return 0, 0, errors.New("fio has failed")
	}
	return report.Jobs[0].Read.Total, report.Jobs[0].Read.Rate, nil
}

// throughNBD lets fio on iscsid's socket and iscsibench take turns, on the first target.
func (s *setup) throughNBD(targets []*target, rows []row) ([]pair, error) {
	if _, err := find("fio"); err != nil || len(targets) == 0 {
		return nil, err
	}
	t := targets[0]
	d, err := startDaemon(s, t)
	if err != nil {
		return nil, err
	}
	defer d.stop()
	c := fio(d.socket)
	var pairs []pair
	for _, r := range rows {
		p := pair{row: r, a: side{name: c.name}, b: side{name: ours.name}}
		for range s.rounds {
			before, err := cpuOf(d.pid())
			if err != nil {
				return nil, err
			}
			x, err := s.sampleOf(c, t, r)
			if err != nil {
				return nil, d.failed(err)
			}
			after, err := cpuOf(d.pid())
			if err != nil {
				return nil, err
			}
			x.daemonCPU = (after - before).Seconds() / (x.rate * s.time.Seconds()) * 1e6
			y, err := s.sampleOf(ours, t, r)
			if err != nil {
				return nil, err
			}
			p.a.samples, p.b.samples = append(p.a.samples, x), append(p.b.samples, y)
		}
		p.print("NBD")
		pairs = append(pairs, p)
	}
	return pairs, nil
}
