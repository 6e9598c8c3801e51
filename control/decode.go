package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"
	"unicode/utf8"
)

// decodeRequest reads one line, without its line feed. It refuses what is not a
// request of this version, in words for the one who wrote the client.
func decodeRequest(line []byte) (*request, error) {
	if !utf8.Valid(line) {
		return nil, Errorf(syscall.EBADMSG, "the request is not UTF-8")
	}
	if err := checkDepth(line); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	var r request
	if err := decoder.Decode(&r); err != nil {
		return nil, Errorf(syscall.EBADMSG, "the request is not understood: %s", withoutValues(err))
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, Errorf(syscall.EBADMSG, "the line has more than one request")
	}
	if n := r.members(); n != 1 {
		return nil, Errorf(syscall.EBADMSG, "the request asks for %d things; it must be one", n)
	}
	return &r, nil
}

// withoutValues says what is wrong with a request without quoting it: a line that
// is cut or of the wrong type may hold a secret.
func withoutValues(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		return fmt.Sprintf("%s is not a %s", kind.Field, kind.Type)
	case errors.As(err, &syntax):
		return fmt.Sprintf("not JSON at byte %d", syntax.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "it is cut off"
	}
	return err.Error() // an unknown member's name
}

// checkDepth refuses what is nested deeper than any message is, before a decoder
// that works by recursion sees it.
func checkDepth(line []byte) error {
	depth, quoted := 0, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return Errorf(syscall.EBADMSG, "the request is nested deeper than %d", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}
