package devicetest

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// Fio measures a device with fio: 4 KiB random reads and writes, and 128 KiB
// sequential ones, 32 outstanding. Beside fio's rate it reports this process's
// CPU time for each request, in microseconds. args say how to reach the device.
func Fio(b *testing.B, args ...string) {
	path, err := exec.LookPath("fio")
	if err != nil {
		b.Skip("SKIP: fio is not installed")
	}
	for _, job := range []struct{ rw, bs string }{
		{"randread", "4k"}, {"randwrite", "4k"}, {"read", "128k"}, {"write", "128k"},
	} {
		b.Run(job.rw+"-"+job.bs, func(b *testing.B) {
			for b.Loop() {
				before := cpuTime()
				cmd := exec.Command(path, append([]string{
					"--name=x", "--rw=" + job.rw, "--bs=" + job.bs,
					"--iodepth=32", "--time_based", "--runtime=3", "--output-format=json",
				}, args...)...)
				cmd.Dir = b.TempDir()
				out, err := cmd.Output()
				if err != nil {
					b.Fatalf("fio: %v\n%.200s", err, out)
				}
				spent := cpuTime() - before
				type rate struct {
					IOPS  float64 `json:"iops"`
					Bytes float64 `json:"bw_bytes"`
					Total float64 `json:"total_ios"`
				}
				var got struct {
					Jobs []struct{ Read, Write rate } `json:"jobs"`
				}
				report := out[max(bytes.IndexByte(out, '{'), 0):] // after what the engine says
				if err := json.Unmarshal(report, &got); err != nil || len(got.Jobs) != 1 {
					b.Fatalf("fio: %v\n%.200s", err, out)
				}
				r := got.Jobs[0].Read
				if r.Total == 0 {
					r = got.Jobs[0].Write
				}
				b.ReportMetric(r.IOPS, "req/s")
				b.ReportMetric(r.Bytes/1e6, "MB/s")
				b.ReportMetric(float64(spent.Microseconds())/r.Total, "cpu-µs/req")
			}
		})
	}
}

// cpuTime returns this process's CPU time.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
