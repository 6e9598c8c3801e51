package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// base is the directory of everything that a run of the tests makes. Its path
// is short: that of a Unix socket has at most 107 bytes.
var base string

// parallel is how many tests run at once unless -parallel says it: most of
// them wait.
const parallel = "6"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (status int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", parallel); err != nil {
			return complain(err)
		}
	}
	// Administrators' programs are not on everybody's path.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	os.Setenv("LC_ALL", "C.UTF-8")
	var err error
	if base, err = os.MkdirTemp("/tmp", "e2e"); err != nil {
		return complain(err)
	}
	if programs = os.Getenv("E2E_BIN"); programs != "" {
		// as they are
	} else if err := build(); err != nil {
		os.RemoveAll(base)
		return complain(err)
	}
	status = m.Run()
	if left := leaks(); len(left) > 0 {
		return complain(fmt.Errorf("left behind: %s", strings.Join(left, ", ")))
	}
	os.RemoveAll(base)
	return status
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// programs is where the programs under test are, if not below base: E2E_BIN names a
// directory that has them, for where there is nothing to build them with.
var programs string

// build makes the programs under test; iscsid with the race detector where the tests
// have it.
func build() error {
	var race []string
	if raceDetector {
		race = []string{"-race"}
	}
	for _, args := range [][]string{
		append(race, "iscsictl/cmd/iscsid"),
		{"iscsictl/cmd/iscsictl", "iscsictl/cmd/iscsitarget"},
	} {
		cmd := exec.Command("go", append([]string{"build", "-o", base + "/bin/"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return nil
}

// program is the path of one of ours.
func program(name string) string {
	if programs != "" {
		return filepath.Join(programs, name)
	}
	return filepath.Join(base, "bin", name)
}

// leaks names mounts, loop devices, sockets and processes of base that outlived the
// tests.
func leaks() (left []string) {
	for _, path := range mounts(base) {
		left = append(left, "mount "+path)
	}
	left = append(left, loops(base)...)
	// What was told to end may take a moment to.
	within(10*time.Second, func() bool { return len(processes(base)) == 0 })
	left = append(left, processes(base)...)
	_ = filepath.WalkDir(base, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type() == os.ModeSocket {
			left = append(left, "socket "+path)
		}
		return nil
	})
	return left
}

// processes lists those that were given a path below a directory, or run from there.
func processes(below string) (found []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range files {
		text, err := os.ReadFile(name)
		words := strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " ")
		if err == nil && strings.Contains(words, below+"/") {
			found = append(found, fmt.Sprintf("process %s (%s)", strings.Split(name, "/")[2], words))
		}
	}
	return found
}

// mounts lists the mount points below a directory, the innermost first.
func mounts(below string) (found []string) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && strings.HasPrefix(fields[1], below+"/") {
			found = append([]string{fields[1]}, found...)
		}
	}
	return found
}

// loops lists the loop devices on files below a directory.
func loops(below string) (found []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range files {
		if text, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(text), below+"/") {
			found = append(found, strings.Split(name, "/")[3])
		}
	}
	return found
}

var directories atomic.Int32

// newDir makes a directory for a test, and removes it at its end.
func newDir(t *testing.T) string {
	t.Helper()
	dir := fmt.Sprintf("%s/%d", base, directories.Add(1))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, path := range mounts(dir) {
			t.Errorf("%s is still mounted", path)
			_ = exec.Command("umount", "-l", path).Run()
		}
		for _, device := range loops(dir) {
			t.Errorf("%s is still there", device)
			_ = exec.Command("losetup", "-d", "/dev/"+device).Run()
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("cannot clean up: %v", err)
		}
	})
	return dir
}
