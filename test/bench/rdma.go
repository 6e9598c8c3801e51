package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The measurement by RDMA runs in a virtual machine, where guest/bench.sh has
// made an RDMA device, a null logical unit of LIO that is served by iSER, and
// the kernel's initiator's disk of it.

// rdmaRole is the first argument that asks for it.
const rdmaRole = "rdma"

// rdmaSetup is what the machine has.
type rdmaSetup struct {
	*setup
	address string // of the RDMA device
	device  string // its name
	disk    string // of the kernel's initiator
}

// rdmaRow is a kind of load by RDMA.
type rdmaRow struct {
	row
	write bool
}

func rdmaRows() []rdmaRow {
	return []rdmaRow{
		{row: row{4 << 10, true, 32}},
		{row: row{128 << 10, false, 32}},
		{row: row{128 << 10, false, 32}, write: true},
		{row: row{1 << 20, false, 8}},
		{row: row{1 << 20, false, 8}, write: true},
	}
}

func (r rdmaRow) name() string {
	if r.write {
		return r.row.name() + " write"
	}
	return r.row.name() + " read"
}

// mode is what iscsibench and fio call it.
func (r rdmaRow) mode() string {
	mode := "read"
	if r.write {
		mode = "write"
	}
	if r.random {
		return "rand" + mode
	}
	return mode
}

// rdmaClient is a program that makes a load by RDMA. argv returns nil where it
// cannot do a row.
type rdmaClient struct {
	name     string
	argv     func(s *rdmaSetup, r rdmaRow) []string
	requests func(s *rdmaSetup, stdout []byte) (n, rate float64, err error)
	server   func(s *rdmaSetup, r rdmaRow) []string // has to run meanwhile; may be nil
}

func rdmaClients() []rdmaClient {
	return []rdmaClient{oursByRDMA, libiscsiByRDMA, kernelByRDMA, perftest}
}

var oursByRDMA = rdmaClient{
	name: "iscsibench",
	argv: func(s *rdmaSetup, r rdmaRow) []string {
		return []string{
			filepath.Join(s.bin, "iscsibench"), "-p", s.address + ":3260", "-t", targetName, "--iser", "--offload", "verbs",
			"--block", strconv.Itoa(r.block), "--depth", strconv.Itoa(r.depth), "--rw", r.mode(),
			"--time", s.time.String(), "--initiator", initiatorName, "--destroy-data", "--json",
		}
	},
	requests: func(s *rdmaSetup, stdout []byte) (float64, float64, error) { return ours.requests(s.setup, stdout) },
}

var libiscsiByRDMA = rdmaClient{
	name: "iscsi-perf",
	argv: func(s *rdmaSetup, r rdmaRow) []string {
		if r.write {
			return nil // it only reads
		}
		argv := []string{
			"iscsi-perf", "-i", initiatorName, "-b", strconv.Itoa(r.block / sector),
			"-m", strconv.Itoa(r.depth), "-t", strconv.Itoa(int(s.time / time.Second)),
		}
		if r.random {
			argv = append(argv, "-r")
		}
		return append(argv, fmt.Sprintf("iser://%s:3260/%s/0", s.address, targetName))
	},
	requests: func(s *rdmaSetup, stdout []byte) (float64, float64, error) { return libiscsi.requests(s.setup, stdout) },
}

var kernelByRDMA = rdmaClient{
	name: "ib_iser",
	argv: func(s *rdmaSetup, r rdmaRow) []string {
		return []string{
			"fio", "--name=bench", "--thread", "--ioengine=libaio", "--direct=1", "--filename=" + s.disk,
			"--rw=" + r.mode(), "--bs=" + strconv.Itoa(r.block), "--iodepth=" + strconv.Itoa(r.depth),
			"--time_based", "--runtime=" + strconv.Itoa(int(s.time/time.Second)), "--output-format=json",
		}
	},
	requests: func(_ *rdmaSetup, stdout []byte) (n, rate float64, err error) { return parseFio(stdout) },
}

// perftest moves the same bytes by bare verbs: a read of a disk is an RDMA Write
// of the target's, and a write an RDMA Read. Its client spins (it knows no events
// for these two), and its server waits at a socket.
var perftest = rdmaClient{
	name: "perftest",
	argv: func(s *rdmaSetup, r rdmaRow) []string { return append(perftestServer(s, r), s.address) },
	requests: func(s *rdmaSetup, stdout []byte) (n, rate float64, err error) {
		return parsePerftest(stdout)
	},
	server: perftestServer,
}

