package control_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/control/controltest"
)

const hello = `{"hello":{"min":1,"max":1}}` + "\n"

// serve starts a server on a socket of its own and returns the socket's path.
func serve(t *testing.T, handler control.Handler) string {
	t.Helper()
	// t.TempDir may be too long for a socket.
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	listener, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, listener, handler) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		os.RemoveAll(dir)
	})
	return path
}

func dial(t *testing.T, path string) *control.Client {
	t.Helper()
	client, err := control.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// session returns a configuration with something in every field.
func session() conf.Session {
	s := conf.NewSession()
	s.Nickname = "disk"
	s.InitiatorName = "iqn.2012-06.com.example:me"
	s.InitiatorAddress = "192.0.2.9"
	s.InitiatorAlias = "an alias"
	s.TargetName = "iqn.2012-06.com.example:target0"
	s.TargetAddress = "192.0.2.1:3261"
	s.AuthMethod = conf.AuthCHAP
	s.User, s.Secret = "user", "twelve-secrets"
	s.MutualUser, s.MutualSecret = "mutual", "other-secrets!"
	s.CHAPDigest = "SHA-256"
	s.HeaderDigest, s.DataDigest, s.ISER, s.Enable = true, true, true, false
	s.Offload = "none"
	s.DSCP, s.PCP, s.PingTimeout, s.LoginTimeout, s.CommandTimeout, s.RecoveryTimeout = 0, 7, 0, 10, 20, 30
	s.LUNs, s.Device = "0,3-5", "loop"
	return s
}

func TestAddCarriesEverything(t *testing.T) {
	registry := controltest.NewRegistry()
	client := dial(t, serve(t, registry))
	want := session()
	id, err := client.Add(want)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := registry.Conf(id)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the daemon got another configuration (-sent +got):\n%s", diff)
	}
	unset := conf.NewSession()
	unset.TargetName, unset.TargetAddress = want.TargetName, "192.0.2.2"
	if id, err = client.Add(unset); err != nil {
		t.Fatal(err)
	}
	got, _ = registry.Conf(id)
	if diff := cmp.Diff(unset, got); diff != "" {
		t.Errorf("defaults (-sent +got):\n%s", diff)
	}
}

func TestRefusals(t *testing.T) {
	client := dial(t, serve(t, controltest.NewRegistry()))
	if _, err := client.Add(session()); err != nil {
		t.Fatal(err)
	}
	_, duplicate := client.Add(session())
	_, invalid := client.Add(conf.Session{})
	_, none := client.Remove(control.Selection{Portal: "elsewhere"})
	_, all := client.Remove(control.Selection{})
	target := strings.Repeat("x", 300)
	for _, test := range []struct {
		name string
		err  error
		code syscall.Errno
		want string
	}{
		{"duplicate", duplicate, syscall.EBUSY, "Device or resource busy: a session to iqn.2012-06.com.example:target0 at 192.0.2.1:3261 exists (session 1)"},
		{"invalid", invalid, syscall.EINVAL, "Invalid argument: "},
		{"none", none, syscall.ESRCH, "No such process: no session matches"},
		{"nothing selected", all, syscall.EINVAL, "Invalid argument: nothing says which sessions to remove"},
		{"unknown id", client.Modify(9, control.Modification{}), syscall.ESRCH, "No such process"},
		{"invalid change", client.Modify(1, control.Modification{Target: &target}), syscall.EINVAL, "Invalid argument"},
		{"tunable", client.SetTunable("kern.iscsi.nothing", "1"), syscall.ENOENT, "No such file or directory"},
		{"value", client.SetTunable("kern.iscsi.maxtags", "x"), syscall.EINVAL, "Invalid argument"},
		{"rescan", client.Rescan(t.Context(), control.Selection{ID: 9}), syscall.ESRCH, "No such process"},
	} {
		if !errors.Is(test.err, test.code) || !strings.HasPrefix(test.err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s…", test.name, test.err, test.want)
		}
	}
	// The connection goes on after each of them.
	if sessions, err := client.List(); err != nil || len(sessions) != 1 {
		t.Errorf("List: %d sessions, %v", len(sessions), err)
	}
}

func TestModify(t *testing.T) {
	registry := controltest.NewRegistry()
	client := dial(t, serve(t, registry))
	id, err := client.Add(session())
	if err != nil {
		t.Fatal(err)
	}
	portal, enable := "192.0.2.7", true
	if err := client.Modify(id, control.Modification{Portal: &portal, Enable: &enable}); err != nil {
		t.Fatal(err)
	}
	want := session()
	want.TargetAddress, want.Enable = portal, enable
	got, _ := registry.Conf(id)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("part (-want +got):\n%s", diff)
	}
	whole := session()
	whole.TargetName = "iqn.2012-06.com.example:target1"
	if err := client.Modify(id, control.Modification{Replace: &whole}); err != nil {
		t.Fatal(err)
	}
	got, _ = registry.Conf(id)
	if diff := cmp.Diff(whole, got); diff != "" {
		t.Errorf("whole (-want +got):\n%s", diff)
	}
	if err := client.Modify(id, control.Modification{Replace: &whole, Portal: &portal}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("both at once: %v", err)
	}
}

