package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConfined looks at what the kernel says of a running iscsid, and has it
// crash: no core is dumped, though the limits would allow one.
func TestConfined(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max == 0 {
		t.Skip("SKIP: the limit of core dumps is 0 here, and cannot be raised")
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: limit.Max, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_CORE, &limit)
	d := prepareDaemon(t)
	d.env = append(d.env, "GOTRACEBACK=crash")
	d.launch()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.cmd.Process.Pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads of iscsid: %v, %v", tasks, err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", d.cmd.Process.Pid, task.Name()))
		if err == nil && !strings.Contains(string(text), "NoNewPrivs:\t1") {
			t.Errorf("thread %s can get more privileges", task.Name())
		}
	}
	d.signal(syscall.SIGABRT)
	if _, ok := d.ended(patience); !ok {
		t.Fatal("iscsid does not end of SIGABRT")
	}
	state := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !state.Signaled() {
		t.Fatalf("iscsid has ended with %v and not by the signal: it shows nothing of core dumps", d.cmd.ProcessState)
	}
	if state.CoreDump() {
		t.Error("a core was dumped")
	}
}
