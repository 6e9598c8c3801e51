// Package ledger remembers what a host was told of a disk, and judges what the
// disk says later: nothing that was acknowledged may be lost or come back older,
// and no byte may be one that nobody wrote there.
//
// Every write is a generation of its own, and fills each sector with a stamp of
// the disk, the sector and the generation. A write whose outcome is not known may
// have happened or not, each sector for itself; what is read then is what holds
// from there on, because what was sent before may not happen any more.
package ledger

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// SectorSize is the unit in which a disk is judged, in bytes.
const SectorSize = 512

// magic begins the stamp of a sector, after the disk's number.
const magic = 0x6c65646765726564

// headSize is the part of a stamp that says what it is. The rest is made of it.
const headSize = 32

// Counts is how much was done and judged.
type Counts struct {
	Acknowledged int64 // writes
	Unknown      int64 // writes whose outcome is not known
	Read         int64 // sectors that were judged
	Lost         int64 // sectors that hold less than was acknowledged, or what had been overwritten
	Foreign      int64 // sectors with bytes that nobody wrote there
}

// Ledger is the history of one disk. Requests that overlap while one of them is a
// write have no right outcome: it is for the host not to send such.
type Ledger struct {
	// Tears says that a write which was cut short may leave a sector that begins with
	// what is new and goes on with what is old, as a target does that takes data in
	// where it is to stay.
	Tears bool

	mu      sync.Mutex
	disk    uint64
	sectors []sector
	last    uint64 // generation
	counts  Counts
}

// sector is what is known of a sector: the generation that it holds, 0 being all
// zeroes, and those that it may hold as well; or what it was found to hold of two.
type sector struct {
	known uint64
	maybe []uint64
	torn  string
}

// New returns the ledger of a disk of so many bytes that holds zeroes. Its number
// tells it from other disks.
func New(disk uint64, size int64) *Ledger {
	return &Ledger{disk: disk, sectors: make([]sector, size/SectorSize)}
}

// Size is the disk's, in bytes.
func (l *Ledger) Size() int64 { return int64(len(l.sectors)) * SectorSize }

// Counts returns how much was done so far.
func (l *Ledger) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts
}

// Fill makes the data of a write at off, and returns its generation.
func (l *Ledger) Fill(p []byte, off int64) (generation uint64) {
	l.mu.Lock()
	l.last++
	generation = l.last
	l.mu.Unlock()
	for i := 0; i < len(p); i += SectorSize {
		stamp(p[i:i+SectorSize], l.disk, uint64(off+int64(i))/SectorSize, generation)
	}
	return generation
}

// stamp fills a sector.
func stamp(p []byte, disk, sector, generation uint64) {
	if generation == 0 {
		clear(p)
		return
	}
	le := binary.LittleEndian
	le.PutUint64(p, disk)
	le.PutUint64(p[8:], magic)
	le.PutUint64(p[16:], sector)
	le.PutUint64(p[24:], generation)
	x := disk ^ sector<<40 ^ generation<<20 ^ magic
	for i := headSize; i < SectorSize; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		le.PutUint64(p[i:], x)
	}
}

// Wrote notes that a write of n bytes was acknowledged.
func (l *Ledger) Wrote(off int64, n int, generation uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Acknowledged++
	for i := range l.of(off, n) {
		l.of(off, n)[i] = sector{known: generation}
	}
}

// Unknown notes a write of n bytes that may have happened.
func (l *Ledger) Unknown(off int64, n int, generation uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.Unknown++
	for i := range l.of(off, n) {
		s := &l.of(off, n)[i]
		s.maybe = append(s.maybe, generation)
	}
}

func (l *Ledger) of(off int64, n int) []sector {
	return l.sectors[off/SectorSize : (off+int64(n))/SectorSize]
}

// Check judges what was read at off. All sectors are judged; the error is of the
// first that is wrong.
func (l *Ledger) Check(p []byte, off int64) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, at := range l.of(off, len(p)) {
		n := uint64(off)/SectorSize + uint64(i)
		if wrong := l.judge(p[i*SectorSize:(i+1)*SectorSize], n, at); wrong != nil && err == nil {
			err = wrong
		}
	}
	return err
}

// judge looks at one sector, and learns which of several generations it holds.
func (l *Ledger) judge(p []byte, n uint64, at sector) error {
	l.counts.Read++
	if string(p) == at.torn || l.Tears && l.torn(p, n, at) {
		l.sectors[n] = sector{known: at.known, torn: string(p)}
		return nil
	}
	var want [SectorSize]byte
	for _, g := range at.possible() {
		if stamp(want[:], l.disk, n, g); string(p) == string(want[:]) {
			l.sectors[n] = sector{known: g}
			return nil
		}
	}
	expected := fmt.Sprintf("%d was acknowledged", at.known)
	if len(at.maybe) > 0 {
		expected += fmt.Sprintf(" (or one of %v)", at.maybe)
	}
	if at.torn != "" {
		expected += ", and it was torn since"
	}
	le := binary.LittleEndian
	disk, sign, place, generation := le.Uint64(p), le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:])
	if sign == magic {
		stamp(want[:], disk, place, generation)
	} else {
		clear(want[:])
		disk, place, generation = l.disk, n, 0
	}
	switch {
	case string(p) != string(want[:]):
		l.counts.Foreign++
		return fmt.Errorf("sector %d holds bytes that nobody wrote: % x...; %s", n, p[:headSize], expected)
	case disk != l.disk || place != n:
		l.counts.Foreign++
		return fmt.Errorf("sector %d holds sector %d of disk %d, generation %d; %s", n, place, disk, generation, expected)
	default:
		l.counts.Lost++
		return fmt.Errorf("sector %d holds generation %d; %s", n, generation, expected)
	}
}

// possible lists the generations that a sector may hold.
func (s sector) possible() []uint64 {
	if s.torn != "" {
		return s.maybe
	}
	return append([]uint64{s.known}, s.maybe...)
}

// torn tells whether a sector begins with one of the generations that it may hold, and
// goes on with another.
func (l *Ledger) torn(p []byte, n uint64, at sector) bool {
	var begin, rest [SectorSize]byte
	for _, g := range at.maybe {
		stamp(begin[:], l.disk, n, g)
		same := 0
		for same < SectorSize && p[same] == begin[same] {
			same++
		}
		if same == 0 || same == SectorSize {
			continue
		}
		for _, other := range at.possible() {
			if stamp(rest[:], l.disk, n, other); string(p[same:]) == string(rest[same:]) {
				return true
			}
		}
	}
	return false
}
