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
	"time"
)

// The measurement by RDMA runs in a virtual machine, where guest/bench.sh has
// made an RDMA device, a null logical unit of LIO that is served by iSER and on
// TCP, and the kernel's initiators' disks of it.

// rdmaRole is the first argument that asks for it.
const rdmaRole = "rdma"

// rdmaSetup is what the machine has.
type rdmaSetup struct {
	*setup
	address string // of the RDMA device
	device  string // its name
	disk    string // of the kernel's initiator, by iSER
	portal  string // on TCP
	tcpDisk string // of the kernel's initiator, by TCP
}

// contenders are the clients.
func (s *rdmaSetup) contenders() []contender {
	return []contender{
		s.byRDMA("iscsibench"),
		s.iscsiPerf(nil, fmt.Sprintf("iser://%s:3260/%s/0", s.address, targetName)),
		s.kernel("ib_iser", s.disk),
		// perftest moves the same bytes by bare verbs: a read of a disk is an RDMA
		// Write of the target's, and a write an RDMA Read. Its client spins (it knows
		// no events for these two), and its server waits at a socket.
		{
			name: "perftest", parse: parsePerftest, partner: s.perftest, port: perftestPort,
			argv: func(r row) []string { return append(s.perftest(r), s.address) },
		},
	}
}

// kernel is a disk of the kernel's own initiator. Much of what that does is not in
// fio's process.
func (s *rdmaSetup) kernel(name, disk string) contender {
	return contender{
		name: name, parse: parseFio,
		argv: func(r row) []string { return append(s.fioLoad(r), fioDisk(disk)...) },
	}
}

// onTCP are the clients of the same logical unit on TCP.
func (s *rdmaSetup) onTCP() []contender {
	t := &target{portal: s.portal}
	all := []contender{s.ours("iscsibench", t)}
	if s.peers.libiscsi != "" {
		all = append(all, s.libiscsi("libiscsi", t, "0", 1))
	}
	return append(all, s.kernel("iscsi_tcp", s.tcpDisk))
}

// byRDMA is ours, by verbs.
func (s *rdmaSetup) byRDMA(name string) contender {
	return s.ours(name, &target{portal: s.address + ":3260"}, "--iser", "--offload", "verbs")
}

// perftestPort is where its two processes meet.
const perftestPort = 18515

// perftestMoves is how many bytes it moves, about, since it counts operations
// and not time.
const perftestMoves = 256 << 20

func (s *rdmaSetup) perftest(r row) []string {
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
func parsePerftest(stdout []byte, _ row) (o outcome, err error) {
	m := perftestLine.FindSubmatch(stdout)
	if m == nil {
		return o, fmt.Errorf("perftest gave no figures:\n%s", tail(stdout))
	}
	size, err1 := strconv.ParseFloat(string(m[1]), 64)
	n, err2 := strconv.ParseFloat(string(m[2]), 64)
	average, err3 := strconv.ParseFloat(string(m[4]), 64)
	return outcome{requests: n, rate: average * (1 << 20) / size}, errors.Join(err1, err2, err3)
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

// runRDMA is the measurement in the virtual machine: it writes its tables to a file.
func runRDMA(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench "+rdmaRole, flag.ContinueOnError)
	s := &setup{ctx: ctx}
	r := rdmaSetup{setup: s}
	flags.StringVar(&r.address, "address", "", "of the RDMA device")
	flags.StringVar(&r.device, "device", "", "its name")
	flags.StringVar(&r.disk, "disk", "", "of the kernel's initiator, by iSER")
	flags.StringVar(&r.portal, "portal", "", "of the same target on TCP")
	flags.StringVar(&r.tcpDisk, "tcp-disk", "", "of the kernel's initiator, by TCP")
	flags.StringVar(&s.bin, "bin", "", "where our programs are")
	flags.IntVar(&s.rounds, "rounds", 3, "how often each row is run")
	flags.DurationVar(&s.time, "time", 2*time.Second, "how long one run takes; whole seconds")
	flags.StringVar(&s.only, "rows", "", "only the rows whose name has this in it")
	out := flags.String("out", "", "the file for the tables")
	insert := flags.String("insert", "", "measure nothing, and put this file's tables into docs/performance.md")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *insert != "" {
		return insertTables(*insert)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.dir = dir
	var doc document
	fmt.Fprintf(&doc, "\nMeasured %s in a virtual machine: Linux %s, %d × %s, %s; %s. %d rounds of %v each.\n",
		time.Now().UTC().Format("2006-01-02"), kernel(), runtime.NumCPU(), processor(), runtime.Version(), versions(), s.rounds, s.time)
	s.findPeers(&doc)
	var failed error
	for _, part := range []struct {
		title      string
		contenders []contender
	}{{"iSER", r.contenders()}, {"TCP", r.onTCP()}} {
		results, err := s.measure(chief(), part.contenders)
		failed = errors.Join(failed, err)
		fmt.Fprintf(&doc, "\n### %s\n", part.title)
		doc.table(results, figureRate)
		doc.table(results, figureCPU)
		doc.table(results, figure{"CPU of the whole machine, µs/request", machine, tenth, true})
	}
	if *out == "" {
		return failed
	}
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
	return replaceText(filepath.Join(root, "docs", "performance.md"), marksOf(rdmaRole), string(text))
}
