package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// marks are the lines of the document that a section's text is between.
type marks struct{ begin, end string }

func marksOf(section string) marks {
	return marks{
		fmt.Sprintf("<!-- measured, %s: begin (test/bench writes this) -->", section),
		fmt.Sprintf("<!-- measured, %s: end -->", section),
	}
}

// busy is from how much of a CPU on a single-threaded server counts as the limit.
const busy = 0.85

// document is the text that goes between the marks.
type document struct {
	strings.Builder
}

// leftOut says what could not be measured.
func (d *document) leftOut(what string, why error) {
	line := fmt.Sprintf("Left out: %s, as %v.", what, why)
	fmt.Println(line)
	fmt.Fprintf(d, "\n%s\n", line)
}

// figure is what a table shows of the samples.
type figure struct {
	title string
	get   func(*sample) float64
	verb  func(float64) string
	ratio bool
}

var (
	figureRate   = figure{"Requests/s", rate, whole, true}
	figureCPU    = figure{"CPU of the client's process, µs/request", cpu, tenth, true}
	figureMemory = figure{"Memory of the client, resident at most, MiB", memory, tenth, false}
	figureP50    = figure{"Latency, p50, µs", p50, tenth, true}
	figureP99    = figure{"Latency, p99, µs", p99, tenth, true}
	figureP999   = figure{"Latency, p99.9, µs", p999, tenth, false}
)

// table shows one figure of the contenders, and how the first compares with each other.
func (d *document) table(results []result, f figure) {
	if len(results) == 0 {
		return
	}
	fmt.Fprintf(d, "\n%s:\n\n| Requests | Outstanding | %s |", f.title, results[0].sides[0].name)
	rule := "\n|---|--:|--:|"
	for _, x := range results[0].sides[1:] {
		fmt.Fprintf(d, " %s |", x.name)
		rule += "--:|"
		if f.ratio {
			d.WriteString(" ratio |")
			rule += "--:|"
		}
	}
	d.WriteString(rule + "\n")
	for _, r := range results {
		fmt.Fprintf(d, "| %s | %s | %s |", r.row.name(), r.row.outstanding(), f.verb(median(r.sides[0].of(f.get))))
		for i, x := range r.sides[1:] {
			cell := f.verb(median(x.of(f.get)))
			if x.failed {
				cell = "failed"
			}
			fmt.Fprintf(d, " %s |", cell)
			if f.ratio {
				fmt.Fprintf(d, " %s |", spread(r.ratios(i+1, f.get)))
			}
		}
		d.WriteString("\n")
	}
}

// outstanding is a row's second cell.
func (r row) outstanding() string {
	if r.rate > 0 {
		return fmt.Sprintf("%.0f/s", r.rate)
	}
	return fmt.Sprint(r.depth)
}

// calls is the table of system calls, which come from a run of their own.
func (d *document) calls(results []result) {
	if len(results) == 0 || !slices.ContainsFunc(results[0].sides, func(s side) bool { return s.calls > 0 }) {
		return
	}
	d.WriteString("\nSystem calls/request, and the CPUs that the target had busy in the runs of the first:\n\n| Requests | Outstanding |")
	for _, x := range results[0].sides {
		fmt.Fprintf(d, " %s |", x.name)
	}
	d.WriteString(" target's CPUs |\n|---|--:|" + strings.Repeat("--:|", len(results[0].sides)+1) + "\n")
	for _, r := range results {
		fmt.Fprintf(d, "| %s | %s |", r.row.name(), r.row.outstanding())
		for _, x := range r.sides {
			fmt.Fprintf(d, " %s |", hundredth(x.calls))
		}
		fmt.Fprintf(d, " %s |\n", r.sides[0].load())
	}
}

// load is how busy a contender's server was, with a mark where it had hardly any time left.
func (s *side) load() string {
	v := median(s.of(targetCPU))
	text := hundredth(v)
	if v >= busy {
		text += " †"
	}
	return text
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

// spread is the median of ratios, with the least and the greatest.
func spread(ratios []float64) string {
	if len(ratios) == 0 {
		return none
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", median(ratios), slices.Min(ratios), slices.Max(ratios))
}

// replaceText puts the text between the marks of a document.
func replaceText(path string, m marks, text string) error {
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
