package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is one line of go test -json (go doc test2json, go doc buildjson).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// summary collects events and writes what is worth reading.
type summary struct {
	w       io.Writer
	output  map[string]*strings.Builder // by package and test, until it ends
	tests   map[string]int              // by package: ended tests
	skips   []string
	notes   []string
	skipped map[string]int // by package

	pass, fail, skip     int // tests
	okPkgs, badPkgs      int
	noTests, buildFailed int // packages
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, output: map[string]*strings.Builder{}, tests: map[string]int{}, skipped: map[string]int{}}
}

// read takes in events until the end of r. A line that is not an event is passed on.
func (s *summary) read(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				s.take(e)
			} else {
				fmt.Fprintf(s.w, "%s", line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the output of go test: %w", err)
		}
	}
}

func (s *summary) take(e event) {
	switch e.Action {
	case "output":
		s.buffer(e.Package + "\x00" + e.Test).WriteString(e.Output)
	case "build-output":
		fmt.Fprint(s.w, e.Output)
	case "build-fail":
		s.buildFailed++
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e)
		} else {
			s.endTest(e)
		}
	}
}

func (s *summary) buffer(key string) *strings.Builder {
	b := s.output[key]
	if b == nil {
		b = new(strings.Builder)
		s.output[key] = b
	}
	return b
}

func (s *summary) endTest(e event) {
	key := e.Package + "\x00" + e.Test
	out := s.buffer(key).String()
	delete(s.output, key)
	s.tests[e.Package]++
	switch e.Action {
	case "pass":
		s.pass++
		s.notes = append(s.notes, notes(out)...)
	case "skip":
		s.skip++
		s.skipped[e.Package]++
		s.skips = append(s.skips, fmt.Sprintf("SKIP: %s %s: %s", e.Package, e.Test, reason(out)))
	case "fail":
		s.fail++
		fmt.Fprint(s.w, out)
	}
}

func (s *summary) endPackage(e event) {
	key := e.Package + "\x00"
	out := s.buffer(key).String()
	delete(s.output, key)
	switch {
	case e.Action == "fail":
		s.badPkgs++
		s.unfinished(e.Package)
		fmt.Fprintf(s.w, "%sFAIL %s (%.1f s)\n", framing.ReplaceAllString(out, ""), e.Package, e.Elapsed)
	case s.tests[e.Package] == 0:
		s.noTests++
	default:
		s.okPkgs++
		note := ""
		if n := s.skipped[e.Package]; n > 0 {
			note = fmt.Sprintf(", %d skipped", n)
		}
		fmt.Fprintf(s.w, "ok   %s (%.1f s, %d tests%s)\n", e.Package, e.Elapsed, s.tests[e.Package], note)
	}
}

// unfinished writes what the tests said that had not ended when their package
// died: a panic's trace is in one of them.
func (s *summary) unfinished(pkg string) {
	var keys []string
	for key := range s.output {
		if strings.HasPrefix(key, pkg+"\x00") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		fmt.Fprint(s.w, s.output[key].String())
		delete(s.output, key)
	}
}

func (s *summary) totals() {
	slices.Sort(s.notes)
	slices.Sort(s.skips)
	for _, line := range slices.Concat(s.notes, s.skips) {
		fmt.Fprintln(s.w, line)
	}
	fmt.Fprintf(s.w, "packages: %d ok, %d failed, %d without tests; tests: %d passed, %d failed, %d skipped\n",
		s.okPkgs, s.badPkgs, s.noTests, s.pass, s.fail, s.skip)
}

func (s *summary) failed() bool { return s.fail+s.badPkgs+s.buildFailed > 0 }

var (
	framing  = regexp.MustCompile(`(?m)^(PASS|FAIL|FAIL\t.*|exit status \d+)\n`)
	position = regexp.MustCompile(`^\s*\S+\.go:\d+: `)
)

// notes returns what a test that passed wants to be read all the same.
func notes(out string) (list []string) {
	for line := range strings.Lines(out) {
		if text := strings.TrimSpace(position.ReplaceAllString(line, "")); strings.HasPrefix(text, "NOTE: ") {
			list = append(list, text)
		}
	}
	return list
}

// reason returns what a skipped test gave as its reason: what it logged, in one line.
func reason(out string) string {
	var said []string
	for line := range strings.Lines(out) {
		text := strings.TrimSpace(position.ReplaceAllString(line, ""))
		text = strings.TrimSpace(strings.TrimPrefix(text, "SKIP:"))
		if text != "" && !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- ") {
			said = append(said, text)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
