// Package chap is the initiator's side of CHAP as iSCSI uses it: the values of
// the keys CHAP_A, CHAP_I, CHAP_C, CHAP_N and CHAP_R, one way and mutual
// (RFC 1994; RFC 7143 §12.1.3, with the rules for secrets of §9.2.1). It does no
// I/O: package login carries the keys.
package chap

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"iscsictl/iscsi"
)

const (
	// maxName is the longest name in bytes (RFC 7143 §6.1: a text value).
	maxName = 255
	// goodSecret is the length of a secret, in bytes, below which RFC 7143
	// §9.2.1 wants IPsec: 96 bits.
	goodSecret = 12
)

// ErrSameSecret says that both directions of mutual CHAP use one secret, which
// RFC 7143 §12.1.3 has both sides refuse: whoever knows an initiator's secret
// could pass for its target.
var ErrSameSecret = errors.New("chapSecret and tgtChapSecret are the same; choose another secret for the target")

// Config is what an initiator knows for CHAP.
type Config struct {
	User, Secret             string      // ours (chapIName, chapSecret)
	MutualUser, MutualSecret string      // the target's (tgtChapName, tgtChapSecret); both empty: one way
	Algorithms               []Algorithm // to offer, in order of preference; none: All
}

// Mutual says that the target has to authenticate itself.
func (c *Config) Mutual() bool { return c.MutualUser != "" || c.MutualSecret != "" }

// check refuses what cannot be sent or must not be used.
func (c *Config) check() error {
	switch {
	case c.User == "" || c.Secret == "":
		return errors.New("CHAP needs both chapIName and chapSecret")
	case c.Mutual() && (c.MutualUser == "" || c.MutualSecret == ""):
		return errors.New("mutual CHAP needs both tgtChapName and tgtChapSecret")
	case len(c.User) > maxName || strings.ContainsRune(c.User, 0):
		return fmt.Errorf("chapIName is longer than %d bytes or has a NUL", maxName)
	case c.Mutual() && c.Secret == c.MutualSecret:
		return ErrSameSecret
	}
	for i, a := range c.Algorithms {
		if a.hash() == nil || slices.Contains(c.Algorithms[:i], a) {
			return fmt.Errorf("CHAP algorithm %d is unknown or named twice", uint8(a))
		}
	}
	return nil
}

// Warnings says in words what is weak about the secrets.
func (c *Config) Warnings() []string {
	var w []string
	if len(c.Secret) < goodSecret {
		w = append(w, shortSecret("chapSecret", c.Secret))
	}
	if c.Mutual() && len(c.MutualSecret) < goodSecret {
		w = append(w, shortSecret("tgtChapSecret", c.MutualSecret))
	}
	return w
}

func shortSecret(variable, secret string) string {
	return fmt.Sprintf("%s has %d bytes; use at least %d (RFC 7143 section 9.2.1)", variable, len(secret), goodSecret)
}

// Exchange is one authentication. Its methods are called in the order Offer,
// Answer and, where it is mutual, Verify.
type Exchange struct {
	cfg       Config
	rand      io.Reader
	algorithm Algorithm
	response  []byte // ours, to the target's challenge
	// Of mutual CHAP: what we sent.
	identifier byte
	challenge  []byte
}

// New begins an authentication. rand is the source of challenges of mutual CHAP.
func New(cfg Config, rand io.Reader) (*Exchange, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("chap: %w", err)
	}
	if cfg.Mutual() && rand == nil {
		return nil, errors.New("chap: mutual CHAP needs a source of random bytes")
	}
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = All()
	}
	return &Exchange{cfg: cfg, rand: rand}, nil
}

// Algorithms returns what is offered.
func (e *Exchange) Algorithms() []Algorithm { return slices.Clone(e.cfg.Algorithms) }

// Algorithm returns what the target chose, 0 before Answer.
func (e *Exchange) Algorithm() Algorithm { return e.algorithm }

