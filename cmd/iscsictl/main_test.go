package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/control/controltest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"iscsictl": func() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs iscsictl against a server of the control protocol whose daemon
// is a registry of sessions. In a script, $SOCK is --socket and its path; the
// commands below set states and judge output.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		Setup:         setup,
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"state":    cmdState,
			"offer":    cmdOffer,
			"secret":   cmdSecret,
			"rescans":  cmdRescans,
			"json":     cmdJSON,
			"xml":      cmdXML,
			"lines":    cmdLines,
			"open":     cmdOpen,
			"refuse":   cmdRefuse,
			"connect":  cmdConnect,
			"deadsock": cmdDeadSocket,
		},
	})
}

type registryKey struct{}

func setup(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "ctl") // the work directory is too long for a socket
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "s")
	listener, err := control.Listen(path)
	if err != nil {
		return err
	}
	registry := controltest.NewRegistry()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, listener, registry) }()
	env.Defer(func() {
		cancel()
		<-done
		os.RemoveAll(dir)
	})
	env.Values[registryKey{}] = registry
	env.Setenv("SOCK", "--socket="+path)
	env.Setenv("SOCKPATH", path)
	return nil
}

func registryOf(ts *testscript.TestScript) *controltest.Registry {
	return ts.Value(registryKey{}).(*controltest.Registry)
}

// cmdState sets what is told of a session: state ID KEY=VALUE…
func cmdState(ts *testscript.TestScript, _ bool, args []string) {
	ok := registryOf(ts).Change(number(ts, args[0]), func(s *control.Session) {
		for _, arg := range args[1:] {
			ts.Check(setState(s, arg))
		}
	})
	if !ok {
		ts.Fatalf("no session %s", args[0])
	}
}

func setState(s *control.Session, arg string) error {
	key, value, _ := strings.Cut(arg, "=")
	switch key {
	case "connected": // to the devices named, with negotiated parameters
		s.Connected, s.Reason = true, ""
		s.MaxRecvDataSegmentLength, s.MaxSendDataSegmentLength = 262144, 131072
		s.HeaderDigest, s.ImmediateData = true, true
		for i, name := range strings.Fields(value) {
			s.Devices = append(s.Devices, control.Device{LUN: uint64(i), Name: name, Backend: "loop"})
		}
	case "disconnected":
		s.Connected, s.Reason = false, value
	case "alias":
		unquoted, err := strconv.Unquote(`"` + value + `"`)
		s.TargetAlias = unquoted
		return err
	case "redirect":
		s.Redirect = value
	case "outlives":
		s.Devices[0].Outlives, s.Devices[0].Backend = true, value
	case "pathof":
		n, err := strconv.ParseUint(value, 10, 32)
		s.Devices[1].PathOf = uint32(n)
		return err
	case "devicenote":
		s.Devices[0].Note = value
	case "note":
		s.Notes = append(s.Notes, value)
	case "fact":
		s.Facts = append(s.Facts, control.Fact{Name: "rdmaProvider", Label: "RDMA provider", Value: value})
	case "driver":
		s.OffloadDriver = value
	case "failed":
		s.Counters = control.Counters{
			Requests: 12, BytesRead: 4096, BytesWritten: 8192, Errors: 1, Reconnects: 2,
			LastFailure: value, LastFailureTime: time.Date(2024, 2, 29, 1, 2, 3, 0, time.UTC),
		}
	default:
		return fmt.Errorf("unknown state %s", key)
	}
	return nil
}

// cmdRefuse runs iscsictl in this process, as there are many of these, and judges that
// it says nothing but the message, with status 1: refuse MESSAGE OPTIONS…
func cmdRefuse(ts *testscript.TestScript, _ bool, args []string) {
	var stdout, stderr strings.Builder
	status := run(append([]string{"iscsictl", "--socket=nothing"}, args[1:]...), &stdout, &stderr)
	if status != 1 || stdout.Len() != 0 || stderr.String() != "iscsictl: "+args[0]+"\n" {
		ts.Fatalf("status %d, stdout %q, stderr %q", status, &stdout, &stderr)
	}
}

