package conf

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// LUNSet is a set of logical unit numbers, in canonical form: decimal numbers
// and ranges, ascending and apart, such as "0,3-5". The empty set stands for
// all. Sets are equal where their strings are.
type LUNSet string

const maxLUNSet = 4096 // bytes

type lunRange struct{ first, last uint64 }

// ParseLUNSet reads numbers and ranges separated by commas, in any order, with
// or without blanks. It refuses the empty string.
func ParseLUNSet(s string) (LUNSet, error) {
	if len(s) > maxLUNSet {
		return "", fmt.Errorf("invalid LUNs value; must be at most %d bytes", maxLUNSet)
	}
	var ranges []lunRange
	for part := range strings.SplitSeq(s, ",") {
		r, err := parseLUNRange(part)
		if err != nil {
			return "", err
		}
		ranges = append(ranges, r)
	}
	return canonical(ranges), nil
}

func parseLUNRange(s string) (r lunRange, err error) {
	from, to, isRange := strings.Cut(strings.TrimSpace(s), "-")
	r.first, err = strconv.ParseUint(strings.TrimSpace(from), 10, 64)
	if r.last = r.first; isRange && err == nil {
		r.last, err = strconv.ParseUint(strings.TrimSpace(to), 10, 64)
	}
	if err != nil || r.last < r.first {
		return r, errors.New("invalid LUNs value; must be numbers and ranges such as 0,3-5")
	}
	return r, nil
}

func canonical(ranges []lunRange) LUNSet {
	slices.SortFunc(ranges, func(a, b lunRange) int { return cmp.Compare(a.first, b.first) })
	var b strings.Builder
	for i := 0; i < len(ranges); {
		r := ranges[i]
		// What overlaps or adjoins is one range; the subtraction cannot wrap.
		for i++; i < len(ranges) && (ranges[i].first <= r.last || ranges[i].first-r.last == 1); i++ {
			r.last = max(r.last, ranges[i].last)
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(r.first, 10))
		if r.last != r.first {
			b.WriteString("-" + strconv.FormatUint(r.last, 10))
		}
	}
	return LUNSet(b.String())
}

// Contains says whether lun is in the set.
func (l LUNSet) Contains(lun uint64) bool {
	if l == "" {
		return true
	}
	for part := range strings.SplitSeq(string(l), ",") {
		if r, err := parseLUNRange(part); err == nil && r.first <= lun && lun <= r.last {
			return true
		}
	}
	return false
}

// String returns the set as ParseLUNSet reads it; "" for all.
func (l LUNSet) String() string { return string(l) }

// UnmarshalText reads what String returns (and, in JSON, a string of that).
func (l *LUNSet) UnmarshalText(text []byte) (err error) {
	if *l = ""; len(text) > 0 {
		*l, err = ParseLUNSet(string(text))
	}
	return err
}
