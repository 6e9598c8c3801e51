package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}

// TestParsers has output as the programs have written it.
func TestParsers(t *testing.T) {
	perf := "capacity is 2147483648 blocks\n\r00:00:01 - lba 1, iops current 46463 (181 MB/s), iops average 46463 (181 MB/s), in_flight 32, busy 0    \riops average 48675 (190 MB/s)      \n\nfinished.\n"
	if got, err := parsePerf([]byte(perf)); err != nil || got != 48675 {
		t.Errorf("iscsi-perf: %v, %v", got, err)
	}
	if _, err := parsePerf([]byte("Login Failed.\n")); err == nil {
		t.Error("iscsi-perf: no error without an average")
	}
	n, rate, err := parseFio([]byte("fio: connected to NBD server\n{\"jobs\": [{\"error\": 0, \"read\": {\"iops\": 3496.5, \"total_ios\": 3500}}]}\n"))
	if err != nil || n != 3500 || rate != 3496.5 {
		t.Errorf("fio: %v, %v, %v", n, rate, err)
	}
	for _, bad := range []string{"", "{}", `{"jobs": [{"error": 5}]}`} {
		if _, _, err := parseFio([]byte(bad)); err == nil {
			t.Errorf("fio: no error for %q", bad)
		}
	}
	if n, err := perfStat.parse("# started on Sun\n\n346905,,raw_syscalls:sys_enter,100,100.00,,\n"); err != nil || n != 346905 {
		t.Errorf("perf: %v, %v", n, err)
	}
	if _, err := perfStat.parse("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n"); err == nil {
		t.Error("perf: no error where nothing was counted")
	}
	table := "% time     seconds  usecs/call     calls    errors syscall\n 49.74    0.161658          24      6488           sendto\n100.00    0.325031          16     20042        22 total\n"
	if n, err := strace.parse(table); err != nil || n != 20042 {
		t.Errorf("strace: %v, %v", n, err)
	}
	if _, err := strace.parse("strace: Process 12 attached\n"); err == nil {
		t.Error("strace: no error where nothing was counted")
	}
}

func TestParseStat(t *testing.T) {
	const stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 33 0 0"
	if got, err := parseStat(stat); err != nil || got != 3*time.Second {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 4194560 1 0 0 0 x 50 0"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
	if used, err := cpuOf(os.Getpid()); err != nil || used < 0 {
		t.Errorf("of this process: %v, %v", used, err)
	}
}

func TestReplaced(t *testing.T) {
	old := "# Title\n" + bySocket.begin + "\nold\n" + bySocket.end + "\nend\n"
	want := "# Title\n" + bySocket.begin + "\n\nnew\n\n" + bySocket.end + "\nend\n"
	got, err := replaced([]byte(old), bySocket, "\nnew\n")
	if err != nil || string(got) != want {
		t.Errorf("%v, %q", err, got)
	}
	again, err := replaced(got, bySocket, "\nnew\n")
	if err != nil || string(again) != want {
		t.Errorf("a second time: %v, %q", err, again)
	}
	for _, bad := range []string{"", bySocket.begin, bySocket.end + bySocket.begin} {
		if _, err := replaced([]byte(bad), bySocket, "x"); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []marks{bySocket, byRDMA} {
		if _, err := replaced(doc, m, "x"); err != nil {
			t.Errorf("docs/performance.md: %v", err)
		}
	}
}

// TestTables checks that every row has as many cells as the head of its table.
func TestTables(t *testing.T) {
	full := pair{
		row: row{4096, true, 32},
		a:   side{"a", []sample{{rate: 100, cpu: 2, targetCPU: 0.5, daemonCPU: 3}, {rate: 300, cpu: 4, targetCPU: 0.9, daemonCPU: 3}}, 1.5},
		b:   side{"b", []sample{{rate: 50, cpu: 4, targetCPU: 0.5}, {rate: 100, cpu: 4, targetCPU: 0.5}}, 3},
	}
	lone := pair{row: row{128 << 10, false, 1}, a: full.a}
	var d document
	d.peerTable(&target{name: "x"}, []pair{full, lone})
	d.limitTable([]pair{full})
	d.nbdTable([]pair{full})
	d.nbdTable(nil)
	cells, rows := 0, 0
	for line := range strings.Lines(d.String()) {
		if !strings.HasPrefix(line, "|") {
			cells = 0
			continue
		}
		if cells == 0 {
			cells = strings.Count(line, "|")
		}
		if n := strings.Count(line, "|"); n != cells {
			t.Errorf("%d bars where the head has %d: %s", n, cells, line)
		}
		rows++
	}
	if rows != 10 {
		t.Errorf("%d rows in\n%s", rows, d.String())
	}
	for _, want := range []string{"| 200 |", "**2.50** (2.00–3.00)", "**0.75** (0.50–1.00)", "0.70 / 0.50", none} {
		if !strings.Contains(d.String(), want) {
			t.Errorf("%q is not in\n%s", want, d.String())
		}
	}
	full.a.samples[0].targetCPU = 1
	if !strings.Contains(full.load(), "†") {
		t.Errorf("no mark in %q", full.load())
	}
}

// counted counts the bytes of a connection.
type counted struct {
	net.Conn
	in, out int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in += n
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out += n
	return n, err
}

// TestLimit runs the bare loop's two sides, and counts the bytes between them.
func TestLimit(t *testing.T) {
	for _, block := range []int{4096, 128 << 10} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		server := &counted{Conn: accepted}
		done := make(chan struct{})
		go func() {
			answer(server)
			server.Close()
			close(done)
		}()
		n, elapsed, err := askFor(client, block, 4, 20*time.Millisecond)
		client.Close()
		<-done
		if err != nil || n == 0 || elapsed < 20*time.Millisecond {
			t.Errorf("%d requests in %v, %v", n, elapsed, err)
		}
		// Of the four that are outstanding at the end, some may be answered.
		if asked := (server.in - 1) / 48; asked < n || asked > n+4 {
			t.Errorf("%d requests were sent, %d answered", asked, n)
		}
		if answered := server.out / (48 + block); answered < n || answered > n+4 {
			t.Errorf("%d answers were sent, %d received", answered, n)
		}
	}
}

// TestPerftest has output as ib_write_bw has written it.
func TestPerftest(t *testing.T) {
	out := " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n 131072     2048             312.50             250.00 \t\t   0.002000\n-----\n"
	if n, rate, err := parsePerftest([]byte(out)); err != nil || n != 2048 || rate != 2000 {
		t.Errorf("%v, %v, %v", n, rate, err)
	}
	if _, _, err := parsePerftest([]byte(" Couldn't listen to port 18515\n")); err == nil {
		t.Error("no error without figures")
	}
}

// TestRDMATables: every row has a cell for each client, also for one that does
// not do it.
func TestRDMATables(t *testing.T) {
	one := side{"a", []sample{{rate: 100, cpu: 2, machine: 9}}, 0}
	var d document
	d.rdmaTables([]rdmaResult{{row: rdmaRows()[0], sides: []side{one, {name: "b"}, one}}})
	rows := 0
	for line := range strings.Lines(d.String()) {
		if strings.HasPrefix(line, "|") {
			rows++
			if n := strings.Count(line, "|"); n != 8 {
				t.Errorf("%d cells in %s", n-1, line)
			}
		}
	}
	if rows != 9 {
		t.Errorf("%d rows in\n%s", rows, d.String())
	}
}
