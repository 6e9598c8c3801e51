package conformance

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write docs/conformance.md")

const document = "../../docs/conformance.md"

// item is one test of the suite.
type item struct {
	id      string // "FFP 3.1": suite, group, number within it
	title   string
	section string // of RFC 7143
	run     func(t *testing.T)
	none    string // why it does not apply; run is nil then
}

// group is an area of a suite.
type group struct {
	suite, title string
	items        []item
}

// suite is all of it, in the order of the document.
func suite() []group {
	var list []group
	for _, part := range [][]group{fullFeature(), fullFeatureControl(), loginPhase(), chap()} {
		list = append(list, part...)
	}
	return list
}

// TestConformance runs the suite, and holds docs/conformance.md to the outcome.
func TestConformance(t *testing.T) {
	var mu sync.Mutex
	verdicts := map[string]string{}
	whole := true
	t.Run("suite", func(t *testing.T) {
		for _, g := range suite() {
			for _, i := range g.items {
				if i.run == nil {
					verdicts[i.id] = "not applicable: " + i.none
					continue
				}
				t.Run(i.id+" "+i.title, func(t *testing.T) {
					t.Parallel()
					defer func() {
						mu.Lock()
						defer mu.Unlock()
						verdicts[i.id] = "pass"
						if t.Failed() {
							verdicts[i.id] = "FAIL"
						}
					}()
					i.run(t)
				})
			}
		}
	})
	for _, g := range suite() {
		for _, i := range g.items {
			whole = whole && verdicts[i.id] != ""
		}
	}
	if !whole {
		t.Log("not all tests were run: the document is not looked at")
		return
	}
	text := table(verdicts)
	if *update {
		if err := os.WriteFile(document, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old, err := os.ReadFile(document); err != nil || string(old) != text {
		t.Errorf("docs/conformance.md is not what came out (%v): go test ./test/conformance -update", err)
	}
}

// table writes the document.
func table(verdicts map[string]string) string {
	var b strings.Builder
	passed, none := 0, 0
	for _, v := range verdicts {
		switch {
		case v == "pass":
			passed++
		case strings.HasPrefix(v, "not"):
			none++
		}
	}
	fmt.Fprintf(&b, `# Conformance

What is asked of an iSCSI initiator (RFC 7143), by the areas of the initiator suites of the University of New
Hampshire's InterOperability Laboratory, and how `+"`iscsid`"+` does. Each test drives the real program against a target
whose behaviour is scripted, and judges the bytes on the wire ([test/conformance](../test/conformance/doc.go)); the bytes
of every test are also held to what holds always: command numbers and window, acknowledgement, tags, segment lengths,
digests, padding.

%d tests: %d pass, %d do not apply because of what we offer, %d fail. Written by `+"`go test ./test/conformance -update`"+`.
`, len(verdicts), passed, none, len(verdicts)-passed-none)
	last := ""
	for _, g := range suite() {
		if g.suite != last {
			fmt.Fprintf(&b, "\n## %s\n\n| Test | What | RFC 7143 | Verdict |\n|---|---|---|---|\n", g.suite)
			last = g.suite
		}
		for _, i := range g.items {
			fmt.Fprintf(&b, "| %s | %s: %s | %s | %s |\n", i.id, g.title, i.title, i.section, verdicts[i.id])
		}
	}
	return b.String()
}
