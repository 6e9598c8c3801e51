package target

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"  //nolint:gosec // RFC 1994 and RFC 7143 §12.1.3 ask for it
	"crypto/sha1" //nolint:gosec // likewise
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
)

// CHAP is the authentication that a target asks for (RFC 7143 §12.1.3). The
// initiator must give one of Users; where it asks for mutual authentication,
// the target answers with Mutual.
type CHAP struct {
	Users  []Credential `json:"users"`
	Mutual *Credential  `json:"mutual,omitempty"`
	// Algorithms are those that the target takes, of MD5, SHA1, SHA-256 and
	// SHA3-256; all if empty. The initiator's order decides.
	Algorithms []string `json:"algorithms,omitempty"`
	// RefuseLists ends the login where the initiator offers more than one
	// algorithm, as some old targets do.
	RefuseLists bool `json:"refuse_lists,omitempty"`
	// Base64 writes binary values as 0b and base64 instead of 0x and
	// hexadecimal.
	Base64 bool `json:"base64,omitempty"`
	// Challenge is the length of the target's challenge in bytes, 1 to 1024;
	// default 16.
	Challenge int `json:"challenge,omitempty"`
}

// A Credential is a name and its secret.
type Credential struct {
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

type chapAlgorithm struct {
	name   string
	number int // IANA PPP Authentication Algorithms
	hash   func() hash.Hash
}

var chapAlgorithms = []chapAlgorithm{
	{"MD5", 5, md5.New},
	{"SHA1", 6, sha1.New},
	{"SHA-256", 7, sha256.New},
	{"SHA3-256", 8, func() hash.Hash { return sha3.New256() }},
}

const maxChallenge = 1024

func (c *CHAP) check() error {
	if len(c.Users) == 0 {
		return errors.New("CHAP without users")
	}
	for _, name := range c.Algorithms {
		if !slices.ContainsFunc(chapAlgorithms, func(a chapAlgorithm) bool { return a.name == name }) {
			return fmt.Errorf("CHAP algorithm %q: want MD5, SHA1, SHA-256 or SHA3-256", name)
		}
	}
	if c.Challenge < 0 || c.Challenge > maxChallenge {
		return fmt.Errorf("CHAP challenge of %d bytes: want 1 to %d", c.Challenge, maxChallenge)
	}
	return nil
}

func (c *CHAP) accepts(name string) bool {
	return len(c.Algorithms) == 0 || slices.Contains(c.Algorithms, name)
}

// chapState is where the authentication of one login stands.
type chapState struct {
	conf      *CHAP
	rand      io.Reader
	algorithm *chapAlgorithm
	id        byte
	challenge []byte
	done      bool
	user      string
}

// step takes the CHAP keys of one request and appends the answer. An error
// means that authentication failed.
func (s *chapState) step(keys map[string]string, text []byte) ([]byte, error) {
	switch {
	case s.done:
		return text, errors.New("CHAP: more keys after the end")
	case s.algorithm == nil:
		return s.challengeStep(keys, text)
	}
	return s.verifyStep(keys, text)
}

func (s *chapState) challengeStep(keys map[string]string, text []byte) ([]byte, error) {
	list, ok := keys["CHAP_A"]
	if !ok {
		return text, errors.New("CHAP: CHAP_A is missing")
	}
	numbers := strings.Split(list, ",")
	if s.conf.RefuseLists && len(numbers) > 1 {
		return text, fmt.Errorf("CHAP: CHAP_A=%.40s: a list is refused", list)
	}
	for _, text := range numbers {
		n, err := parseNumber(text)
		if err != nil {
			return nil, fmt.Errorf("CHAP: CHAP_A=%.40s is not a list of numbers", list)
		}
		for i, a := range chapAlgorithms {
			if a.number == n && s.algorithm == nil && s.conf.accepts(a.name) {
				s.algorithm = &chapAlgorithms[i]
			}
		}
	}
	if s.algorithm == nil {
		return text, fmt.Errorf("CHAP: no algorithm in CHAP_A=%.40s is accepted", list)
	}
	n := s.conf.Challenge
	if n == 0 {
		n = 16
	}
	random := make([]byte, 1+n)
	if _, err := io.ReadFull(s.rand, random); err != nil {
		return text, fmt.Errorf("CHAP: no random bytes: %w", err)
	}
	s.id, s.challenge = random[0], random[1:]
	text = appendKey(text, "CHAP_A", strconv.Itoa(s.algorithm.number))
	text = appendKey(text, "CHAP_I", strconv.Itoa(int(s.id)))
	return appendKey(text, "CHAP_C", s.binary(s.challenge)), nil
}

func (s *chapState) verifyStep(keys map[string]string, text []byte) ([]byte, error) {
	got, err := parseBinary(keys["CHAP_R"], s.algorithm.hash().Size())
	if err != nil {
		return text, fmt.Errorf("CHAP: CHAP_R: %w", err)
	}
	name := keys["CHAP_N"]
	i := slices.IndexFunc(s.conf.Users, func(c Credential) bool { return c.Name == name })
	if i < 0 {
		return text, fmt.Errorf("CHAP: user %.80q is not known", name)
	}
	if !hmac.Equal(got, s.response(s.id, s.conf.Users[i].Secret, s.challenge)) {
		return text, fmt.Errorf("CHAP: wrong secret for user %q", name)
	}
	s.user, s.done = name, true
	return s.mutual(keys, text)
}

// mutual answers the initiator's challenge, if there is one.
func (s *chapState) mutual(keys map[string]string, text []byte) ([]byte, error) {
	idText, hasID := keys["CHAP_I"]
	challengeText, hasChallenge := keys["CHAP_C"]
	if !hasID && !hasChallenge {
		return text, nil
	}
	if s.conf.Mutual == nil {
		return text, errors.New("CHAP: the initiator wants mutual authentication, which is not configured")
	}
	id, err := parseNumber(idText)
	if err != nil || id > 255 {
		return text, fmt.Errorf("CHAP: CHAP_I=%.40s is not 0 to 255", idText)
	}
	challenge, err := parseBinary(challengeText, maxChallenge)
	if err != nil {
		return text, fmt.Errorf("CHAP: CHAP_C: %w", err)
	}
	if len(challenge) == 0 || bytes.Equal(challenge, s.challenge) { // RFC 7143 §9.2.1: reflection
		return text, errors.New("CHAP: the initiator's challenge is empty or our own")
	}
	text = appendKey(text, "CHAP_N", s.conf.Mutual.Name)
	return appendKey(text, "CHAP_R", s.binary(s.response(byte(id), s.conf.Mutual.Secret, challenge))), nil
}

// response is RFC 1994 §4.1: the hash of identifier, secret and challenge.
func (s *chapState) response(id byte, secret string, challenge []byte) []byte {
	h := s.algorithm.hash()
	h.Write([]byte{id})
	io.WriteString(h, secret)
	h.Write(challenge)
	return h.Sum(nil)
}

func (s *chapState) binary(b []byte) string {
	if s.conf.Base64 {
		return "0b" + base64.StdEncoding.EncodeToString(b)
	}
	return "0x" + hex.EncodeToString(b)
}

// parseBinary reads a large binary value (RFC 7143 §6.1) of at most most bytes.
func parseBinary(text string, most int) ([]byte, error) {
	if len(text) < 2 || len(text) > 2+2*most {
		return nil, fmt.Errorf("value of %d characters: want 0x or 0b and at most %d bytes", len(text), most)
	}
	var b []byte
	var err error
	switch digits := text[2:]; text[:2] {
	case "0x", "0X":
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		b, err = hex.DecodeString(digits)
	case "0b", "0B":
		b, err = base64.StdEncoding.DecodeString(digits)
	default:
		err = errors.New("value begins neither with 0x nor with 0b")
	}
	if err == nil && len(b) > most {
		err = fmt.Errorf("value of %d bytes, at most %d are allowed", len(b), most)
	}
	return b, err
}
