package iscsi

import (
	"bytes"
	"errors"
	"fmt"
)

// Bounds of key=value text (RFC 7143 §6.1). Those of a whole text are ours: the
// RFC leaves it open how long a logical text data segment may grow.
const (
	MaxKeyLen    = 63       // bytes of a key
	MaxTextLen   = 64 << 10 // bytes that ParseKeys takes
	MaxTextPairs = 1024     // pairs that ParseKeys takes
)

// KeyValue is one key=value pair. The value is as the peer sent it, any bytes
// but NUL: it is to be quoted where it is shown.
type KeyValue struct {
	Key, Value string
}

// ParseKeys reads the key=value pairs of a login or text PDU's data segment, or
// of several put together where the C bit says that they belong together. Every
// pair ends with a NUL; further NULs are ignored. What is longer than MaxTextLen
// or has more than MaxTextPairs pairs is an error.
func ParseKeys(data []byte) ([]KeyValue, error) {
	if len(data) > MaxTextLen {
		return nil, fmt.Errorf("key=value text: %d bytes, more than the %d that are accepted", len(data), MaxTextLen)
	}
	var pairs []KeyValue
	for {
		pair, rest, err := NextKey(data)
		if err != nil {
			return nil, err
		}
		if pair.Key == "" {
			return pairs, nil
		}
		if len(pairs) == MaxTextPairs {
			return nil, fmt.Errorf("key=value text: more than the %d pairs that are accepted", MaxTextPairs)
		}
		pairs = append(pairs, pair)
		data = rest
	}
}

// NextKey reads the first key=value pair of data and returns what follows it.
// The pair is empty at the end of data. It is for answers that may exceed the
// bounds of ParseKeys, and which the caller has to bound.
func NextKey(data []byte) (pair KeyValue, rest []byte, err error) {
	data = bytes.TrimLeft(data, "\x00")
	if len(data) == 0 {
		return KeyValue{}, nil, nil
	}
	text, rest, ended := bytes.Cut(data, []byte{0})
	if !ended {
		return KeyValue{}, nil, fmt.Errorf("key=value text: it breaks off in %s", excerpt(text))
	}
	key, value, found := bytes.Cut(text, []byte{'='})
	if !found {
		return KeyValue{}, nil, fmt.Errorf("key=value text: no \"=\" in %s", excerpt(text))
	}
	if err := validateKey(key); err != nil {
		return KeyValue{}, nil, fmt.Errorf("key=value text: %w", err)
	}
	return KeyValue{Key: string(key), Value: string(value)}, rest, nil
}

// AppendKey appends a key=value pair with its NUL. Neither may have a NUL, nor
// the key a "=".
func AppendKey(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, 0)
}

// validateKey checks that a key is a standard-label (RFC 7143 §6.1), or one with
// "#" in it, as registered extensions have. A label begins with a capital letter
// but for the keys of later RFCs that begin with "iSCSI" and "iSER", so that any
// letter is taken.
func validateKey(key []byte) error {
	if len(key) == 0 {
		return errors.New("empty key")
	}
	if len(key) > MaxKeyLen {
		return fmt.Errorf("key %s is longer than %d bytes", excerpt(key), MaxKeyLen)
	}
	if c := key[0] | 0x20; c < 'a' || c > 'z' {
		return fmt.Errorf("key %s does not begin with a letter", excerpt(key))
	}
	for _, c := range key {
		if !isLabelByte(c) && c != '#' {
			return fmt.Errorf("key %s has a character that keys may not have", excerpt(key))
		}
	}
	return nil
}

func isLabelByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '.' || c == '-' || c == '+' || c == '@' || c == '_'
}

// excerpt quotes the start of what a peer sent, for a message. A secret cannot
// be in it, as these never go over the wire in clear.
func excerpt[T string | []byte](s T) string {
	const most = 40
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
