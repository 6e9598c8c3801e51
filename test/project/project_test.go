package project

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the top of the tree.
const root = "../.."

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// table returns the rows of the Markdown table of a file whose first column has
// the given heading, as trimmed cells.
func table(t *testing.T, name, heading string, columns int) [][]string {
	t.Helper()
	var rows [][]string
	inside := false
	for line := range strings.Lines(readFile(t, name)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inside = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == heading:
			inside = true
		case inside && !strings.HasPrefix(cells[0], "---"):
			if len(cells) != columns {
				t.Fatalf("%s: a row of %d cells, want %d: %s", name, len(cells), columns, line)
			}
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("%s: no table whose first column is %q", name, heading)
	}
	return rows
}

var quoted = regexp.MustCompile("`([^`]+)`")

// words returns what stands between backquotes in a cell.
func words(cell string) []string {
	var all []string
	for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
		all = append(all, m[1])
	}
	return all
}
