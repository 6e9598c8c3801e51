package conf

import (
	"errors"
	"math/bits"
	"strconv"
	"strings"
)

var errNumber = errors.New("invalid numeric value")

// expandNumber reads a number as expand_number(3) does: decimal, 0x hexadecimal
// or 0 octal, with a suffix of bkmgtpe, in any case, for powers of 1024.
func expandNumber(s string) (uint64, error) {
	base, shift := 10, 0
	switch {
	case strings.HasPrefix(s, "0x"), strings.HasPrefix(s, "0X"):
		base, s = 16, s[2:]
	case strings.HasPrefix(s, "0"):
		base = 8
	}
	if n := len(s) - 1; n > 0 {
		// b and e are digits of hexadecimal numbers.
		if power := strings.IndexByte("bkmgtpe", s[n]|0x20); power >= 0 && (base != 16 || s[n]|0x20 > 'f') {
			s, shift = s[:n], 10*power
		}
	}
	n, err := strconv.ParseUint(s, base, 64)
	if err != nil || bits.Len64(n)+shift > 64 {
		return 0, errNumber
	}
	return n << shift, nil
}
