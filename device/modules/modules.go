// Package modules is what back-ends need of the kernel before they can be used:
// its modules, which nothing else may have loaded, and a capability.
package modules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	loadTime = 10 * time.Second
	// again is how long the outcome of an attempt holds: a thousand disks
	// need no thousand attempts, but what was mended is seen soon.
	again = 5 * time.Second
)

// Loader loads modules of the kernel.
type Loader struct {
	Program string // modprobe

	mu    sync.Mutex
	tried map[string]attempt
}

type attempt struct {
	at  time.Time
	err error
}

var modprobe = Loader{Program: "modprobe"}

// Load has the kernel load a module, by modprobe(8). Whether that was of use is
// seen at the device; the error says why it cannot have been.
func Load(module string) error { return modprobe.Load(module) }

// Need loads a module and says in words that it is needed, and why it was not
// loaded, if so.
func Need(module string) string {
	text := "needs the kernel's module " + module
	if err := Load(module); err != nil {
		text += fmt.Sprintf("; modprobe: %v", err)
	}
	return text
}

// Load is the function of that name.
func (l *Loader) Load(module string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.tried[module]; ok && time.Since(last.at) < again {
		return last.err
	}
	err := l.load(module)
	if l.tried == nil {
		l.tried = map[string]attempt{}
	}
	l.tried[module] = attempt{time.Now(), err}
	return err
}

func (l *Loader) load(module string) error {
	ctx, cancel := context.WithTimeout(context.Background(), loadTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.Program, module)
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if text, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n"); text != "" {
		return errors.New(strings.TrimPrefix(text, "modprobe: "))
	}
	return fmt.Errorf("modprobe %s: %w", module, err)
}

// Admin reports whether the process has CAP_SYS_ADMIN.
func Admin() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}
