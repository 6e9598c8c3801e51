package iser

import (
	"crypto/rand"
	"encoding/binary"

	"iscsictl/arena"
)

// How much of a read's memory the target has written is known from its word
// only: an RDMA Write leaves no trace here. So marks are left in the memory
// before, one at the beginning of each page and one at the end, which nobody
// else knows; where one is still there with the response, the target has not
// written what it says, and no more counts as received than what lies before it.
// This costs a small part of what clearing the memory would, and finds out what
// zeroes would hide.
type marks uint64

const markSize = 8

func newMarks() marks {
	var b [markSize]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return marks(binary.NativeEndian.Uint64(b[:]))
}

// leave prepares the memory of a read. Short reads are mostly lists, of which
// there may be less than what was asked for; they find zeroes there.
func (m marks) leave(p []byte) {
	if len(p) < arena.PageSize {
		clear(p)
	}
	for off := 0; off+markSize <= len(p); off += arena.PageSize {
		binary.NativeEndian.PutUint64(p[off:], uint64(m))
	}
	if len(p) >= markSize {
		binary.NativeEndian.PutUint64(p[len(p)-markSize:], uint64(m))
	}
}

// written returns how much of a read's memory was written, of the n bytes that
// the target says.
func (m marks) written(p []byte, n int) int {
	for off := 0; off+markSize <= n; off += arena.PageSize {
		if m.at(p, off) {
			return off
		}
	}
	if off := len(p) - markSize; n == len(p) && off >= 0 && m.at(p, off) {
		return off
	}
	return n
}

func (m marks) at(p []byte, off int) bool { return binary.NativeEndian.Uint64(p[off:]) == uint64(m) }