// perftestPort is where its two processes meet.
const perftestPort = 18515

// perftestMoves is how many bytes it moves, about, since it counts operations
// and not time.
const perftestMoves = 256 << 20

func perftestServer(s *rdmaSetup, r rdmaRow) []string {
	program := "ib_write_bw"
	if r.write {
		program = "ib_read_bw"
	}
	n := min(max(perftestMoves/r.block, 200), 20000)
	depth := r.depth
	if r.write {
		depth = min(depth, 16) // RDMA Reads that a device has under way
	}
	return []string{
		program, "-d", s.device, "-x", strconv.Itoa(gidIndex(s.device, s.address)), "-F", "-p", strconv.Itoa(perftestPort), "-s", strconv.Itoa(r.block),
		"-t", strconv.Itoa(depth), "-n", strconv.Itoa(n), "-Q", "1",
	}
}

var perftestLine = regexp.MustCompile(`(?m)^\s*(\d+)\s+(\d+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s*$`)

// parsePerftest reads the one line of figures: bytes, iterations, peak and average
// in MB/s, and millions of messages a second.
func parsePerftest(stdout []byte) (n, rate float64, err error) {
	m := perftestLine.FindSubmatch(stdout)
	if m == nil {
		return 0, 0, fmt.Errorf("perftest gave no figures:\n%s", tail(stdout))
	}
	size, err1 := strconv.ParseFloat(string(m[1]), 64)
	n, err2 := strconv.ParseFloat(string(m[2]), 64)
	average, err3 := strconv.ParseFloat(string(m[4]), 64)
	return n, average * (1 << 20) / size, errors.Join(err1, err2, err3)
}

// sampleByRDMA runs a client once.
func (s *rdmaSetup) sampleByRDMA(c rdmaClient, r rdmaRow) (x sample, err error) {
	if c.server != nil {
		process, err := startServer(c.server(s, r))
		if err != nil {
			return x, err
		}
		process.end = syscall.SIGKILL // it ends by itself with its client
		defer func() {
			if err != nil {
				err = process.failed(err)
				return
			}
			process.stop()
		}()
		if err := eventually(s.ctx, func() error { return listening(perftestPort) }); err != nil {
			return x, process.failed(err)
		}
	}
	before, start := machineCPU(), time.Now()
	f, err := runToEnd(s.ctx, c.argv(s, r))
	if err != nil {
		return x, err
	}
	elapsed, used := time.Since(start), machineCPU()-before
	n, rate, err := c.requests(s, f.stdout)
	if err != nil || n == 0 {
		return x, fmt.Errorf("%s did no request (%v):\n%s", c.name, err, tail(f.stdout))
	}
	return sample{
		rate: rate, cpu: f.cpu.Seconds() / n * 1e6,
		machine: used.Seconds() / n * 1e6, targetCPU: used.Seconds() / elapsed.Seconds(),
	}, nil
}

// listening reports whether somebody listens on a TCP port of this machine.
func listening(port int) error {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) { // sl local remote state ...
			if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[3] == "0A" {
				return nil
			}
		}
	}
	return fmt.Errorf("nobody listens on port %d", port)
}

// gidIndex returns where a device keeps the GID of an IPv4 address.
func gidIndex(device, address string) int {
	ip, _ := netip.ParseAddr(address)
	b := netip.AddrFrom16(ip.As16()).As16()
	want := fmt.Sprintf("0000:0000:0000:0000:0000:ffff:%02x%02x:%02x%02x", b[12], b[13], b[14], b[15])
	for i := range 16 {
		gid, err := os.ReadFile(fmt.Sprintf("/sys/class/infiniband/%s/ports/1/gids/%d", device, i))
		if err == nil && strings.TrimSpace(string(gid)) == want {
			return i
		}
	}
	return 0
}

// machineCPU is what all processors have worked so far.
func machineCPU() time.Duration {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	var total int64
	for i, f := range strings.Fields(line) { // cpu user nice system idle iowait irq softirq
		if n, err := strconv.ParseInt(f, 10, 64); err == nil && i < 8 && i != 4 && i != 5 {
			total += n
		}
	}
	return time.Duration(total) * clockTick
}

// rdmaResult is what the rounds have shown of a row, by client; a client that
// does not do the row has no samples.
type rdmaResult struct {
	row   rdmaRow
	sides []side
}

