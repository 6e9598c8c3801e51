// Report runs go test and says in few lines what happened: a line for each
// package, the whole output of each test that failed, and, so that nobody takes
// a test that could not run for one that passed, every skipped test with its
// reason and their number. What a test that passed logs after "NOTE: " is said,
// too. It ends with go test's own exit status.
//
//	go run ./test/report [go test's arguments]
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	os.Exit(status)
}

// run returns the exit status of go test with the given arguments.
func run(args []string) (int, error) {
	tool := os.Getenv("GO")
	if tool == "" {
		tool = "go"
	}
	cmd := exec.Command(tool, append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("cannot run go test: %w", err)
	}
	s := newSummary(os.Stdout)
	readErr := s.read(out)
	err = cmd.Wait()
	s.totals()
	var exit *exec.ExitError
	switch {
	case readErr != nil:
		return 0, readErr
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode(), nil
	case err != nil:
		return 0, fmt.Errorf("go test: %w", err)
	case s.failed():
		return 1, nil
	}
	return 0, nil
}
