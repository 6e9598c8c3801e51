package simulation

import (
	"encoding/binary"
	"fmt"
	"slices"
)

const (
	blockSize  = 512
	blockCount = 64
)

// history is what the host knows of each block: the value that was acknowledged
// last, and those that writes of unknown outcome may have left. A value fills
// its block, so that a part of it elsewhere is noticed; value 0 is all zeroes.
type history struct {
	known   [blockCount]uint32
	maybe   [blockCount][]uint32
	writing [blockCount]bool // a request that changes the block is under way
	reading [blockCount]int  // requests that read it
	last    uint32           // of the values that were made up
	acked   []uint32         // values whose writes were acknowledged
}

// fill writes a value as block b has it.
func fill(p []byte, value uint32, b int) {
	if value == 0 {
		clear(p)
		return
	}
	for i := 0; i < blockSize; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], uint64(value)<<32|uint64(b)<<16|uint64(i))
	}
}

// valueOf returns the value that fills block b.
func valueOf(p []byte, b int) (uint32, error) {
	value := binary.LittleEndian.Uint32(p[4:])
	var want [blockSize]byte
	fill(want[:], value, b)
	if i := firstDifference(p, want[:]); i >= 0 {
		return 0, fmt.Errorf("block %d holds %#02x at byte %d, where value %d has %#02x", b, p[i], i, value, want[i])
	}
	return value, nil
}

func firstDifference(a, b []byte) int {
	for i := range b {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// next makes a value up.
func (h *history) next() uint32 {
	h.last++
	return h.last
}

// free reports whether blocks may be read, or changed, without a race that has
// more than one right outcome.
func (h *history) free(from, n int, change bool) bool {
	for b := from; b < from+n; b++ {
		if h.writing[b] || change && h.reading[b] > 0 {
			return false
		}
	}
	return true
}

// begin notes that a request begins.
func (h *history) begin(from, n int, change bool) {
	for b := from; b < from+n; b++ {
		if change {
			h.writing[b] = true
		} else {
			h.reading[b]++
		}
	}
}

// end notes that it has ended.
func (h *history) end(from, n int, change bool) {
	for b := from; b < from+n; b++ {
		if change {
			h.writing[b] = false
		} else {
			h.reading[b]--
		}
	}
}

// wrote notes a change that was acknowledged.
func (h *history) wrote(b int, value uint32) { h.known[b], h.maybe[b] = value, nil }

// mayHaveWritten notes a change whose outcome is not known.
func (h *history) mayHaveWritten(b int, value uint32) { h.maybe[b] = append(h.maybe[b], value) }

// check judges what a block holds.
func (h *history) check(p []byte, b int) error {
	value, err := valueOf(p, b)
	if err != nil {
		return err
	}
	if value != h.known[b] && !slices.Contains(h.maybe[b], value) {
		return fmt.Errorf("block %d holds value %d; %d was acknowledged last (possible: %v)", b, value, h.known[b], h.maybe[b])
	}
	return nil
}
