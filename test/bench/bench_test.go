package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
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
	const fioReport = "fio: connected to NBD server\n{\"jobs\": [{\"error\": 0, \"read\": {\"iops\": 3496.5, \"total_ios\": 3500, " +
		"\"clat_ns\": {\"percentile\": {\"50.000000\": 21000, \"99.000000\": 1500}}}, \"write\": {\"iops\": 7, \"total_ios\": 8}}]}\n"
	if got, err := parseFio([]byte(fioReport), row{}); err != nil || got != (outcome{requests: 3500, rate: 3496.5, p50: 21, p99: 1.5}) {
		t.Errorf("fio, reads: %+v, %v", got, err)
	}
	if got, err := parseFio([]byte(fioReport), row{write: true}); err != nil || got != (outcome{requests: 8, rate: 7}) {
		t.Errorf("fio, writes: %+v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"jobs": [{"error": 5}]}`} {
		if _, err := parseFio([]byte(bad), row{}); err == nil {
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
	m := marksOf("depth")
	old := "# Title\n" + m.begin + "\nold\n" + m.end + "\nend\n"
	want := "# Title\n" + m.begin + "\n\nnew\n\n" + m.end + "\nend\n"
	got, err := replaced([]byte(old), m, "\nnew\n")
	if err != nil || string(got) != want {
		t.Errorf("%v, %q", err, got)
	}
	again, err := replaced(got, m, "\nnew\n")
	if err != nil || string(again) != want {
		t.Errorf("a second time: %v, %q", err, again)
	}
	for _, bad := range []string{"", m.begin, m.end + m.begin} {
		if _, err := replaced([]byte(bad), m, "x"); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

// TestDocument: each section has its place in the document, and each plot is shown there.
func TestDocument(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	doc, err := os.ReadFile(filepath.Join(docs, "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(sectionNames(), rdmaRole) {
		if _, err := replaced(doc, marksOf(name), "x"); err != nil {
			t.Errorf("docs/performance.md: %v", err)
		}
	}
	plots, err := filepath.Glob(filepath.Join(docs, "plots", "*.svg"))
	if err != nil || len(plots) == 0 {
		t.Errorf("no plots (%v)", err)
	}
	for _, p := range plots {
		if !strings.Contains(string(doc), "(plots/"+filepath.Base(p)+")") {
			t.Errorf("docs/performance.md does not show %s", p)
		}
	}
}

// some are results as measure gives them: two contenders on two rows, of which one
// only the first does.
func some() []result {
	a := side{"a", []sample{{outcome: outcome{rate: 100}, cpu: 2, targetCPU: 0.5}, {outcome: outcome{rate: 300}, cpu: 4, targetCPU: 0.9}}, 1.5, false}
	b := side{"b", []sample{{outcome: outcome{rate: 50}, cpu: 4}, {outcome: outcome{rate: 100}, cpu: 4}}, 3, false}
	return []result{
		{row{block: 4096, random: true, depth: 32}, []side{a, b}},
		{row{block: 128 << 10, depth: 1, write: true}, []side{a, {name: "b", failed: true}}},
	}
}

// TestTables checks that every row has as many cells as the head of its table.
func TestTables(t *testing.T) {
	var d document
	d.comparison(some())
	d.table(nil, figureRate)
	d.calls(nil)
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
	if rows != 4*4 {
		t.Errorf("%d rows in\n%s", rows, d.String())
	}
	for _, want := range []string{"| 200 |", "**2.50** (2.00–3.00)", "**0.75** (0.50–1.00)", "| 0.70 |", "128 KiB sequential write", "| failed |", none} {
		if !strings.Contains(d.String(), want) {
			t.Errorf("%q is not in\n%s", want, d.String())
		}
	}
	busy := some()[0].sides[0]
	busy.samples[0].targetCPU = 1
	if !strings.Contains(busy.load(), "†") {
		t.Errorf("no mark in %q", busy.load())
	}
}

// TestPlot: a plot is well-formed XML, has a line for each contender that did
// something, and its points in order and within the panel.
func TestPlot(t *testing.T) {
	s := &setup{plots: t.TempDir()}
	results := some()
	more := some()[0]
	more.row.depth = 128
	if err := s.plot("x", "requests < outstanding", func(r row) int { return r.depth }, append(results, more)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(s.plots, "x.svg"))
	if err != nil {
		t.Fatal(err)
	}
	decoder := xml.NewDecoder(bytes.NewReader(data))
	for {
		if _, err := decoder.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, data)
		}
	}
	// Reads have both contenders in two panels, writes the first.
	if n := bytes.Count(data, []byte(`<g stroke="`)); n != 6 {
		t.Errorf("%d lines in\n%s", n, data)
	}
	if bytes.Contains(data, []byte("NaN")) || bytes.Contains(data, []byte("Inf")) {
		t.Errorf("no numbers in\n%s", data)
	}
}

func TestScale(t *testing.T) {
	for _, c := range []struct{ v, down, up float64 }{{1, 1, 1}, {1.5, 1, 2}, {2, 2, 2}, {7, 5, 10}, {0.3, 0.2, 0.5}, {430000, 200000, 500000}} {
		down, up := roundDown(c.v), roundUp(c.v)
		if math.Abs(down/c.down-1) > 1e-9 || math.Abs(up/c.up-1) > 1e-9 {
			t.Errorf("%v is between %v and %v", c.v, down, up)
		}
	}
	s := scale{1, 100, 0, 50}
	if s.at(10) != 25 || s.at(100) != 50 {
		t.Errorf("10 at %v, 100 at %v", s.at(10), s.at(100))
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
	for _, r := range both(row{block: 4096, depth: 4}, row{block: 128 << 10, depth: 4}) {
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
		var report bytes.Buffer
		err = askFor(client, r, 20*time.Millisecond, &report)
		client.Close()
		<-done
		got, err2 := parseReport(report.Bytes(), r)
		if err != nil || err2 != nil || got.requests == 0 || got.rate == 0 {
			t.Errorf("%s: %+v, %v, %v", r.name(), got, err, err2)
		}
		// Of the four that are outstanding at the end, some may be answered.
		n := int(got.requests)
		ask, reply := sizes(r.block, r.write)
		if asked := (server.in - helloLen) / ask; asked < n || asked > n+4 {
			t.Errorf("%s: %d requests were sent, %d answered", r.name(), asked, n)
		}
		if answered := server.out / reply; answered < n || answered > n+4 {
			t.Errorf("%s: %d answers were sent, %d received", r.name(), answered, n)
		}
	}
}

// TestPerftest has output as ib_write_bw has written it.
func TestPerftest(t *testing.T) {
	out := " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n 131072     2048             312.50             250.00 \t\t   0.002000\n-----\n"
	if got, err := parsePerftest([]byte(out), row{}); err != nil || got.requests != 2048 || got.rate != 2000 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parsePerftest([]byte(" Couldn't listen to port 18515\n"), row{}); err == nil {
		t.Error("no error without figures")
	}
}
