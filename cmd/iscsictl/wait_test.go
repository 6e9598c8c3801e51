package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/control/controltest"
)

// TestWaitOutlastsARestart stops the daemon under a command that waits, and starts
// another, which has the session connected.
func TestWaitOutlastsARestart(t *testing.T) {
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	registry := controltest.NewRegistry()
	s := conf.NewSession()
	s.TargetName, s.TargetAddress = "iqn.2012-06.com.example:t", "h"
	if _, err := registry.Add(s); err != nil {
		t.Fatal(err)
	}
	stop := daemon(t, path, registry)
	status := make(chan int)
	var stderr bytes.Buffer
	go func() { status <- run([]string{"iscsictl", "--socket", path, "-w", "60"}, new(bytes.Buffer), &stderr) }()
	for registry.Lists() < 2 { // the listing, and one of the wait
		time.Sleep(time.Millisecond)
	}
	stop()
	registry.Change(1, func(s *control.Session) { s.Connected = true })
	stop = daemon(t, path, registry)
	defer stop()
	if got := <-status; got != 0 || stderr.Len() != 0 {
		t.Errorf("status %d\n%s", got, &stderr)
	}
}

// daemon starts a server, and returns what stops it.
func daemon(t *testing.T, path string, handler control.Handler) (stop func()) {
	t.Helper()
	listener, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, listener, handler) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestProgress wants one line that is written over, no wider than a terminal, and gone
// in the end.
func TestProgress(t *testing.T) {
	var b strings.Builder
	p := progress{out: &b, on: true}
	s := control.Session{ID: 3, TargetName: "iqn.2012-06.com.example:t", TargetAddress: "h", Enable: true, Reason: "Not found\x1b"}
	p.missing([]control.Session{s}, 2)
	p.missing([]control.Session{s}, 2) // nothing new
	s.TargetName = strings.Repeat("ü", 223)
	p.missing([]control.Session{s}, 2)
	p.clear()
	p.clear()
	parts := strings.Split(b.String(), "\r\x1b[K")
	if len(parts) != 4 || parts[0] != "" || parts[3] != "" ||
		parts[1] != "waiting for 1 of 2: Not found?: session-id 3: session to iqn.2012-06.com.examp…" ||
		len([]rune(parts[2])) != progressWidth {
		t.Errorf("%q", parts)
	}
	quiet := progress{out: &b}
	before := b.Len()
	quiet.missing([]control.Session{s}, 2)
	quiet.clear()
	if b.Len() != before {
		t.Error("something is shown where there is no terminal")
	}
}

// TestOutageIsBounded waits for ever for a daemon that has gone for good.
func TestOutageIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		forever := time.Duration(0)
		c := &command{stderr: new(bytes.Buffer)}
		err := c.waitFor(&options{wait: &forever, socket: filepath.Join(t.TempDir(), "nothing")})
		if err == nil || !strings.Contains(err.Error(), "iscsid is not running") {
			t.Errorf("%v", err)
		}
		if took := time.Since(begun); took < outage || took > outage+2*pollMost {
			t.Errorf("took %v", took)
		}
	})
}
