package tcp

import (
	"bytes"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bytesOf is the memory of a piece.
func bytesOf(v unix.Iovec) []byte { return unsafe.Slice(v.Base, v.Len) }

func TestAdvance(t *testing.T) {
	for n := 0; n <= 12; n++ {
		v := []unix.Iovec{iovec([]byte("abc")), iovec([]byte("defgh")), iovec([]byte("ijkl"))}
		var rest []byte
		for _, p := range advance(v, uint64(n)) {
			rest = append(rest, bytesOf(p)...)
		}
		if !bytes.Equal(rest, []byte("abcdefghijkl")[n:]) {
			t.Errorf("after %d bytes %q is left", n, rest)
		}
	}
}
