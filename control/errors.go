package control

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Error is a refusal, as errno(3) and a text that says why, to which session, and
// what to do.
type Error struct {
	Code syscall.Errno
	Text string // may be empty; without the code's own words
}

// Errorf returns a refusal.
func Errorf(code syscall.Errno, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// Error returns the code as strerror(3) spells it and the text:
// "Device or resource busy: a session to … exists (session 3)".
func (e *Error) Error() string {
	cause := e.Code.Error()
	cause = strings.ToUpper(cause[:1]) + cause[1:]
	if e.Text == "" {
		return cause
	}
	return cause + ": " + e.Text
}

// Unwrap returns the code.
func (e *Error) Unwrap() error { return e.Code }

// ErrNotRunning is what Dial returns where nobody listens on the socket.
var ErrNotRunning = errors.New("iscsid is not running")

// wireError is an Error on the wire: the code by its name, since numbers differ
// between architectures.
type wireError struct {
	Code string `json:"code"`
	Text string `json:"text,omitempty"`
}

// refusal turns a handler's error to what is sent. An error without a code is an
// input/output error.
func refusal(err error) *wireError {
	var refused *Error
	if errors.As(err, &refused) {
		return &wireError{Code: codeName(refused.Code), Text: refused.Text}
	}
	var code syscall.Errno
	if !errors.As(err, &code) {
		return &wireError{Code: codeName(syscall.EIO), Text: err.Error()}
	}
	if err == error(code) {
		return &wireError{Code: codeName(code)}
	}
	return &wireError{Code: codeName(code), Text: err.Error()}
}

func codeName(code syscall.Errno) string {
	if name := unix.ErrnoName(code); name != "" {
		return name
	}
	return unix.ErrnoName(syscall.EIO)
}

// received turns what was sent to an Error. A name that this system does not have
// becomes EIO and stays in the text.
func (w *wireError) received() *Error {
	for code := syscall.Errno(1); code < 4096; code++ {
		if unix.ErrnoName(code) == w.Code {
			return &Error{Code: code, Text: w.Text}
		}
	}
	return Errorf(syscall.EIO, "%s: %s", w.Code, w.Text)
}
