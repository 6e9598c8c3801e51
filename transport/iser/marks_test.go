package iser

import (
	"bytes"
	"slices"
	"testing"

	"iscsictl/iscsi"
)

// knownMarks are marks with no byte that tests fill memory with, which random
// ones have now and then.
const knownMarks marks = 0x0123456789abcdef

// TestMarks: what a target has not written is noticed, wherever the hole begins,
// and what it has written is never taken for a hole.
func TestMarks(t *testing.T) {
	m := knownMarks
	for _, c := range []struct {
		size, wrote, says int // bytes of memory, written from the start, and said to be
		want              int
	}{
		{4096, 4096, 4096, 4096},
		{4096, 0, 4096, 0},
		{4096, 0, 0, 0},
		{4096, 4088, 4096, 4088},
		{4096, 100, 100, 100}, // a short answer, and said to be
		{4096, 0, 100, 0},
		{8192, 4096, 8192, 4096},
		{8192, 4096, 4096, 4096},
		{1 << 20, 1 << 20, 1 << 20, 1 << 20},
		{1 << 20, 1<<20 - 512, 1 << 20, 1<<20 - 8},
		{1 << 20, 512 << 10, 1 << 20, 512 << 10},
		{1 << 20, 512 << 10, 512<<10 + 4, 512<<10 + 4}, // less than a mark is past the page
		{512, 512, 512, 512},
		{512, 0, 512, 0},
		{255, 96, 96, 96},
		{255, 0, 255, 0},
		{8, 0, 8, 0},
		{7, 0, 7, 7}, // no room for one
		{0, 0, 0, 0},
	} {
		p := bytes.Repeat([]byte{0xee}, c.size)
		m.leave(p)
		copy(p, bytes.Repeat([]byte{0x77}, c.wrote))
		if got := m.written(p, c.says); got != c.want {
			t.Errorf("%d of %d bytes were written and %d said to be: %d, want %d", c.wrote, c.size, c.says, got, c.want)
		}
		if c.size < 4096 && slices.Contains(p, 0xee) {
			t.Errorf("a list of %d bytes ends with what another has left in its buffer", c.size)
		}
	}
	if one, other := newMarks(), newMarks(); one == other {
		t.Error("two connections have the same marks")
	}
}

// TestUnwritten: GOOD for a read of which a page was not written is no success.
func TestUnwritten(t *testing.T) {
	s := newStand(t, 8)
	s.command(1, 0, 64<<10)
	s.write(1, 60<<10)
	if err := s.receive(&iscsi.SCSIResponse{InitiatorTaskTag: 1}, nil, 0); err != nil {
		t.Fatal(err)
	}
	if r := s.table.results[1]; r.Received != 60<<10 {
		t.Errorf("%d bytes count as received, want %d", r.Received, 60<<10)
	}
}
