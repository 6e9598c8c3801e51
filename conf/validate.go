package conf

import (
	"errors"
	"fmt"
	"slices"
)

// Bounds of what a session may have, in bytes and seconds.
const (
	maxText    = 255       // of a text value (RFC 7143 §6.1)
	maxAddress = 512       // host, scope and port
	maxSecret  = 1024      // binary (RFC 7143 §12.1.3)
	maxTimeout = 1_000_000 // eleven days
)

// fault is what is wrong with a session, and the variable that it is about.
type fault struct {
	key string // lower case; "": none
	err error
}

// Validate makes the checks that follow parsing, in FreeBSD's words. All that
// the other parts rely on is bounded by it, so the daemon calls it on what
// clients send.
func (s *Session) Validate() error {
	var errs []error
	for _, f := range s.faults() {
		errs = append(errs, f.err)
	}
	return errors.Join(errs...)
}

// faults returns what is wrong, in the order in which FreeBSD checks.
func (s *Session) faults() []fault {
	faults := s.textFaults()
	add := func(key, format string, args ...any) {
		faults = append(faults, fault{key, fmt.Errorf(format, args...)})
	}
	switch {
	case s.TargetName == "" && !s.Discovery:
		add("", "missing TargetName for target %s", s.label())
	case s.TargetName != "" && s.Discovery:
		add("targetname", "cannot specify TargetName for discovery sessions for target %s", s.label())
	}
	if s.TargetName != "" {
		for _, err := range nameFaults("target", s.TargetName) {
			add("targetname", "%w", err)
		}
	}
	if s.TargetAddress == "" {
		add("", "missing TargetAddress for target %s", s.label())
	}
	for _, err := range nameFaults("initiator", s.InitiatorName) {
		add("initiatorname", "%w", err)
	}
	return append(append(faults, s.authFaults()...), s.numberFaults()...)
}

func (s *Session) authFaults() (faults []fault) {
	missing := func(key, value string) {
		if value == "" {
			faults = append(faults, fault{"", fmt.Errorf("missing %s for target %s", key, s.label())})
		}
	}
	if s.AuthMethod > AuthCHAP {
		faults = append(faults, fault{"authmethod", fmt.Errorf("invalid AuthMethod for target %s", s.label())})
	}
	if s.CHAPDigest != "" && !slices.Contains(chapDigests, s.CHAPDigest) {
		faults = append(faults, fault{"chapdigest", fmt.Errorf("invalid chapDigest %s for target %s", quote(s.CHAPDigest), s.label())})
	}
	if s.AuthMethod == AuthCHAP {
		missing("chapIName", s.User)
		missing("chapSecret", s.Secret)
		if s.MutualUser != "" || s.MutualSecret != "" {
			missing("tgtChapName", s.MutualUser)
			missing("tgtChapSecret", s.MutualSecret)
		}
	}
	return faults
}

// textFaults looks at what is sent to targets or printed. Names have their own
// checks.
func (s *Session) textFaults() (faults []fault) {
	for _, t := range []struct {
		key, name, value string
		limit            int
	}{
		{"", "nickname", s.Nickname, maxText},
		{"targetaddress", "TargetAddress", s.TargetAddress, maxAddress},
		{"initiatoraddress", "InitiatorAddress", s.InitiatorAddress, maxAddress},
		{"initiatoralias", "InitiatorAlias", s.InitiatorAlias, maxText},
		{"chapiname", "chapIName", s.User, maxText},
		{"chapsecret", "chapSecret", s.Secret, maxSecret},
		{"tgtchapname", "tgtChapName", s.MutualUser, maxText},
		{"tgtchapsecret", "tgtChapSecret", s.MutualSecret, maxSecret},
		{"offload", "offload", s.Offload, maxText},
	} {
		switch {
		case len(t.value) > t.limit:
			faults = append(faults, fault{t.key, fmt.Errorf("overlong %s for target %s; max length is %d bytes", t.name, s.label(), t.limit)})
		case !isText(t.value):
			faults = append(faults, fault{t.key, fmt.Errorf("invalid %s for target %s; must be UTF-8 without control characters", t.name, s.label())})
		}
	}
	return faults
}

func (s *Session) numberFaults() (faults []fault) {
	for _, n := range []struct {
		key, name        string
		value, low, high int
	}{
		{"dscp", "dscp", s.DSCP, 0, maxDSCP},
		{"pcp", "pcp", s.PCP, 0, maxPCP},
		{"pingtimeout", "PingTimeout", s.PingTimeout, 0, maxTimeout},
		{"logintimeout", "LoginTimeout", s.LoginTimeout, 1, maxTimeout},
		{"commandtimeout", "CommandTimeout", s.CommandTimeout, 0, maxTimeout},
		{"recoverytimeout", "RecoveryTimeout", s.RecoveryTimeout, 0, maxTimeout},
	} {
		if n.value != -1 && (n.value < n.low || n.value > n.high) {
			faults = append(faults, fault{n.key, fmt.Errorf("invalid %s value for target %s; must be %d to %d", n.name, s.label(), n.low, n.high)})
		}
	}
	if s.LUNs != "" {
		if canonical, err := ParseLUNSet(string(s.LUNs)); err != nil || canonical != s.LUNs {
			faults = append(faults, fault{"luns", fmt.Errorf("invalid LUNs for target %s", s.label())})
		}
	}
	if kind, err := ParseDevice(s.Device); s.Device != "" && (err != nil || kind != s.Device) {
		faults = append(faults, fault{"device", fmt.Errorf("invalid Device %s for target %s", quote(s.Device), s.label())})
	}
	return faults
}

// label returns what messages call the session, in quotes.
func (s *Session) label() string {
	for _, name := range []string{s.Nickname, s.TargetName, s.TargetAddress} {
		if name != "" {
			return quote(name)
		}
	}
	return `""`
}

// Warnings returns what is doubtful in a valid session, but no reason to
// refuse it.
func (s *Session) Warnings() []string {
	var warnings []string
	for _, f := range s.doubts() {
		warnings = append(warnings, f.err.Error())
	}
	return warnings
}

func (s *Session) doubts() (doubts []fault) {
	add := func(key, text string) {
		if text != "" {
			doubts = append(doubts, fault{key, errors.New(text)})
		}
	}
	if s.TargetName != "" {
		add("targetname", nameWarning(s.TargetName))
	}
	add("initiatorname", nameWarning(s.InitiatorName))
	if _, _, err := SplitAddress(s.TargetAddress); err != nil {
		add("targetaddress", fmt.Sprintf("TargetAddress %s for target %s: %v", quote(s.TargetAddress), s.label(), err))
	}
	if s.InitiatorAddress != "" {
		if _, _, err := SplitLocalAddress(s.InitiatorAddress); err != nil {
			add("initiatoraddress", fmt.Sprintf("InitiatorAddress %s for target %s: %v", quote(s.InitiatorAddress), s.label(), err))
		}
	}
	switch {
	case s.AuthMethod == AuthNone && (s.User != "" || s.Secret != "" || s.MutualUser != "" || s.MutualSecret != ""):
		add("authmethod", fmt.Sprintf("AuthMethod is None, so CHAP names and secrets are not used for target %s", s.label()))
	case s.AuthMethod == AuthCHAP && s.Secret == s.MutualSecret:
		add("tgtchapsecret", fmt.Sprintf("tgtChapSecret is the same as chapSecret for target %s; targets may refuse that", s.label()))
	}
	return doubts
}
