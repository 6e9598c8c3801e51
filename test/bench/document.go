package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// marks are the lines of the document that tables are between.
type marks struct{ begin, end string }

var (
	bySocket = marks{"<!-- measured: begin (go run ./test/bench writes this) -->", "<!-- measured: end -->"}
	byRDMA   = marks{"<!-- measured by RDMA: begin (make bench-vm writes this) -->", "<!-- measured by RDMA: end -->"}
)

// busy is from how much of a CPU on a single-threaded server counts as the limit.
const busy = 0.85

// document is the text that goes between the marks.
type document struct {
	strings.Builder
}

// leftOut says what could not be measured.
func (d *document) leftOut(err error) {
	line := fmt.Sprintf("Left out: %v (run: make deps).", err)
	fmt.Println(line)
	fmt.Fprintf(d, "\n%s\n", line)
}

// peerTable shows ours and libiscsi on one target.
func (d *document) peerTable(t *target, pairs []pair) {
	fmt.Fprintf(d, "\n### Against libiscsi, on %s\n\n", t.name)
	d.WriteString("| Reads | Outstanding | Requests/s: iscsibench | iscsi-perf | ratio | CPU µs/request: iscsibench | iscsi-perf | ratio | Calls/request: iscsibench | iscsi-perf | ratio | Target's CPUs |\n")
	d.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, p := range pairs {
		fmt.Fprintf(d, "| %s | %d | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", p.row.name(), p.row.depth,
			whole(median(p.a.of(rate))), whole(median(p.b.of(rate))), spread(p.ratios(rate)),
			tenth(median(p.a.of(cpu))), tenth(median(p.b.of(cpu))), spread(p.ratios(cpu)),
			hundredth(p.a.calls), hundredth(p.b.calls), quotient(p.a.calls, p.b.calls), p.load())
	}
}

// limitTable shows ours on the embedded target beside the bare loop.
func (d *document) limitTable(pairs []pair) {
	d.WriteString("\n### Against a bare loop over a socket\n\n")
	d.WriteString("| Reads | Outstanding | Requests/s: iscsibench | bare loop | ratio | CPU µs/request: iscsibench | bare loop | ratio | Calls/request: bare loop | Servers' CPUs |\n")
	d.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, p := range pairs {
		fmt.Fprintf(d, "| %s | %d | %s | %s | %s | %s | %s | %s | %s | %s |\n", p.row.name(), p.row.depth,
			whole(median(p.a.of(rate))), whole(median(p.b.of(rate))), spread(p.ratios(rate)),
			tenth(median(p.a.of(cpu))), tenth(median(p.b.of(cpu))), spread(p.ratios(cpu)),
			hundredth(p.b.calls), p.load())
	}
}

// nbdTable shows fio on iscsid's socket beside iscsibench, which has no device.
func (d *document) nbdTable(pairs []pair) {
	if len(pairs) == 0 {
		return
	}
	d.WriteString("\n### The whole way: fio on the NBD socket of iscsid\n\n")
	d.WriteString("| Reads | Outstanding | Requests/s: fio through iscsid | iscsibench | ratio | CPU µs/request: iscsid | fio | iscsibench | Target's CPUs |\n")
	d.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, p := range pairs {
		fmt.Fprintf(d, "| %s | %d | %s | %s | %s | %s | %s | %s | %s |\n", p.row.name(), p.row.depth,
			whole(median(p.a.of(rate))), whole(median(p.b.of(rate))), spread(p.ratios(rate)),
			tenth(median(p.a.of(daemonCPU))), tenth(median(p.a.of(cpu))), tenth(median(p.b.of(cpu))), p.load())
	}
}

// load is how busy the servers of both sides were, with a mark where one of them
// had hardly any time left.
func (p *pair) load() string {
	a, b := median(p.a.of(targetCPU)), median(p.b.of(targetCPU))
	text := fmt.Sprintf("%.2f", a)
	if len(p.b.samples) > 0 {
		text += fmt.Sprintf(" / %.2f", b)
	}
	if max(a, b) >= busy {
		text += " †"
	}
	return text
}

// print shows a row while the measurement goes on.
func (p *pair) print(where string) {
	fmt.Printf("%-20s %-18s %4d: %s %s/s %s µs", where, p.row.name(), p.row.depth,
		p.a.name, whole(median(p.a.of(rate))), tenth(median(p.a.of(cpu))))
	if len(p.b.samples) > 0 {
		fmt.Printf(", %s %s/s %s µs; rate %s, CPU %s", p.b.name, whole(median(p.b.of(rate))), tenth(median(p.b.of(cpu))),
			spread(p.ratios(rate)), spread(p.ratios(cpu)))
	}
	if p.a.calls > 0 || p.b.calls > 0 {
		fmt.Printf("; calls %s, %s", hundredth(p.a.calls), hundredth(p.b.calls))
	}
	fmt.Printf("; target %s\n", p.load())
}

const none = "–"

func format(verb string, v float64) string {
	if v == 0 {
		return none
	}
	return fmt.Sprintf(verb, v)
}

func whole(v float64) string     { return format("%.0f", v) }
func tenth(v float64) string     { return format("%.1f", v) }
func hundredth(v float64) string { return format("%.2f", v) }

func quotient(a, b float64) string {
	if a == 0 || b == 0 {
		return none
	}
	return fmt.Sprintf("%.2f", a/b)
}

// spread is the median of ratios, with the least and the greatest.
func spread(ratios []float64) string {
	if len(ratios) == 0 {
		return none
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
}

// replaceTables puts the text between the marks of a document.
func replaceTables(path string, m marks, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	updated, err := replaced(old, m, text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, updated, 0o644)
}

func replaced(old []byte, m marks, text string) ([]byte, error) {
	before, rest, ok := bytes.Cut(old, []byte(m.begin))
	_, after, ok2 := bytes.Cut(rest, []byte(m.end))
	if !ok || !ok2 {
		return nil, fmt.Errorf("the lines %q and %q are needed, in this order", m.begin, m.end)
	}
	return slices.Concat(before, []byte(m.begin+"\n"+strings.TrimRight(text, "\n")+"\n\n"+m.end), after), nil
}