// cmdConnect connects sessions when they were listed so many times more: connect N ID…
func cmdConnect(ts *testscript.TestScript, _ bool, args []string) {
	registry := registryOf(ts)
	for _, arg := range args[1:] {
		registry.ConnectAfter(int(number(ts, args[0])), number(ts, arg))
	}
}

// cmdOffer sets what discovery finds: offer NAME PORTAL …
func cmdOffer(ts *testscript.TestScript, _ bool, args []string) {
	var targets []conf.Session
	for i := 0; i+1 < len(args); i += 2 {
		targets = append(targets, conf.Session{TargetName: args[i], TargetAddress: args[i+1]})
	}
	registryOf(ts).Offer(targets...)
}

// cmdSecret judges what the daemon was told: secret ID USER SECRET METHOD
func cmdSecret(ts *testscript.TestScript, neg bool, args []string) {
	c, ok := registryOf(ts).Conf(number(ts, args[0]))
	same := ok && c.User == args[1] && c.Secret == args[2] && c.AuthMethod.String() == args[3]
	if same == neg {
		ts.Fatalf("session %s has user %q, secret %q, %v", args[0], c.User, c.Secret, c.AuthMethod)
	}
}

// cmdRescans judges how many sessions were rescanned: rescans N
func cmdRescans(ts *testscript.TestScript, neg bool, args []string) {
	if n := registryOf(ts).Rescans(); (n == int(number(ts, args[0]))) == neg {
		ts.Fatalf("%d sessions were rescanned", n)
	}
}

// cmdJSON judges that a file holds one JSON value without duplicate names.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if err := checkJSON(json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))); (err == nil) == neg {
		ts.Fatalf("json: %v", err)
	}
}

func checkJSON(d *json.Decoder) error {
	if err := jsonValue(d); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the value")
	}
	return nil
}

func jsonValue(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	names := map[string]bool{}
	for d.More() {
		if open == '{' {
			token, err := d.Token()
			if err != nil {
				return err
			}
			name := token.(string)
			if names[name] {
				return fmt.Errorf("%s is there twice", name)
			}
			names[name] = true
		}
		if err := jsonValue(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// cmdXML judges that a file holds one well-formed element.
func cmdXML(ts *testscript.TestScript, neg bool, args []string) {
	d := xml.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	roots, depth := 0, 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		ts.Check(err)
		switch token.(type) {
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			depth++
		case xml.EndElement:
			depth--
		}
	}
	if (roots == 1) == neg {
		ts.Fatalf("%d root elements", roots)
	}
}

// cmdOpen judges that a file is as another, without the line feed at its end:
// libxo ends XML and HTML without one. A script's files cannot.
func cmdOpen(ts *testscript.TestScript, neg bool, args []string) {
	got, want := ts.ReadFile(args[0]), ts.ReadFile(args[1])
	if (got+"\n" == want) == neg {
		ts.Fatalf("%s and %s differ:\n%s", args[0], args[1], got)
	}
}

// cmdLines judges how many lines a file has: lines FILE N
func cmdLines(ts *testscript.TestScript, neg bool, args []string) {
	if n := strings.Count(ts.ReadFile(args[0]), "\n"); (n == int(number(ts, args[1]))) == neg {
		ts.Fatalf("%s has %d lines", args[0], n)
	}
}

// cmdDeadSocket leaves the socket of a daemon that died: deadsock PATH
func cmdDeadSocket(ts *testscript.TestScript, _ bool, args []string) {
	listener, err := control.Listen(args[0])
	ts.Check(err)
	listener.SetUnlinkOnClose(false)
	ts.Check(listener.Close())
}

func number(ts *testscript.TestScript, s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	ts.Check(err)
	return uint32(n)
}