// Offer returns the value of CHAP_A that is to be sent: a list.
func (e *Exchange) Offer() string {
	var b []byte
	for i, a := range e.cfg.Algorithms {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(a), 10)
	}
	return string(b)
}

// Answer is the initiator's answer to a challenge, as values of keys.
type Answer struct {
	Name       string // CHAP_N
	Response   string // CHAP_R
	Identifier string // CHAP_I of our own challenge; empty where CHAP is one way
	Challenge  string // CHAP_C likewise
}

// Answer takes the target's CHAP_A, CHAP_I and CHAP_C.
func (e *Exchange) Answer(algorithm, identifier, challenge string) (Answer, error) {
	var a Answer
	n, err := iscsi.ParseNumber(algorithm, 0, 255)
	if err != nil || !slices.Contains(e.cfg.Algorithms, Algorithm(n)) {
		return a, fmt.Errorf("chap: the target chose CHAP_A=%.32q of %s", algorithm, e.Offer())
	}
	e.algorithm = Algorithm(n)
	id, err := iscsi.ParseNumber(identifier, 0, 255)
	if err != nil {
		return a, fmt.Errorf("chap: the target sent CHAP_I=%.32q, which is not a number from 0 to 255", identifier)
	}
	c, err := iscsi.ParseBinary(challenge)
	if err != nil {
		return a, fmt.Errorf("chap: CHAP_C of the target: %w", err)
	}
	if e.response, err = Response(e.algorithm, byte(id), e.cfg.Secret, c); err != nil {
		return a, err
	}
	a.Name, a.Response = e.cfg.User, hexValue(e.response)
	if e.cfg.Mutual() {
		err = e.ask(&a, c)
	}
	return a, err
}

// ask makes up our own challenge, as long as the hash but not shorter than 16
// bytes. theirs is the target's.
func (e *Exchange) ask(a *Answer, theirs []byte) error {
	random := make([]byte, 1+max(16, e.algorithm.hash().Size()))
	if _, err := io.ReadFull(e.rand, random); err != nil {
		return fmt.Errorf("chap: no random bytes for a challenge: %w", err)
	}
	e.identifier, e.challenge = random[0], random[1:]
	if subtle.ConstantTimeCompare(e.challenge, theirs) == 1 {
		// RFC 7143 §12.1.3: with equal challenges, our answer would be good
		// as an answer to ourselves.
		return errors.New("chap: the target's challenge is the same as ours")
	}
	a.Identifier, a.Challenge = strconv.Itoa(int(e.identifier)), hexValue(e.challenge)
	return nil
}

// Verify takes the target's CHAP_N and CHAP_R of mutual CHAP. Any error means
// that the target is not the one that was meant.
func (e *Exchange) Verify(name, response string) error {
	if e.challenge == nil {
		return errors.New("chap: the target was not asked to authenticate itself")
	}
	if len(name) > maxName || name != e.cfg.MutualUser {
		return fmt.Errorf("chap: the target calls itself %.64q and not %q", name, e.cfg.MutualUser)
	}
	got, err := iscsi.ParseBinary(response)
	if err != nil {
		return fmt.Errorf("chap: CHAP_R of the target: %w", err)
	}
	want, err := Response(e.algorithm, e.identifier, e.cfg.MutualSecret, e.challenge)
	if err != nil {
		return err
	}
	own, err := Response(e.algorithm, e.identifier, e.cfg.Secret, e.challenge)
	if err != nil {
		return err
	}
	// RFC 7143 §12.1.3: an answer that we could have given is no proof.
	if subtle.ConstantTimeCompare(got, own) == 1 || subtle.ConstantTimeCompare(got, e.response) == 1 {
		return errors.New("chap: the target answered with our own secret")
	}
	if subtle.ConstantTimeCompare(got, want) != 1 {
		return errors.New("chap: the target does not know tgtChapSecret")
	}
	return nil
}

func hexValue(b []byte) string { return string(iscsi.AppendHex(nil, b)) }
