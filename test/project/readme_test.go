package project

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestReadmeTargets makes sure that each make target that a text names exists,
// and that make help, which lists targets by their comments, misses none.
func TestReadmeTargets(t *testing.T) {
	makefile := readFile(t, "Makefile")
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):.*## `).FindAllStringSubmatch(makefile, -1) {
		targets = append(targets, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^\.PHONY: (.*)$`).FindAllStringSubmatch(makefile, -1) {
		if !slices.Contains(targets, m[1]) {
			t.Errorf("Makefile: target %s has no ## comment", m[1])
		}
	}
	if len(targets) == 0 {
		t.Fatal("Makefile: no target found")
	}
	named := regexp.MustCompile("(?m)(?:`|^ {4}|sudo )make ([a-z0-9-]+)")
	for _, name := range []string{"README.md", "docs/architecture.md"} {
		found := named.FindAllStringSubmatch(readFile(t, name), -1)
		if len(found) == 0 {
			t.Errorf("%s names no make target", name)
		}
		for _, m := range found {
			if !slices.Contains(targets, m[1]) {
				t.Errorf("%s names make %s, which the Makefile does not have", name, m[1])
			}
		}
	}
}

// TestReadmeLinks makes sure that relative links lead to files of this tree.
func TestReadmeLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	for _, name := range []string{"README.md", "docs/architecture.md", "docs/containers.md", "docs/moving.md"} {
		for _, m := range link.FindAllStringSubmatch(readFile(t, name), -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}
