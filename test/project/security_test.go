package project

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestSecurityTable holds docs/security.md to the tests that there are.
func TestSecurityTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/security.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	fuzz := 0
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(source, -1) {
			there[string(m[1])] = true
			if strings.HasPrefix(string(m[1]), "Fuzz") {
				fuzz++
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllSubmatch(text, -1)
	if len(named) < 40 {
		t.Fatalf("%d tests are named", len(named))
	}
	for _, m := range named {
		if !there[string(m[1])] {
			t.Errorf("docs/security.md names %s, which is not there", m[1])
		}
	}
	said := regexp.MustCompile(`every fuzz target \((\d+) of them`).FindSubmatch(text)
	if said == nil || string(said[1]) != strconv.Itoa(fuzz) {
		t.Errorf("docs/security.md speaks of %s fuzz targets; there are %d", said, fuzz)
	}
}
