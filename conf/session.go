package conf

import (
	"fmt"
	"strings"
)

// Session is one entry of iscsi.conf(5), or what iscsictl's options say, complete and validated.
type Session struct {
	Nickname         string `json:"nickname,omitempty"`
	InitiatorName    string `json:"initiatorName"`
	InitiatorAddress string `json:"initiatorAddress,omitempty"`
	InitiatorAlias   string `json:"initiatorAlias,omitempty"`
	TargetName       string `json:"targetName,omitempty"`
	TargetAddress    string `json:"targetAddress"`

	AuthMethod   AuthMethod `json:"authMethod"`
	User         string     `json:"user,omitempty"`
	Secret       string     `json:"secret,omitempty"`
	MutualUser   string     `json:"mutualUser,omitempty"`
	MutualSecret string     `json:"mutualSecret,omitempty"`
	CHAPDigest   string     `json:"chapDigest,omitempty"` // "", "MD5", "SHA1", "SHA-256", "SHA3-256"

	HeaderDigest bool   `json:"headerDigest"` // CRC32C
	DataDigest   bool   `json:"dataDigest"`   // CRC32C
	Discovery    bool   `json:"discovery"`
	Enable       bool   `json:"enable"`
	ISER         bool   `json:"iser"`
	Offload      string `json:"offload,omitempty"` // "" where none

	DSCP            int `json:"dscp"`            // -1: not set
	PCP             int `json:"pcp"`             // -1: not set
	PingTimeout     int `json:"pingTimeout"`     // seconds, 0: none, -1: not set
	LoginTimeout    int `json:"loginTimeout"`    // seconds, -1: not set
	CommandTimeout  int `json:"commandTimeout"`  // seconds, 0: none, -1: not set
	RecoveryTimeout int `json:"recoveryTimeout"` // seconds, 0: none, -1: not set

	LUNs   LUNSet `json:"luns,omitempty"`   // empty: all
	Device string `json:"device,omitempty"` // kind of devices, one of DeviceKinds; empty: the best there is
}

// NewSession returns a session with the defaults of iscsi.conf(5).
func NewSession() Session { return newSession(DefaultInitiatorName()) }

func newSession(initiatorName string) Session {
	return Session{
		InitiatorName: initiatorName,
		Enable:        true,
		DSCP:          -1, PCP: -1,
		PingTimeout: -1, LoginTimeout: -1, CommandTimeout: -1, RecoveryTimeout: -1,
	}
}

// AuthMethod is how the two sides authenticate (RFC 7143 §12).
type AuthMethod uint8

// The methods that there are.
const (
	AuthNone AuthMethod = iota
	AuthCHAP
)

// String returns the method as RFC 7143 spells it.
func (a AuthMethod) String() string {
	switch a {
	case AuthNone:
		return "None"
	case AuthCHAP:
		return "CHAP"
	}
	return fmt.Sprintf("AuthMethod(%d)", uint8(a))
}

// MarshalText writes String.
func (a AuthMethod) MarshalText() ([]byte, error) {
	if a > AuthCHAP {
		return nil, fmt.Errorf("invalid authentication method %d", uint8(a))
	}
	return []byte(a.String()), nil
}

// UnmarshalText reads what String writes, in any case.
func (a *AuthMethod) UnmarshalText(text []byte) error {
	switch strings.ToLower(string(text)) {
	case "none":
		*a = AuthNone
	case "chap":
		*a = AuthCHAP
	default:
		return fmt.Errorf("invalid authentication method %.20q; must be either \"None\" or \"CHAP\"", text)
	}
	return nil
}

// chapDigests are the algorithms of chapDigest, as CHAP_A knows them
// (RFC 7143 §12.1.3, and IANA's registry for the SHA ones).
var chapDigests = []string{"MD5", "SHA1", "SHA-256", "SHA3-256"}
