package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"iscsictl/conf"
	"iscsictl/target"
)

// completions asks bash for what it would offer after a line, as readline asks it.
func completions(t *testing.T, line string) []string {
	t.Helper()
	script, err := filepath.Abs("../../init/iscsictl.bash")
	if err != nil {
		t.Fatal(err)
	}
	// The function is the one that the script has registered for the command.
	const ask = `set -u
. "$1"
line=$2
command=${line%% *}
COMP_WORDBREAKS=$' \t\n"\'@><=;|&(:'
COMP_LINE=$line COMP_POINT=${#line}
spec=$(complete -p "${command##*/}")
spec=${spec#*-F }
"${spec%% *}"
if [ ${#COMPREPLY[@]} -gt 0 ]; then printf '%s\n' "${COMPREPLY[@]}"; fi`
	out, err := exec.Command(tool(t, "bash", "bash"), "-c", ask, "bash", script, line).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", line, err, out)
	}
	return strings.Fields(strings.ReplaceAll(string(out), `\ `, "_"))
}

// TestCompletion asks for options, values, nicknames, and what the daemon knows.
func TestCompletion(t *testing.T) {
	t.Parallel()
	e := newTarget(t, target.Config{Targets: []target.Target{{Name: "iqn.2012-06.com.example:one", LUNs: []target.LUN{memory(0, 1)}}}})
	d := newDaemon(t)
	d.add(e.portal, "iqn.2012-06.com.example:one")
	ctl := program("iscsictl") + " --socket " + d.run + "/control.sock "
	file := d.conf("# old { \none { TargetName = iqn.x:one # not {\n\tTargetAddress = h; chapSecret = \"a # { b\" }\n\"t w o\"\n{ TargetName = x }\nthr:ee{\n" +
		"\"x$(touch " + d.dir + "/hurt)\" {}")
	for _, test := range []struct{ line, want string }{
		{ctl + "-R -t ", "iqn.2012-06.com.example:one"},
		{ctl + "-R -t iqn.2012-06.com.ex", "iqn.2012-06.com.example:one"},
		{ctl + "-R -t iqn.2012-06.com.example:o", "one"}, // readline keeps what is before the colon
		{ctl + "-R -p ", e.portal},
		{ctl + "-M -i ", "1"},
		{ctl + "--sysctl kern.iscsi.p", "kern.iscsi.ping_timeout="},
		{"iscsictl -A -c " + file + " -n o", "one"},
		{"iscsictl -Ac " + file + " -n t", "t_w_o thr:ee"},
		{"iscsictl -Ac" + file + " -n thr:", "ee"},
		{"iscsictl -M -i 1 -e o", "on off"},
		{"iscsictl -L --libxo=j", "json json,pretty"},
		{"iscsictl --re", "--rescan"},
		{"iscsictl -R --f", "--force"},
		{"iscsictl -A --f", ""},
		{"iscsictl -A -c " + d.dir + "/iscsi.c", file},
		{"iscsid -o device=l", "loop"},
		{"iscsid --run=" + d.dir + "/ru", d.run},
		{"iscsid -l ", "0 1 2 3"},
	} {
		if got := strings.Join(completions(t, test.line), " "); got != test.want {
			t.Errorf("%q: %q, want %q", test.line, got, test.want)
		}
	}
	// A name does not become a command, neither here nor where it is put.
	got := completions(t, "iscsictl -Ac "+file+" -n x")
	if len(got) != 1 || !strings.HasPrefix(got[0], `x\$\(touch`) {
		t.Errorf("a nickname for the shell: %q", got)
	}
	if _, err := os.Stat(d.dir + "/hurt"); err == nil {
		t.Error("a nickname was run as a command")
	}
}

// TestCompletionOptions holds the script to what the programs have.
func TestCompletionOptions(t *testing.T) {
	t.Parallel()
	option := regexp.MustCompile(`(?:^|[\s\[|,])(--?[a-zA-Z][a-z-]*)`)
	for _, name := range []string{"iscsictl", "iscsid"} {
		offered := completions(t, program(name)+" -")
		for _, m := range option.FindAllStringSubmatch(must(t, program(name), "--help"), -1) {
			if !slices.Contains(offered, m[1]) && !slices.Contains(offered, m[1]+"=") {
				t.Errorf("%s %s is not offered", name, m[1])
			}
		}
	}
	offered := completions(t, program("iscsid")+" -o kern.")
	for _, tunable := range conf.AllTunables() {
		if !slices.Contains(offered, tunable.Name+"=") {
			t.Errorf("iscsid -o %s is not offered", tunable.Name)
		}
	}
	if len(offered) != len(conf.AllTunables()) {
		t.Error(fmt.Sprint(len(offered), " tunables are offered, and there are ", len(conf.AllTunables())))
	}
}