func TestListCarriesEverything(t *testing.T) {
	registry := controltest.NewRegistry()
	client := dial(t, serve(t, registry))
	id, err := client.Add(session())
	if err != nil {
		t.Fatal(err)
	}
	registry.Change(id, func(s *control.Session) {
		s.Connected, s.Reason = true, "connection lost"
		s.TargetAlias, s.Redirect = "\x1b[2J\u2028<&", "192.0.2.3"
		s.Devices = []control.Device{{LUN: 1 << 63, Name: "loop0", Backend: "loop", Note: "a note"}}
		s.Notes = []string{"no LUNs"}
		s.Counters = control.Counters{
			Requests: 1 << 63, Errors: 2, LastFailure: "x",
			LastFailureTime: time.Date(2024, 2, 29, 1, 2, 3, 4, time.UTC),
		}
	})
	got, err := client.List()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(registry.List(), got); diff != "" {
		t.Errorf("(-sent +got):\n%s", diff)
	}
}

func TestThousandsOfSessions(t *testing.T) {
	registry := controltest.NewRegistry()
	const n = 2000
	for i := range n {
		s := session()
		s.TargetName = fmt.Sprintf("iqn.2012-06.com.example:target%d", i)
		if _, err := registry.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	sessions, err := dial(t, serve(t, registry)).List()
	if err != nil || len(sessions) != n || sessions[n-1].ID != n {
		t.Fatalf("%d sessions, %v", len(sessions), err)
	}
}

// TestSecretsNeverComeOut reads all that the server says to all requests.
func TestSecretsNeverComeOut(t *testing.T) {
	registry := controltest.NewRegistry()
	registry.Offer(session())
	conn := raw(t, serve(t, registry))
	const add = `{"targetName":"iqn.2012-06.com.example:t","targetAddress":"h","authMethod":"CHAP",` +
		`"initiatorName":"iqn.2012-06.com.example:i",` +
		`"user":"u","secret":"SECRET-ONE!!!","mutualUser":"m","mutualSecret":"SECRET-TWO!!!"}`
	discovery := strings.Replace(add, `"targetName":"iqn.2012-06.com.example:t"`, `"discovery":true`, 1)
	var said bytes.Buffer
	for i, request := range []string{
		`{"hello":{"min":1,"max":1}}`,
		`{"add":` + add + `}`,
		`{"add":` + add + `}`, // a duplicate
		`{"add":` + strings.Replace(add, `"h"`, `""`, 1) + `}`,
		`{"modify":{"id":1,"secret":"SECRET-THREE!"}}`,
		`{"modify":{"id":2,"secret":"SECRET-THREE!"}}`,
		`{"modify":{"id":1,"replace":` + add + `}}`,
		`{"discover":` + discovery + `}`,
		`{"list":{}}`,
		`{"tunables":{}}`,
		`{"remove":{"all":true}}`,
		`{"add":{"secret":["SECRET-FOUR!!"]}}`, // the last, since it ends the conversation
	} {
		fmt.Fprintln(conn, request)
		line, err := bufio.NewReaderSize(conn, 1<<16).ReadBytes('\n')
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		said.Write(line)
	}
	if i := bytes.Index(said.Bytes(), []byte("SECRET-")); i >= 0 {
		t.Errorf("a secret came out: %.80s", said.Bytes()[i:])
	}
	for _, want := range []string{`"secretSet":true`, `"mutualSecretSet":true`, `"entries":[`, `"code":"EBUSY"`, `"code":"EBADMSG"`, `"removed":[1]`} {
		if !bytes.Contains(said.Bytes(), []byte(want)) {
			t.Errorf("no %s in the replies: the test does not test\n%s", want, said.Bytes())
		}
	}
}

func TestDiscover(t *testing.T) {
	registry := controltest.NewRegistry()
	other := session()
	other.TargetName = "iqn.2012-06.com.example:target1"
	registry.Offer(session(), other)
	client := dial(t, serve(t, registry))
	from := session()
	from.TargetName, from.TargetAddress, from.Discovery = "", "192.0.2.8", true
	found, err := client.Discover(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]conf.Session{session(), other}, found); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if sessions, _ := client.List(); len(sessions) != 0 {
		t.Errorf("discovery added %d sessions", len(sessions))
	}
	from.TargetAddress = "dead"
	if _, err := client.Discover(t.Context(), from); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}

func TestTunables(t *testing.T) {
	client := dial(t, serve(t, controltest.NewRegistry()))
	if err := client.SetTunable("kern.iscsi.ping_timeout", "7"); err != nil {
		t.Fatal(err)
	}
	tunables, err := client.Tunables()
	if err != nil || len(tunables) != 2 || tunables[1].Value != "7" {
		t.Errorf("%v, %v", tunables, err)
	}
}

func TestConcurrentClients(t *testing.T) {
	registry := controltest.NewRegistry()
	path := serve(t, registry)
	const clients, each = 8, 8
	var group sync.WaitGroup
	for i := range clients {
		group.Go(func() {
			client, err := control.Dial(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer client.Close()
			for j := range each {
				s := session()
				s.TargetName = fmt.Sprintf("iqn.2012-06.com.example:%d-%d", i, j)
				id, err := client.Add(s)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := client.List(); err != nil {
					t.Error(err)
				}
				if j%2 == 0 {
					if _, err := client.Remove(control.Selection{ID: id}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	if n := len(registry.List()); n != clients*each/2 {
		t.Errorf("%d sessions are left, want %d", n, clients*each/2)
	}
}

// raw connects without a client.
func raw(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}
