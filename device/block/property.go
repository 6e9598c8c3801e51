package block

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// setTime is how long is waited for properties to be set.
	setTime = 5 * time.Second
	// setterName is the name under which this program does nothing but to
	// write files.
	setterName = "iscsid-sysfs"
)

// Property returns what /sys says of a device, "queue/io_timeout" and the like,
// or "" where it says nothing.
func Property(name, property string) string {
	b, _ := os.ReadFile(filepath.Join("/sys/block", name, property))
	return strings.TrimSpace(string(b))
}

// SetProperties changes properties, where they are not as they are to be. The
// kernel holds new requests back meanwhile and waits for those under way (for each
// property since Linux 6.11, for some before), which no signal ends. If a thread of
// this process did that, and the process died, then the thread would wait for a
// daemon to take the device back, and that daemon for this process to be gone: for
// ever. So a process apart does it, which has none of our descriptors; where it
// takes long, it goes on without us.
func SetProperties(name string, want map[string]string) error {
	var files []string
	for property, value := range want {
		if Property(name, property) != value {
			files = append(files, filepath.Join("/sys/block", name, property), value)
		}
	}
	if len(files) == 0 {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- writeApart(files) }()
	err, ended := Wait(done, setTime)
	switch {
	case !ended:
		return fmt.Errorf("properties of %s: the kernel waits for the disk", name)
	case err != nil:
		return fmt.Errorf("properties of %s: %w", name, err)
	}
	return nil
}

// writeApart writes files by another process; each is followed by its content.
func writeApart(files []string) error {
	var said bytes.Buffer
	setter := exec.Cmd{Path: "/proc/self/exe", Args: append([]string{setterName}, files...), Stderr: &said}
	err := setter.Run()
	if err != nil && said.Len() > 0 {
		return errors.New(strings.ReplaceAll(strings.TrimSpace(said.String()), "\n", "; "))
	}
	return err
}

// init is that process.
func init() {
	if len(os.Args) == 0 || os.Args[0] != setterName {
		return
	}
	var errs []error
	for files := os.Args[1:]; len(files) > 1; files = files[2:] {
		errs = append(errs, os.WriteFile(files[0], []byte(files[1]), 0))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
