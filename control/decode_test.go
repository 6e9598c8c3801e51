package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"iscsictl/conf"
)

// requests has one of each kind.
func requests() []*request {
	text, on := "x", true
	return []*request{
		{Hello: &helloRequest{Min: 1, Max: 1}},
		{Add: configOf(conf.NewSession())},
		{Modify: &modifyRequest{ID: 3, Portal: &text, Target: &text, User: &text, Secret: &text, Enable: &on}},
		{Modify: &modifyRequest{ID: 3, Replace: configOf(conf.Session{})}},
		{Remove: &Selection{All: true, Force: true}},
		{List: &struct{}{}},
		{Rescan: &Selection{ID: 3}},
		{Discover: configOf(conf.NewSession())},
		{Tunables: &struct{}{}},
		{SetTunable: &setTunableValue{Name: "n", Value: "v"}},
	}
}

// TestEveryTruncationFails cuts each request at each byte.
func TestEveryTruncationFails(t *testing.T) {
	for _, want := range requests() {
		line, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeRequest(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v", line, err)
		}
		for n := range line {
			if _, err := decodeRequest(line[:n]); err == nil {
				t.Errorf("%s was accepted", line[:n])
			}
		}
	}
}

// TestEveryRequestIsCounted keeps members and the request's fields in step.
func TestEveryRequestIsCounted(t *testing.T) {
	kinds := map[int]bool{}
	for _, r := range requests() {
		v := reflect.ValueOf(*r)
		for i := range v.NumField() {
			if !v.Field(i).IsNil() {
				kinds[i] = true
			}
		}
		if r.members() != 1 {
			t.Errorf("%+v counts as %d", r, r.members())
		}
	}
	if all := reflect.TypeFor[request]().NumField(); len(kinds) != all {
		t.Errorf("requests of %d of %d kinds are tested", len(kinds), all)
	}
}

// TestConfigHasEveryField fails when conf.Session has a field that is not sent.
func TestConfigHasEveryField(t *testing.T) {
	var s conf.Session
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(fmt.Sprint(i))
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int:
			f.SetInt(int64(i))
		default:
			f.Set(reflect.ValueOf(conf.AuthCHAP))
		}
	}
	got, err := configOf(s).session()
	if err != nil || got != s {
		t.Errorf("sent %+v\ngot  %+v, %v", s, got, err)
	}
}

func TestNegativeSettingsAreRefused(t *testing.T) {
	n := -1
	if _, err := (&config{DSCP: &n}).session(); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
	if _, err := (&config{AuthMethod: "KRB5"}).session(); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
}

func TestAgree(t *testing.T) {
	for _, test := range []struct {
		min, max, want int
	}{
		{MinVersion, MaxVersion, MaxVersion},
		{MinVersion, MaxVersion + 5, MaxVersion},
		{MinVersion - 1, MinVersion, MinVersion},
		{MaxVersion + 1, MaxVersion + 5, 0},
		{-5, MinVersion - 1, 0},
		{MaxVersion + 1, MinVersion - 1, 0},
	} {
		got, err := agree(helloRequest{Min: test.min, Max: test.max})
		if got != test.want || (err == nil) != (test.want != 0) {
			t.Errorf("%d to %d: %d, %v", test.min, test.max, got, err)
		}
	}
}

func TestErrorsOnTheWire(t *testing.T) {
	for _, test := range []struct {
		err  error
		code syscall.Errno
		want string
	}{
		{Errorf(syscall.EBUSY, "a disk is in use"), syscall.EBUSY, "Device or resource busy: a disk is in use"},
		{fmt.Errorf("more: %w", Errorf(syscall.EBUSY, "less")), syscall.EBUSY, "Device or resource busy: less"},
		{syscall.ESRCH, syscall.ESRCH, "No such process"},
		{fmt.Errorf("connect: %w", syscall.ECONNREFUSED), syscall.ECONNREFUSED, "Connection refused: connect: connection refused"},
		{io.ErrUnexpectedEOF, syscall.EIO, "Input/output error: unexpected EOF"},
		{&Error{Code: 3999}, syscall.EIO, "Input/output error"},
	} {
		got := refusal(test.err).received()
		if !errors.Is(got, test.code) || got.Error() != test.want {
			t.Errorf("%v: got %v, want %s", test.err, got, test.want)
		}
	}
	foreign := (&wireError{Code: "ENOTHERE", Text: "t"}).received()
	if foreign.Error() != "Input/output error: ENOTHERE: t" {
		t.Error(foreign)
	}
}

