package login

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"

	"iscsictl/iscsi"
	"iscsictl/session/chap"
)

// What goes wrong with authentication, in the words of the listing.
var (
	// ErrNoVerdict: the connection was lost when the target had our credentials.
	// By iSER, a target may disconnect before the answer that refuses them is out.
	ErrNoVerdict = errors.New("Authentication was not answered")
	// ErrAuthenticationRequired: the target wants CHAP, and nothing is configured.
	ErrAuthenticationRequired = errors.New("Authentication required")
	// ErrUnsupportedAuthMethod: the target wants another AuthMethod than those offered.
	ErrUnsupportedAuthMethod = errors.New("Unsupported AuthMethod")
	// ErrMutualCHAPFailed: the target could not prove to be what was meant.
	ErrMutualCHAPFailed = errors.New("Mutual CHAP failed")
)

// StatusError is a login that the target refused (RFC 7143 §11.13.5).
type StatusError struct {
	Status iscsi.LoginStatus
	Text   string // the listing's words
}

func (e *StatusError) Error() string { return e.Text }

// Redirect says that the target is to be found elsewhere (RFC 7143 §11.13.5,
// status class 1).
type Redirect struct {
	Address   string // host and port, of the first TargetAddress; IPv6 in brackets
	Permanent bool
}

func (e *Redirect) Error() string {
	if e.Permanent {
		return iscsi.LoginTargetMovedPermanently.String()
	}
	return iscsi.LoginTargetMovedTemporarily.String()
}

// AlgorithmRefused says that the target has refused a list of CHAP algorithms,
// as targets do that know MD5 alone: the next attempt is to offer just that.
type AlgorithmRefused struct {
	Offered []chap.Algorithm
	Err     error // how it was refused
}

func (e *AlgorithmRefused) Error() string { return e.Err.Error() }

func (e *AlgorithmRefused) Unwrap() error { return e.Err }

// Reason returns the words that the listing has for the failure of a login.
func Reason(err error) string {
	var status *StatusError
	var redirect *Redirect
	switch {
	case err == nil:
		return ""
	case errors.As(err, &status):
		return status.Text
	case errors.As(err, &redirect):
		return redirect.Error()
	}
	for _, known := range []error{ErrNoVerdict, ErrAuthenticationRequired, ErrUnsupportedAuthMethod, ErrMutualCHAPFailed} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return clean(err.Error(), maxText)
}

// refused turns a status into an error.
func (m *Machine) refused(status iscsi.LoginStatus, data []byte) error {
	if status.Class() == iscsi.ClassRedirection {
		return redirect(status, data)
	}
	err := &StatusError{Status: status, Text: status.String()}
	if m.phase == phaseChallenge && (status == iscsi.LoginAuthenticationFailure || status == iscsi.LoginInitiatorError) {
		return m.refusedAlgorithms(err)
	}
	// IET and tgt have the number of SHA-256 for SHA-1: they choose it, and then
	// find our response too long.
	if m.phase == phaseVerdict && m.result.Algorithm == chap.SHA256 && status == iscsi.LoginInitiatorError {
		return m.refusedAlgorithms(err)
	}
	return err
}

func redirect(status iscsi.LoginStatus, data []byte) error {
	if status != iscsi.LoginTargetMovedTemporarily && status != iscsi.LoginTargetMovedPermanently {
		return &StatusError{Status: status, Text: status.String()}
	}
	pairs, err := iscsi.ParseKeys(data)
	if err != nil {
		return fmt.Errorf("login: %v: %w", status, err)
	}
	for _, kv := range pairs {
		if kv.Key != iscsi.KeyTargetAddress {
			continue
		}
		host, port, _, err := iscsi.ParseTargetAddress(kv.Value)
		if err == nil && strings.Contains(host, "%") {
			err = fmt.Errorf("%.64q has a zone, which means nothing outside of the host that it is of", kv.Value)
		}
		if err != nil {
			return fmt.Errorf("login: %v: %w", status, err)
		}
		return &Redirect{
			Address:   net.JoinHostPort(host, strconv.Itoa(port)),
			Permanent: status == iscsi.LoginTargetMovedPermanently,
		}
	}
	return fmt.Errorf("login: %v, but the target does not say where to (no TargetAddress)", status)
}

// clean makes text of a target fit for logs and listings: at most limit bytes
// and nothing that a terminal could act on.
func clean(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
