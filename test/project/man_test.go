package project

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"iscsictl/conf"
)

// foreign are pages of others that ours refer to; whether they are installed on
// the machine of the test is no matter.
var foreign = []string{"fstab.5", "sd_notify.3", "loader.conf.5", "syslog.3", "systemd.1", "udev.7", "ip-link.8"}

// TestManualPages runs mandoc's linter over the pages, which has to be silent.
func TestManualPages(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "man", "*.[1-9]"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no manual pages found (%v)", err)
	}
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("mandoc is not installed (run: make deps)")
	}
	// A tree of all pages that may be referred to.
	tree := t.TempDir()
	for _, name := range append(pages, foreign...) {
		section := filepath.Join(tree, "man"+filepath.Ext(name)[1:])
		if err := os.MkdirAll(section, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(section, filepath.Base(name)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The findings are on standard output; standard error has remarks on the
	// missing index of that tree.
	out, err := exec.Command(mandoc, append([]string{"-M" + tree, "-Tlint", "-Wstyle"}, pages...)...).Output()
	if err != nil || len(out) != 0 {
		t.Errorf("mandoc -Tlint -Wstyle: %v\n%s", err, out)
	}
}

// TestManualTunables makes sure that each tunable is described, with its default.
func TestManualTunables(t *testing.T) {
	for _, tunable := range conf.AllTunables() {
		page := "man/iscsi.4"
		if strings.HasPrefix(tunable.Name, "kern.iser.") {
			page = "man/iser.4"
		}
		_, entry, found := strings.Cut(readFile(t, page), ".It Va "+tunable.Name)
		if !found {
			t.Errorf("%s does not describe %s", page, tunable.Name)
			continue
		}
		entry, _, _ = strings.Cut(entry, "\n.It ")
		if !regexp.MustCompile(`\b` + strconv.FormatInt(tunable.Default, 10) + `\b`).MatchString(entry) {
			t.Errorf("%s: the entry of %s does not have its default, %d", page, tunable.Name, tunable.Default)
		}
	}
}

// TestManualOptions makes sure that each option that the programs name in their
// help is described.
func TestManualOptions(t *testing.T) {
	option := regexp.MustCompile(`(?:^|[\s\[|,])(--?[a-zA-Z][a-z-]*)`)
	for program, page := range map[string]string{"iscsictl": "man/iscsictl.8", "iscsid": "man/iscsid.8"} {
		binary := filepath.Join(t.TempDir(), program)
		if out, err := exec.Command("go", "build", "-o", binary, "iscsictl/cmd/"+program).CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		help, err := exec.Command(binary, "--help").Output()
		if err != nil {
			t.Fatalf("%s --help: %v", program, err)
		}
		text := readFile(t, page)
		found := option.FindAllStringSubmatch(string(help), -1)
		if len(found) < 5 {
			t.Errorf("%s --help names %d options", program, len(found))
		}
		for _, m := range found {
			entry := `(?m)^\.It (?:.* )?Fl ` + regexp.QuoteMeta(strings.TrimPrefix(m[1], "-")) + `\b`
			if !regexp.MustCompile(entry).MatchString(text) {
				t.Errorf("%s does not describe %s, which %s --help names", page, m[1], program)
			}
		}
	}
}