// TestEveryErrnoHasWords since messages begin with them.
func TestEveryErrnoHasWords(t *testing.T) {
	for code := range syscall.Errno(200) {
		if text := (&Error{Code: code}).Error(); text == "" {
			t.Errorf("%d has none", code)
		}
		if name := unix.ErrnoName(code); name != "" && (&wireError{Code: name}).received().Code != code {
			t.Errorf("%s is not received as it was sent", name)
		}
	}
}

func TestApply(t *testing.T) {
	user, secret, none, off := "u", "s", "", false
	base := conf.Session{TargetName: "t", TargetAddress: "a", Enable: true}
	chap := base
	chap.AuthMethod, chap.User, chap.Secret = conf.AuthCHAP, user, secret
	disabled := base
	disabled.Enable = false
	for _, test := range []struct {
		name       string
		from, want conf.Session
		change     Modification
	}{
		{"nothing", base, base, Modification{}},
		{"CHAP on", base, chap, Modification{User: &user, Secret: &secret}},
		{"CHAP off", chap, base, Modification{User: &none, Secret: &none}},
		{"disable", base, disabled, Modification{Enable: &off}},
		{"replace", base, chap, Modification{Replace: &chap}},
	} {
		if got := test.change.Apply(test.from); got != test.want {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		which Selection
		want  bool
	}{
		{Selection{}, false},
		{Selection{Force: true}, false},
		{Selection{All: true}, true},
		{Selection{ID: 3}, true},
		{Selection{ID: 4}, false},
		{Selection{Portal: "h"}, true},
		{Selection{Portal: "moved"}, true},
		{Selection{Portal: "h:3260"}, false},
		{Selection{Target: "t"}, true},
		{Selection{Target: "T"}, false},
		{Selection{Portal: "h", Target: "t"}, true},
		{Selection{Portal: "h", Target: "u"}, false},
	} {
		if got := test.which.Match(3, "t", "h", "moved"); got != test.want {
			t.Errorf("%+v: %v", test.which, got)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, r := range requests() {
		line, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Add([]byte(strings.Repeat("[", 100)))
	f.Add([]byte(`{"add":{"user":"\"{[\\"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decodeRequest(line)
		if (err == nil) != (r != nil) {
			t.Fatalf("%v, %v", r, err)
		}
		if err != nil {
			var refused *Error
			if !errors.As(err, &refused) {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		if r.members() != 1 {
			t.Fatalf("%d members", r.members())
		}
		// What was accepted is the same when it is sent again.
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		same, err := decodeRequest(again)
		if err != nil || !reflect.DeepEqual(r, same) {
			t.Fatalf("%s: %v", again, err)
		}
		if r.Modify != nil {
			_, _ = r.Modify.modification()
		}
		if r.Add != nil {
			_, _ = r.Add.valid()
		}
	})
}

func FuzzDecodeReply(f *testing.F) {
	f.Add([]byte(`{"error":{"code":"EBUSY","text":"t"}}`))
	f.Add([]byte(`{"sessions":[{"id":1,"devices":[{"lun":1}],"counters":{"lastFailureTime":"2024-02-29T00:00:00Z"}}]}`))
	f.Add([]byte(`{"entries":[null]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := decodeReply(line); (err == nil) != (r != nil) {
			t.Fatalf("%v, %v", r, err)
		}
	})
}
