package control

import (
	"fmt"
	"syscall"

	"iscsictl/conf"
)

// config is a conf.Session on the wire. It has its own type so that the protocol
// changes when somebody means it to, and not with a field's name. Numbers are
// pointers: absent means unset.
type config struct {
	Nickname         string      `json:"nickname,omitempty"`
	InitiatorName    string      `json:"initiatorName,omitempty"`
	InitiatorAddress string      `json:"initiatorAddress,omitempty"`
	InitiatorAlias   string      `json:"initiatorAlias,omitempty"`
	TargetName       string      `json:"targetName,omitempty"`
	TargetAddress    string      `json:"targetAddress,omitempty"`
	AuthMethod       string      `json:"authMethod,omitempty"` // "CHAP" or absent
	User             string      `json:"user,omitempty"`
	Secret           string      `json:"secret,omitempty"`
	MutualUser       string      `json:"mutualUser,omitempty"`
	MutualSecret     string      `json:"mutualSecret,omitempty"`
	CHAPDigest       string      `json:"chapDigest,omitempty"`
	HeaderDigest     bool        `json:"headerDigest,omitempty"`
	DataDigest       bool        `json:"dataDigest,omitempty"`
	Discovery        bool        `json:"discovery,omitempty"`
	Disable          bool        `json:"disable,omitempty"`
	ISER             bool        `json:"iser,omitempty"`
	Offload          string      `json:"offload,omitempty"`
	DSCP             *int        `json:"dscp,omitempty"`
	PCP              *int        `json:"pcp,omitempty"`
	PingTimeout      *int        `json:"pingTimeout,omitempty"`
	LoginTimeout     *int        `json:"loginTimeout,omitempty"`
	CommandTimeout   *int        `json:"commandTimeout,omitempty"`
	RecoveryTimeout  *int        `json:"recoveryTimeout,omitempty"`
	LUNs             conf.LUNSet `json:"luns,omitempty"`
	Device           string      `json:"device,omitempty"`
}

const wireCHAP = "CHAP"

// configOf returns the wire form of a session's configuration, secrets included.
func configOf(s conf.Session) *config {
	c := &config{
		Nickname:         s.Nickname,
		InitiatorName:    s.InitiatorName,
		InitiatorAddress: s.InitiatorAddress,
		InitiatorAlias:   s.InitiatorAlias,
		TargetName:       s.TargetName,
		TargetAddress:    s.TargetAddress,
		User:             s.User,
		Secret:           s.Secret,
		MutualUser:       s.MutualUser,
		MutualSecret:     s.MutualSecret,
		CHAPDigest:       s.CHAPDigest,
		HeaderDigest:     s.HeaderDigest,
		DataDigest:       s.DataDigest,
		Discovery:        s.Discovery,
		Disable:          !s.Enable,
		ISER:             s.ISER,
		Offload:          s.Offload,
		DSCP:             optional(s.DSCP),
		PCP:              optional(s.PCP),
		PingTimeout:      optional(s.PingTimeout),
		LoginTimeout:     optional(s.LoginTimeout),
		CommandTimeout:   optional(s.CommandTimeout),
		RecoveryTimeout:  optional(s.RecoveryTimeout),
		LUNs:             s.LUNs,
		Device:           s.Device,
	}
	if s.AuthMethod == conf.AuthCHAP {
		c.AuthMethod = wireCHAP
	}
	return c
}

// session returns the configuration, not yet validated.
func (c *config) session() (conf.Session, error) {
	s := conf.NewSession()
	switch c.AuthMethod {
	case "":
		s.AuthMethod = conf.AuthNone
	case wireCHAP:
		s.AuthMethod = conf.AuthCHAP
	default:
		return s, Errorf(syscall.EINVAL, "unknown authMethod %q", c.AuthMethod)
	}
	for _, n := range []*int{c.DSCP, c.PCP, c.PingTimeout, c.LoginTimeout, c.CommandTimeout, c.RecoveryTimeout} {
		if n != nil && *n < 0 {
			return s, Errorf(syscall.EINVAL, "a setting of the session is negative (%d)", *n)
		}
	}
	s.Nickname = c.Nickname
	s.InitiatorName = c.InitiatorName
	s.InitiatorAddress = c.InitiatorAddress
	s.InitiatorAlias = c.InitiatorAlias
	s.TargetName = c.TargetName
	s.TargetAddress = c.TargetAddress
	s.User = c.User
	s.Secret = c.Secret
	s.MutualUser = c.MutualUser
	s.MutualSecret = c.MutualSecret
	s.CHAPDigest = c.CHAPDigest
	s.HeaderDigest = c.HeaderDigest
	s.DataDigest = c.DataDigest
	s.Discovery = c.Discovery
	s.Enable = !c.Disable
	s.ISER = c.ISER
	s.Offload = c.Offload
	s.DSCP = orUnset(c.DSCP)
	s.PCP = orUnset(c.PCP)
	s.PingTimeout = orUnset(c.PingTimeout)
	s.LoginTimeout = orUnset(c.LoginTimeout)
	s.CommandTimeout = orUnset(c.CommandTimeout)
	s.RecoveryTimeout = orUnset(c.RecoveryTimeout)
	s.LUNs, s.Device = c.LUNs, c.Device
	return s, nil
}

// valid returns the configuration of a session that may be added.
func (c *config) valid() (conf.Session, error) {
	s, err := c.session()
	if err != nil {
		return s, err
	}
	if err := s.Validate(); err != nil {
		return s, &Error{Code: syscall.EINVAL, Text: fmt.Sprint(err)}
	}
	return s, nil
}

func optional(n int) *int {
	if n < 0 {
		return nil
	}
	return &n
}

func orUnset(n *int) int {
	if n == nil {
		return -1
	}
	return *n
}
