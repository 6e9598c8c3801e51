package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSummary(t *testing.T) {
	const events = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: noise\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:4: NOTE: 7 of them\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: needs root:\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"        run it as root\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB","Elapsed":0}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p","Elapsed":0.1}
{"Action":"output","Package":"q","Test":"TestC","Output":"    c_test.go:9: wrong\n"}
{"Action":"fail","Package":"q","Test":"TestC","Elapsed":0}
{"Action":"output","Package":"q","Test":"TestD","Output":"panic: at the disco\n"}
{"Action":"output","Package":"q","Output":"FAIL\tq\t0.2s\n"}
{"Action":"fail","Package":"q","Elapsed":0.2}
{"Action":"output","Package":"r","Output":"?   \tr\t[no test files]\n"}
{"Action":"skip","Package":"r","Elapsed":0}
not an event
{"ImportPath":"s","Action":"build-output","Output":"s.go:1: syntax error\n"}
{"ImportPath":"s","Action":"build-fail"}
`
	const want = `ok   p (0.1 s, 2 tests, 1 skipped)
    c_test.go:9: wrong
panic: at the disco
FAIL q (0.2 s)
not an event
s.go:1: syntax error
NOTE: 7 of them
SKIP: p TestB: needs root: run it as root
packages: 1 ok, 1 failed, 1 without tests; tests: 1 passed, 1 failed, 1 skipped
`
	var out strings.Builder
	s := newSummary(&out)
	if err := s.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	s.totals()
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if !s.failed() {
		t.Error("a failed test, package and build do not count as failure")
	}
}

func TestSummaryOfNothingFails(t *testing.T) {
	s := newSummary(new(strings.Builder))
	s.take(event{Action: "pass", Package: "p", Test: "TestA"})
	s.take(event{Action: "pass", Package: "p"})
	if s.failed() {
		t.Error("a package that passed counts as failed")
	}
	s.take(event{Action: "build-fail", ImportPath: "q"})
	if !s.failed() {
		t.Error("a package that cannot be built does not count as failed")
	}
}
