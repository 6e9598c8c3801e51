package control_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"iscsictl/control"
	"iscsictl/control/controltest"
)

// TestHostileRequests writes what is not a request, and wants one refusal and the
// end of the conversation, while others are served.
func TestHostileRequests(t *testing.T) {
	path := serve(t, controltest.NewRegistry())
	other := dial(t, path)
	random := make([]byte, 4096)
	const seed = 1
	source := rand.New(rand.NewPCG(seed, seed))
	for i := range random {
		random[i] = byte(source.Uint32())
	}
	for _, test := range []struct{ name, sent, want string }{
		{"empty line", "\n", "EBADMSG"},
		{"garbage", strings.ReplaceAll(string(random), "\n", "") + "\n", "EBADMSG"},
		{"not UTF-8", hello + "{\"add\":{\"user\":\"\xff\"}}\n", "EBADMSG"},
		{"no hello", `{"list":{}}` + "\n", "EPROTO"},
		{"newer", `{"hello":{"min":2,"max":9}}` + "\n", "EPROTONOSUPPORT"},
		{"older", `{"hello":{"min":0,"max":0}}` + "\n", "EPROTONOSUPPORT"},
		{"upside down", `{"hello":{"min":5,"max":1}}` + "\n", "EPROTONOSUPPORT"},
		{"two things", `{"hello":{"min":1,"max":1},"list":{}}` + "\n", "EBADMSG"},
		{"nothing", `{}` + "\n", "EBADMSG"},
		{"null", `null` + "\n", "EBADMSG"},
		{"unknown request", hello + `{"format":{}}` + "\n", "EBADMSG"},
		{"unknown member", hello + `{"remove":{"all":true,"gently":true}}` + "\n", "EBADMSG"},
		{"two on a line", hello + `{"list":{}}{"list":{}}` + "\n", "EBADMSG"},
		{"wrong type", hello + `{"modify":{"id":-1}}` + "\n", "EBADMSG"},
		{"deep", hello + `{"add":` + strings.Repeat("[", 100_000) + "\n", "EBADMSG"},
		{"long", hello + `{"add":{"user":"` + strings.Repeat("x", control.MaxRequest) + `"}}` + "\n", "EMSGSIZE"},
		{"endless", strings.Repeat("x", control.MaxRequest+8192), "EMSGSIZE"},
		{"cut off", hello + `{"add":{"user":` + "\n", "EBADMSG"},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := raw(t, path)
			go io.WriteString(conn, test.sent) //nolint:errcheck // fails where the server hangs up
			answer, err := io.ReadAll(conn)
			if err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(string(answer), "\n"), "\n")
			last := lines[len(lines)-1]
			if !strings.Contains(last, `{"error":{"code":"`+test.want+`"`) {
				t.Errorf("answer %.200q, want %s", last, test.want)
			}
			if _, err := other.List(); err != nil {
				t.Errorf("another client: %v", err)
			}
		})
	}
}

// TestHalfALine ends a connection in the middle of a request, which must not be done.
func TestHalfALine(t *testing.T) {
	registry := controltest.NewRegistry()
	path := serve(t, registry)
	if _, err := registry.Add(session()); err != nil {
		t.Fatal(err)
	}
	conn := raw(t, path)
	if _, err := io.WriteString(conn, hello+`{"remove":{"all":true}}`); err != nil {
		t.Fatal(err)
	}
	conn.(interface{ CloseWrite() error }).CloseWrite()
	if answer, err := io.ReadAll(conn); err != nil || strings.Count(string(answer), "\n") != 1 {
		t.Errorf("answer %q, %v", answer, err)
	}
	if len(registry.List()) != 1 {
		t.Error("half a request was done")
	}
}

// TestTooManyClients fills the server, and wants a refusal in words, and service
// again when one has left.
func TestTooManyClients(t *testing.T) {
	path := serve(t, controltest.NewRegistry())
	var clients []*control.Client
	var refusal error
	for range 100 {
		client, err := control.Dial(path)
		if err != nil {
			refusal = err
			break
		}
		defer client.Close()
		clients = append(clients, client)
	}
	if !errors.Is(refusal, syscall.EAGAIN) {
		t.Fatalf("%d clients, then %v", len(clients), refusal)
	}
	if _, err := clients[0].List(); err != nil {
		t.Errorf("a client that was there: %v", err)
	}
	clients[0].Close()
	for { // until the server has noticed
		client, err := control.Dial(path)
		if err == nil {
			client.Close()
			return
		}
		if !errors.Is(err, syscall.EAGAIN) {
			t.Fatal(err)
		}
	}
}
