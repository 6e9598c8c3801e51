package openiscsi

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxRecord bounds the size of a record; real ones have about 2 KiB.
const maxRecord = 1 << 16

// A record has the values of a file, without those that are empty.
type record map[string]string

// readRecord reads a file of lines "key = value".
func readRecord(path string) (record, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular(): // opening something else might wait
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxRecord:
		return nil, fmt.Errorf("%s: larger than %d bytes: not a record", path, maxRecord)
	}
	return parseRecord(string(data)), nil
}

// parseRecord reads the text of a record. A number sign begins a comment at the
// beginning of a line only: secrets may have one.
func parseRecord(text string) record {
	r := record{}
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if found && key != "" && key[0] != '#' && value != "" && value != "<empty>" {
			r[key] = value
		}
	}
	return r
}

// number returns a value as a number; ok is false where it is none.
func (r record) number(key string) (n int, ok bool) {
	n, err := strconv.Atoi(r[key])
	return n, err == nil
}

// list returns the values of a list that is separated by commas.
func (r record) list(key string) []string {
	all := strings.Split(r[key], ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}
