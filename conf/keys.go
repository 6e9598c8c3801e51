package conf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	maxDSCP = 0x3f
	maxPCP  = 7
)

// key is a variable of iscsi.conf(5).
type key struct {
	name   string // as the manual page spells it
	spoken string // as messages spell it, where that differs
	list   bool   // a list without quotes is allowed
	set    func(r *reader, s *Session, value string) error
}

// choiceError is a value that is none of those that there are.
type choiceError string

func (e choiceError) Error() string { return string(e) }

// errObsolete makes an entry one that is ignored with a warning.
var errObsolete = errors.New("obsolete statement")

// keys are the variables, by their names in lower case.
var keys = func() map[string]*key {
	all := map[string]*key{}
	for _, k := range []key{
		{name: "TargetName", set: text(func(s *Session) *string { return &s.TargetName })},
		{name: "TargetAddress", set: text(func(s *Session) *string { return &s.TargetAddress })},
		{name: "InitiatorName", set: text(func(s *Session) *string { return &s.InitiatorName })},
		{name: "InitiatorAddress", set: text(func(s *Session) *string { return &s.InitiatorAddress })},
		{name: "InitiatorAlias", set: text(func(s *Session) *string { return &s.InitiatorAlias })},
		{name: "AuthMethod", set: setAuthMethod},
		{name: "chapIName", set: text(func(s *Session) *string { return &s.User })},
		{name: "chapSecret", set: secret(func(s *Session) *string { return &s.Secret })},
		{name: "tgtChapName", set: text(func(s *Session) *string { return &s.MutualUser })},
		{name: "tgtChapSecret", set: secret(func(s *Session) *string { return &s.MutualSecret })},
		{name: "chapDigest", set: setCHAPDigest},
		{name: "HeaderDigest", set: choice("none", "CRC32C", func(s *Session) *bool { return &s.HeaderDigest })},
		{name: "DataDigest", set: choice("none", "CRC32C", func(s *Session) *bool { return &s.DataDigest })},
		{name: "SessionType", set: choice("normal", "discovery", func(s *Session) *bool { return &s.Discovery })},
		{name: "Enable", spoken: "enable", set: setEnable},
		{name: "Protocol", spoken: "protocol", set: choice("iscsi", "iser", func(s *Session) *bool { return &s.ISER })},
		{name: "Offload", spoken: "offload", set: setOffload},
		{name: "dscp", set: setDSCP},
		{name: "pcp", set: number("pcp", 0, maxPCP, func(s *Session) *int { return &s.PCP })},
		{name: "PingTimeout", set: number("PingTimeout", 0, maxTimeout, func(s *Session) *int { return &s.PingTimeout })},
		{name: "LoginTimeout", set: number("LoginTimeout", 1, maxTimeout, func(s *Session) *int { return &s.LoginTimeout })},
		{name: "CommandTimeout", set: number("CommandTimeout", 0, maxTimeout, func(s *Session) *int { return &s.CommandTimeout })},
		{name: "RecoveryTimeout", set: number("RecoveryTimeout", 0, maxTimeout, func(s *Session) *int { return &s.RecoveryTimeout })},
		{name: "LUNs", list: true, set: setLUNs},
		{name: "Device", set: setDevice},
	} {
		if k.spoken == "" {
			k.spoken = k.name
		}
		all[strings.ToLower(k.name)] = &k
	}
	// From the initiator of before FreeBSD 10.
	for _, name := range []string{
		"port", "MaxConnections", "TargetAlias", "TargetPortalGroupTag", "InitialR2T", "ImmediateData",
		"MaxRecvDataSegmentLength", "MaxBurstLength", "FirstBurstLength", "DefaultTime2Wait", "DefaultTime2Retain",
		"MaxOutstandingR2T", "DataPDUInOrder", "DataSequenceInOrder", "ErrorRecoveryLevel", "tags", "maxluns", "sockbufsize",
	} {
		all[strings.ToLower(name)] = &key{name: name, spoken: name, set: setObsolete}
	}
	return all
}()

type setter = func(r *reader, s *Session, value string) error

func text(field func(*Session) *string) setter {
	return func(_ *reader, s *Session, value string) error {
		*field(s) = value
		return nil
	}
}

func secret(field func(*Session) *string) setter {
	return func(r *reader, s *Session, value string) (err error) {
		*field(s), err = r.secretOf(value)
		return err
	}
}

