package e2e

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"iscsictl/target"
)

// embedded is an iscsitarget: the target of this project, which misbehaves when
// it is asked to.
type embedded struct {
	*process
	t      *testing.T
	dir    string
	portal string
	// before are words before the program's own: a command that becomes it.
	before []string
}

// delay is a time in a configuration as encoding/json writes it; the target wants
// its unit.
var delay = regexp.MustCompile(`"delay":(\d+)`)

// newTarget starts iscsitarget with a configuration.
func newTarget(t *testing.T, c target.Config) *embedded {
	t.Helper()
	return startTarget(t, c, "127.0.0.1:0")
}

func startTarget(t *testing.T, c target.Config, portal string, before ...string) *embedded {
	t.Helper()
	e := &embedded{t: t, dir: newDir(t), before: before}
	e.configure(c)
	t.Cleanup(e.finish)
	e.launch(portal)
	return e
}

// configure says what the target is from its next start on.
func (e *embedded) configure(c target.Config) {
	e.t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		e.t.Fatal(err)
	}
	writeFile(e.t, e.dir+"/target.json", delay.ReplaceAllString(string(text), `"delay":"${1}ns"`))
}

func (e *embedded) launch(portal string) {
	e.t.Helper()
	ready := e.dir + "/ready"
	os.Remove(ready)
	command := append(slices.Clone(e.before), program("iscsitarget"),
		"--config", e.dir+"/target.json", "--portal", portal, "--ready-file", ready, "--verbose")
	e.process = start(e.t, e.dir+"/target.log", nil, command[0], command[1:]...)
	eventually(e.t, "iscsitarget serves", func() bool {
		if !e.running() {
			e.t.Fatalf("iscsitarget has ended:\n%s", e.output())
		}
		text, err := os.ReadFile(ready)
		e.portal = strings.TrimSpace(string(text))
		return err == nil
	})
}

func (e *embedded) finish() {
	if e.process == nil {
		return
	}
	if e.running() {
		e.signal(syscall.SIGTERM)
		if status, ok := e.ended(patience); !ok || status != 0 {
			e.t.Errorf("iscsitarget: ended %v, status %d", ok, status)
		}
	}
	e.kill()
	if e.says("DATA RACE") || e.says("panic:") {
		e.t.Error("iscsitarget is broken")
	}
	if e.t.Failed() {
		e.t.Logf("log of iscsitarget:\n%s", tail(e.output(), 60))
	}
}

// served is a target inside of the test, for what has to be done to it while it
// serves.
func newServer(t *testing.T, c target.Config) (s *target.Server, portal string) {
	t.Helper()
	s, err := target.New(c)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return s, l.Addr().String()
}

// memory is a logical unit in the target's memory.
func memory(lun, mib int) target.LUN {
	return target.LUN{Number: lun, Size: target.Size(mib) << 20}
}
