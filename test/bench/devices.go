package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// daemon is an iscsid with one session.
type daemon struct {
	*server
	disk string // the block device or the socket
}

// startDaemon starts iscsid in a directory of its own with one kind of device, and
// adds a session.
func (s *setup) startDaemon(t *target, device string) (*daemon, error) {
	dir, err := os.MkdirTemp(s.dir, device)
	if err != nil {
		return nil, err
	}
	run := filepath.Join(dir, "run")
	process, err := startServer([]string{
		filepath.Join(s.bin, "iscsid"), "-d", "-P", filepath.Join(dir, "pid"), "--run", run,
		"--state", filepath.Join(dir, "state"), "-o", "device=" + device,
	})
	if err != nil {
		return nil, err
	}
	ctl := func(args ...string) error {
		cmd := exec.CommandContext(s.ctx, filepath.Join(s.bin, "iscsictl"), append([]string{"--socket", filepath.Join(run, "control.sock")}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("iscsictl: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	}
	// Where the session is there but has no disk yet, a second -A says that it exists.
	if err := eventually(s.ctx, func() error { return ctl("-A", "-p", t.portal, "-t", targetName) }); err != nil {
		return nil, process.failed(err)
	}
	disk := ""
	err = eventually(s.ctx, func() error {
		link := filepath.Join(run, "by-target", targetName, "lun"+strconv.Itoa(t.lun))
		if disk, err = os.Readlink(link); err != nil {
			return fmt.Errorf("no disk: %w", err)
		}
		if !filepath.IsAbs(disk) {
			disk = filepath.Join(filepath.Dir(link), disk)
		}
		_, err := os.Stat(disk)
		return err
	})
	if err != nil {
		return nil, process.failed(err)
	}
	return &daemon{process, disk}, nil
}

// fio is the client of a disk of iscsid: a block device, or an NBD socket.
func (s *setup) fio(name string, t *server, d *daemon) contender {
	return contender{
		name: name, target: t, daemon: d.server, parse: parseFio, untraced: true, own: true,
		argv: func(r row) []string { return append(s.fioLoad(r), fioDisk(d.disk)...) },
	}
}

func (s *setup) fioLoad(r row) []string {
	return []string{
		"fio", "--name=bench", "--thread", "--rw=" + r.mode(), "--bs=" + strconv.Itoa(r.block),
		"--iodepth=" + strconv.Itoa(r.depth), "--time_based", "--runtime=" + s.seconds(), "--output-format=json",
	}
}

// fioDisk is how fio is told of a disk.
func fioDisk(path string) []string {
	if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		return []string{"--ioengine=nbd", "--uri=nbd+unix:///?socket=" + path}
	}
	return []string{"--ioengine=libaio", "--direct=1", "--filename=" + path}
}

// parseFio reads fio's report.
func parseFio(stdout []byte, r row) (o outcome, err error) {
	type done struct {
		Total   float64 `json:"total_ios"`
		Rate    float64 `json:"iops"`
		Latency struct {
			Percentile struct {
				P50  float64 `json:"50.000000"`
				P99  float64 `json:"99.000000"`
				P999 float64 `json:"99.900000"`
			} `json:"percentile"`
		} `json:"clat_ns"`
	}
	var report struct {
		Jobs []struct {
			Error int  `json:"error"`
			Read  done `json:"read"`
			Write done `json:"write"`
		} `json:"jobs"`
	}
	// The nbd engine says that it is connected before the report begins.
	if err := json.Unmarshal(stdout[max(bytes.IndexByte(stdout, '{'), 0):], &report); err != nil {
		return o, fmt.Errorf("fio's report: %w", err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Error != 0 {
		return o, errors.New("fio has failed")
	}
	x := report.Jobs[0].Read
	if r.write {
		x = report.Jobs[0].Write
	}
	p := x.Latency.Percentile
	return outcome{x.Total, x.Rate, p.P50 / 1000, p.P99 / 1000, p.P999 / 1000}, nil
}

// throughDevices compares ours in process with the same behind each kind of device
// that there is here.
func (s *setup) throughDevices(d *document) error {
	if _, err := find("fio"); err != nil {
		d.leftOut("devices", err)
		return nil
	}
	t, err := startEmbedded(s)
	if err != nil {
		return err
	}
	defer t.stop()
	contenders := []contender{s.ours("in process", t)}
	for _, kind := range []struct{ device, name string }{{"ublk", "ublk"}, {"nbd", "NBD, kernel"}, {"loop", "loop over FUSE"}, {"socket", "NBD, socket"}} {
		disk, err := s.startDaemon(t, kind.device)
		if err != nil {
			d.leftOut("device "+kind.device, errors.New("iscsid has none here"))
			fmt.Println(err)
			continue
		}
		defer disk.stop()
		contenders = append(contenders, s.fio(kind.name, t.server, disk))
	}
	rows := append(both(row{block: 4 << 10, random: true, depth: 1}), chief()...)
	results, err := s.measure(rows, contenders)
	d.table(results, figureRate)
	d.table(results, figureCPU)
	d.table(results, figure{"CPU of iscsid, µs/request", daemonCPU, tenth, false})
	d.table(results, figureP50)
	return err
}