// choice is of two values, in any case.
func choice(no, yes string, field func(*Session) *bool) setter {
	return func(_ *reader, s *Session, value string) error {
		if *field(s) = strings.EqualFold(value, yes); !*field(s) && !strings.EqualFold(value, no) {
			return choiceError(fmt.Sprintf("must be either \"%s\" or \"%s\"", no, yes))
		}
		return nil
	}
}

func number(name string, low, high uint64, field func(*Session) *int) setter {
	return func(_ *reader, s *Session, value string) error {
		n, err := expandNumber(value)
		switch {
		case err != nil:
			return err
		case n < low || n > high:
			return fmt.Errorf("invalid %s value; must be %d to %d", name, low, high)
		}
		*field(s) = int(n)
		return nil
	}
}

func setAuthMethod(_ *reader, s *Session, value string) error {
	if s.AuthMethod.UnmarshalText([]byte(value)) != nil {
		return choiceError(`must be either "none" or "CHAP"`)
	}
	return nil
}

// setCHAPDigest pins the algorithm. Other values are of old files, and ignored.
func setCHAPDigest(_ *reader, s *Session, value string) error {
	for _, digest := range chapDigests {
		if strings.EqualFold(value, digest) {
			s.CHAPDigest = digest
			return nil
		}
	}
	return errObsolete
}

// ParseEnable reads what Enable and iscsictl's -e say: on, yes, off or no, in
// any case.
func ParseEnable(value string) (enable, ok bool) {
	switch strings.ToLower(value) {
	case "on", "yes":
		return true, true
	case "off", "no":
		return false, true
	}
	return false, false
}

func setEnable(_ *reader, s *Session, value string) error {
	enable, ok := ParseEnable(value)
	if !ok {
		return choiceError(`must be either "on" or "off"`)
	}
	s.Enable = enable
	return nil
}

func setOffload(_ *reader, s *Session, value string) error {
	if s.Offload = value; strings.EqualFold(value, "none") {
		s.Offload = ""
	}
	return nil
}

// dscpNames are the code points that have names (RFC 2474, RFC 2597, RFC 3246).
var dscpNames = map[string]int{
	"be": 0, "ef": 46,
	"cs0": 0, "cs1": 8, "cs2": 16, "cs3": 24, "cs4": 32, "cs5": 40, "cs6": 48, "cs7": 56,
	"af11": 10, "af12": 12, "af13": 14, "af21": 18, "af22": 20, "af23": 22,
	"af31": 26, "af32": 28, "af33": 30, "af41": 34, "af42": 36, "af43": 38,
}

func setDSCP(r *reader, s *Session, value string) error {
	if dscp, ok := dscpNames[strings.ToLower(value)]; ok {
		s.DSCP = dscp
		return nil
	}
	return number("dscp", 0, maxDSCP, func(s *Session) *int { return &s.DSCP })(r, s, value)
}

func setLUNs(_ *reader, s *Session, value string) (err error) {
	s.LUNs, err = ParseLUNSet(value)
	return err
}

func setDevice(_ *reader, s *Session, value string) (err error) {
	s.Device, err = ParseDevice(value)
	return err
}

func setObsolete(*reader, *Session, string) error { return errObsolete }

// nearest returns the variable that was probably meant by name, or "".
func nearest(name string) string {
	names := make([]string, 0, len(keys))
	for _, k := range keys {
		names = append(names, k.name)
	}
	slices.Sort(names) // of equally near ones always the same
	return nearestOf(names, name)
}

// nearestOf returns the one of some names that was probably meant, in any case,
// or "".
func nearestOf(names []string, name string) string {
	name = strings.ToLower(name)
	best, distance := "", len(name)/3+1
	for _, one := range names {
		if d := editDistance(name, strings.ToLower(one)); d < distance {
			best, distance = one, d
		}
	}
	return best
}

// editDistance is the number of characters to add, remove, replace or swap with
// their neighbour that make b of a.
func editDistance(a, b string) int {
	if diff := len(a) - len(b); diff > 8 || diff < -8 { // also bounds the work
		return len(a) + len(b)
	}
	var before, row, next []int
	for j := range len(b) + 1 {
		row = append(row, j)
	}
	for i := 1; i <= len(a); i++ {
		next = append(make([]int, 0, len(b)+1), i)
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, before[j-2]+1)
			}
			next = append(next, d)
		}
		before, row = row, next
	}
	return row[len(b)]
}
