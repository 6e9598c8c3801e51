package iscsi

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxBinaryLen is the greatest length of a binary value, in bytes and decoded
// (RFC 7143 §6.1).
const MaxBinaryLen = 1024

// ParseNumber reads a numerical-value (RFC 7143 §6.1), decimal or with 0x
// hexadecimal, of at least min and at most max.
func ParseNumber(value string, min, max int) (int, error) {
	digits, base := value, 10
	if isHex(value) {
		digits, base = value[2:], 16
	}
	// strconv alone would take a sign.
	if digits == "" || digits[0] == '+' || digits[0] == '-' {
		return 0, fmt.Errorf("%s is not a number", excerpt(value))
	}
	n, err := strconv.ParseInt(digits, base, strconv.IntSize)
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, fmt.Errorf("%s is not a number", excerpt(value))
	}
	if err != nil || int(n) < min || int(n) > max {
		return 0, fmt.Errorf("%s is not within %d to %d", excerpt(value), min, max)
	}
	return int(n), nil
}

// ParseBoolean reads a boolean-value: Yes or No.
func ParseBoolean(value string) (bool, error) {
	switch value {
	case ValueYes:
		return true, nil
	case ValueNo:
		return false, nil
	}
	return false, fmt.Errorf("%s is neither Yes nor No", excerpt(value))
}

// FormatBoolean is the boolean-value of v.
func FormatBoolean(v bool) string {
	if v {
		return ValueYes
	}
	return ValueNo
}

// ParseBinary reads a binary-value (RFC 7143 §6.1): 0x and hexadecimal digits, two
// to a byte, or 0b and base64, of at most MaxBinaryLen bytes.
func ParseBinary(value string) ([]byte, error) {
	switch {
	case isHex(value):
		return parseHex(value[2:])
	case isBase64(value):
		return parseBase64(value[2:])
	}
	return nil, errors.New("binary value begins with neither 0x nor 0b")
}

// AppendHex appends data as a binary-value in hexadecimal.
func AppendHex(b, data []byte) []byte {
	return hex.AppendEncode(append(b, '0', 'x'), data)
}

// AppendBase64 appends data as a binary-value in base64.
func AppendBase64(b, data []byte) []byte {
	return base64.StdEncoding.AppendEncode(append(b, '0', 'b'), data)
}

func parseHex(digits string) ([]byte, error) {
	if digits == "" {
		return nil, errors.New("binary value is empty")
	}
	if len(digits) > 2*MaxBinaryLen {
		return nil, errBinaryTooLong
	}
	data, err := hex.DecodeString(digits)
	if err != nil {
		return nil, errors.New("binary value is not pairs of hexadecimal digits")
	}
	return data, nil
}

func parseBase64(digits string) ([]byte, error) {
	// Padding says nothing that the length does not say, and some leave it out.
	digits = strings.TrimRight(digits, "=")
	if digits == "" {
		return nil, errors.New("binary value is empty")
	}
	if len(digits) > base64.RawStdEncoding.EncodedLen(MaxBinaryLen) {
		return nil, errBinaryTooLong
	}
	// The decoder would skip these.
	if strings.ContainsAny(digits, "\r\n") {
		return nil, errNotBase64
	}
	data, err := base64.RawStdEncoding.DecodeString(digits)
	if err != nil {
		return nil, errNotBase64
	}
	return data, nil
}

var (
	errBinaryTooLong = fmt.Errorf("binary value is longer than %d bytes", MaxBinaryLen)
	errNotBase64     = errors.New("binary value is not base64")
)

func isHex(s string) bool {
	return len(s) >= 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X')
}

func isBase64(s string) bool {
	return len(s) >= 2 && s[0] == '0' && (s[1] == 'b' || s[1] == 'B')
}
