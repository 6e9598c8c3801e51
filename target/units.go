package target

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Size is a number of bytes. In text it may end in k, m, g or t (powers of
// 1024), as in 64m.
type Size int64

// ParseSize reads a Size: decimal digits and an optional suffix k, m, g or t.
func ParseSize(s string) (Size, error) {
	digits, shift := s, 0
	if s != "" {
		if i := strings.IndexByte("kmgt", s[len(s)-1]|0x20); i >= 0 {
			digits, shift = s[:len(s)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("size %q: want a number of bytes, with k, m, g or t for powers of 1024", s)
	}
	return Size(n << shift), nil
}

// String gives the size with the largest suffix that loses nothing.
func (s Size) String() string {
	for i := 4; i > 0; i-- {
		if unit := Size(1) << (10 * i); s != 0 && s%unit == 0 {
			return strconv.FormatInt(int64(s/unit), 10) + "kmgt"[i-1:i]
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalJSON reads a JSON number of bytes or a string as ParseSize takes it.
func (s *Size) UnmarshalJSON(b []byte) error {
	text := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	n, err := ParseSize(text)
	if err != nil {
		return err
	}
	*s = n
	return nil
}

// A Duration is a time.Duration that is written "150ms" in JSON.
type Duration time.Duration

// UnmarshalJSON reads a string as time.ParseDuration takes it.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf(`duration %s: want a string such as "150ms"`, b)
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf(`duration %q: want a number with its unit, such as "150ms"`, text)
	}
	if v < 0 {
		return fmt.Errorf("duration %q is negative", text)
	}
	*d = Duration(v)
	return nil
}