// measureRDMA lets all clients take turns on every row. One that fails is left out
// of the row's other rounds.
func (s *rdmaSetup) measureRDMA(rows []rdmaRow, clients []rdmaClient) ([]rdmaResult, error) {
	var all []rdmaResult
	var failed error
	for _, r := range rows {
		result := rdmaResult{row: r}
		for _, c := range clients {
			result.sides = append(result.sides, side{name: c.name})
		}
		unable := make([]bool, len(clients))
		for range s.rounds {
			for i, c := range clients {
				if unable[i] || c.argv(s, r) == nil {
					continue
				}
				x, err := s.sampleByRDMA(c, r)
				if err != nil {
					unable[i] = true
					fmt.Printf("%s, %s: %v\n", c.name, r.name(), err)
					failed = errors.Join(failed, fmt.Errorf("%s: %w", r.name(), err))
					continue
				}
				result.sides[i].samples = append(result.sides[i].samples, x)
			}
		}
		result.print()
		all = append(all, result)
	}
	return all, failed
}

func (r *rdmaResult) print() {
	fmt.Printf("%-26s %3d:", r.row.name(), r.row.depth)
	for _, s := range r.sides {
		if len(s.samples) > 0 {
			p := pair{a: r.sides[0], b: s}
			fmt.Printf(" %s %s/s %s µs (rate %s, CPU %s, machine %.2f);", s.name, whole(median(s.of(rate))), tenth(median(s.of(cpu))),
				spread(p.ratios(rate)), spread(p.ratios(cpu)), median(s.of(targetCPU)))
		}
	}
	fmt.Println()
}

// rdmaTables are the text for the document.
func (d *document) rdmaTables(results []rdmaResult) {
	for _, t := range []struct {
		what string
		get  func(sample) float64
		verb func(float64) string
	}{
		{"Requests/s", rate, whole},
		{"CPU of the client's process, µs/request", cpu, tenth},
		{"CPU of the whole machine, µs/request", machine, tenth},
	} {
		fmt.Fprintf(d, "\n%s:\n\n| Requests | Outstanding | iscsibench |", t.what)
		for _, s := range results[0].sides[1:] {
			fmt.Fprintf(d, " %s | ratio |", s.name)
		}
		d.WriteString("\n|---|--:|--:|" + strings.Repeat("--:|", 2*(len(results[0].sides)-1)) + "\n")
		for _, r := range results {
			fmt.Fprintf(d, "| %s | %d | %s |", r.row.name(), r.row.depth, t.verb(median(r.sides[0].of(t.get))))
			for _, s := range r.sides[1:] {
				p := pair{a: r.sides[0], b: s}
				fmt.Fprintf(d, " %s | %s |", t.verb(median(s.of(t.get))), spread(p.ratios(t.get)))
			}
			d.WriteString("\n")
		}
	}
}

// runRDMA is the measurement in the virtual machine: it writes its tables to a file.
func runRDMA(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench "+rdmaRole, flag.ContinueOnError)
	s := &setup{ctx: ctx}
	r := rdmaSetup{setup: s}
	flags.StringVar(&r.address, "address", "", "of the RDMA device")
	flags.StringVar(&r.device, "device", "", "its name")
	flags.StringVar(&r.disk, "disk", "", "of the kernel's initiator")
	flags.StringVar(&s.bin, "bin", "", "where our programs are")
	flags.IntVar(&s.rounds, "rounds", 3, "how often each row is run")
	flags.DurationVar(&s.time, "time", 2*time.Second, "how long one run takes; whole seconds")
	only := flags.String("rows", "", "only the rows whose name has this in it")
	out := flags.String("out", "", "the file for the tables")
	insert := flags.String("insert", "", "measure nothing, and put this file's tables into docs/performance.md")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *insert != "" {
		return insertTables(*insert)
	}
	var rows []rdmaRow
	for _, row := range rdmaRows() {
		if strings.Contains(row.name(), *only) {
			rows = append(rows, row)
		}
	}
	results, failed := r.measureRDMA(rows, rdmaClients())
	if *out == "" || len(results) == 0 {
		return failed
	}
	var doc document
	fmt.Fprintf(&doc, "\nMeasured %s in a virtual machine: Linux %s, %d × %s, %s; %s. %d rounds of %v each.\n",
		time.Now().UTC().Format("2006-01-02"), kernel(), runtime.NumCPU(), processor(), runtime.Version(), peers(), s.rounds, s.time)
	doc.rdmaTables(results)
	return errors.Join(failed, os.WriteFile(*out, []byte(doc.String()), 0o644))
}

// insertTables is what is left to be done outside of the virtual machine.
func insertTables(from string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return replaceTables(filepath.Join(root, "docs", "performance.md"), byRDMA, string(text))
}
