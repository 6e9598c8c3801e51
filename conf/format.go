package conf

import (
	"fmt"
	"strconv"
	"strings"

	"iscsictl/parser"
)

// Format returns the session as an entry of iscsi.conf(5), without what is
// default. ParseBytes reads it back as the same session. A value that the file
// cannot hold, such as one with a quote or a line break, which may come from a
// hostile target, is left out, and a comment says so.
func Format(s Session) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s {\n", nickname(&s))
	entry := func(key, value string) {
		switch {
		case value == "":
		case !canHold(value):
			fmt.Fprintf(&b, "\t# %s is left out: it has characters that cannot stand here\n", key)
		default:
			fmt.Fprintf(&b, "\t%s = %s\n", key, word(value))
		}
	}
	entry("TargetName", s.TargetName)
	entry("TargetAddress", s.TargetAddress)
	entry("InitiatorName", s.InitiatorName)
	entry("InitiatorAddress", s.InitiatorAddress)
	entry("InitiatorAlias", s.InitiatorAlias)
	formatAuth(&s, entry)
	flag := func(key string, set bool, value string) {
		if set {
			entry(key, value)
		}
	}
	flag("HeaderDigest", s.HeaderDigest, "CRC32C")
	flag("DataDigest", s.DataDigest, "CRC32C")
	flag("SessionType", s.Discovery, "Discovery")
	flag("Enable", !s.Enable, "off")
	flag("Protocol", s.ISER, "iSER")
	entry("Offload", s.Offload)
	number := func(key string, value int) { flag(key, value >= 0, strconv.Itoa(value)) }
	number("dscp", s.DSCP)
	number("pcp", s.PCP)
	number("PingTimeout", s.PingTimeout)
	number("LoginTimeout", s.LoginTimeout)
	number("CommandTimeout", s.CommandTimeout)
	number("RecoveryTimeout", s.RecoveryTimeout)
	entry("LUNs", s.LUNs.String())
	entry("Device", s.Device)
	b.WriteString("}\n")
	return b.String()
}

func formatAuth(s *Session, entry func(key, value string)) {
	some := s.User != "" || s.Secret != "" || s.MutualUser != "" || s.MutualSecret != ""
	if implied := some; implied != (s.AuthMethod == AuthCHAP) {
		entry("AuthMethod", s.AuthMethod.String())
	}
	entry("chapIName", s.User)
	formatSecret("chapSecret", s.Secret, entry)
	entry("tgtChapName", s.MutualUser)
	formatSecret("tgtChapSecret", s.MutualSecret, entry)
	entry("chapDigest", s.CHAPDigest)
}

// formatSecret leaves out what would be taken for the name of a file.
func formatSecret(key, value string, entry func(key, value string)) {
	if strings.HasPrefix(value, secretFile) {
		value = "\n"
	}
	entry(key, value)
}

// nickname returns what the entry is called: by a session without a nickname,
// its target.
func nickname(s *Session) string {
	name := s.Nickname
	for _, other := range []string{s.TargetName, s.TargetAddress, "target"} {
		if name == "" {
			name = other
		}
	}
	return word(strings.Map(func(r rune) rune {
		if r == '"' || !isText(string(r)) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_")))
}

func canHold(value string) bool {
	return isText(value) && !strings.Contains(value, `"`)
}

// word returns a value as it stands in the file.
func word(value string) string {
	if parser.IsWord(value) {
		return value
	}
	return `"` + value + `"`
}
