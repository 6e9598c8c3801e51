package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of /proc/PID/stat: USER_HZ, which is 100 on every
// architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuOf returns the CPU time that a running process has used, in all its threads.
func cpuOf(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(data))
}

// parseStat reads utime and stime (proc(5)). The second field is a name in
// parentheses, which may have anything in it.
func parseStat(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat has too few fields")
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// finished is a client that has ended well.
type finished struct {
	stdout []byte
	cpu    time.Duration // user and system, from wait4(2)
	memory float64       // resident at most, in MiB, from the same
}

// runToEnd runs a client.
func runToEnd(ctx context.Context, argv []string) (finished, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return finished{}, fmt.Errorf("%s: %w\n%s%s", strings.Join(argv, " "), err, tail(stdout.Bytes()), tail(stderr.Bytes()))
	}
	f := finished{stdout: stdout.Bytes(), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		f.memory = float64(usage.Maxrss) / 1024
	}
	return f, nil
}

// tail returns the end of what a program has said.
func tail(output []byte) []byte { return output[max(len(output)-2000, 0):] }

// server is a process that runs until it is stopped.
type server struct {
	cmd *exec.Cmd
	log *bytes.Buffer // what it says; to be read once it has ended
	end syscall.Signal
}

// startServer starts a process. It dies with us.
func startServer(argv []string, env ...string) (*server, error) {
	s := &server{cmd: exec.Command(argv[0], argv[1:]...), log: &bytes.Buffer{}, end: syscall.SIGTERM}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// cpu is the CPU time that the process has used so far; none where there is no process.
func (s *server) cpu() time.Duration {
	if s == nil {
		return 0
	}
	used, _ := cpuOf(s.cmd.Process.Pid) // 0 where it has ended, which its client notices
	return used
}

// stop asks the process to end, and makes it.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(s.end) // it may have ended already
	kill := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
	_ = s.cmd.Wait() // it was told to end: how is of no matter
	kill.Stop()
}

// failed ends the process and adds what it has said to an error.
func (s *server) failed(err error) error {
	s.stop()
	return fmt.Errorf("%s: %w\n%s", s.cmd.Args[0], err, tail(s.log.Bytes()))
}

// eventually waits up to 30 seconds until ready returns nil: a virtual machine is slow.
func eventually(ctx context.Context, ready func() error) error {
	for end := time.Now().Add(30 * time.Second); ; {
		err := ready()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
