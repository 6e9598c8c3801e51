package chap

import (
	"crypto/md5"  // the algorithm that every target knows (RFC 1994)
	"crypto/sha1" // RFC 7143 §12.1.3
	"crypto/sha256"
	"crypto/sha3"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// Algorithm is a CHAP algorithm by its number in the IANA registry "PPP
// Authentication Algorithms", which is the value of the key CHAP_A
// (RFC 7143 §12.1.3).
type Algorithm uint8

// The algorithms that are registered for iSCSI.
const (
	MD5      Algorithm = 5
	SHA1     Algorithm = 6
	SHA256   Algorithm = 7
	SHA3_256 Algorithm = 8
)

// All returns the algorithms from the strongest to MD5, in the order in which
// they are to be offered.
func All() []Algorithm { return []Algorithm{SHA3_256, SHA256, SHA1, MD5} }

// String returns the name that iscsi.conf(5) has for the algorithm.
func (a Algorithm) String() string {
	switch a {
	case MD5:
		return "MD5"
	case SHA1:
		return "SHA1"
	case SHA256:
		return "SHA-256"
	case SHA3_256:
		return "SHA3-256"
	}
	return "CHAP algorithm " + strconv.Itoa(int(a))
}

// ParseAlgorithm returns the algorithm of a name of iscsi.conf(5) (MD5, SHA1,
// SHA-256, SHA3-256, in any case).
func ParseAlgorithm(name string) (a Algorithm, ok bool) {
	for _, a := range All() {
		if strings.EqualFold(name, a.String()) {
			return a, true
		}
	}
	return 0, false
}

// hash returns a new hash, or nil for an unknown algorithm.
func (a Algorithm) hash() hash.Hash {
	switch a {
	case MD5:
		return md5.New()
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	case SHA3_256:
		return sha3.New256()
	}
	return nil
}

// Response computes a CHAP response: the hash over the identifier, the secret
// and the challenge (RFC 1994 §4.1). It is 16 to 32 bytes, as the algorithm says.
func Response(a Algorithm, identifier byte, secret string, challenge []byte) ([]byte, error) {
	h := a.hash()
	if h == nil {
		return nil, fmt.Errorf("chap: unknown algorithm %d", uint8(a))
	}
	h.Write([]byte{identifier})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil), nil
}
