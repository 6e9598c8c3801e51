package disk

import (
	"fmt"
	"math"
	"slices"

	"iscsictl/device"
	"iscsictl/scsi"
)

// Bounds of what is offered and sent, in bytes or blocks.
const (
	maxTransfer  = 1 << 20
	minTransfer  = 4096     // what any host can ask for
	maxRange     = 2 << 30  // of a Discard or WriteZeroes
	maxParts     = 64       // tasks that one Discard or WriteZeroes may become
	maxBlocks    = 0x7fffff // of one UNMAP or WRITE SAME
	unknownSame  = 0xffff   // of one WRITE SAME where the target names no limit
	arenaPortion = 8        // a request takes at most this part of the arena
)

// facts are what a logical unit has told of itself.
type facts struct {
	inquiry  scsi.InquiryData
	names    []scsi.Designator // VPD 83
	serial   string            // VPD 80
	limits   scsi.BlockLimits
	shape    scsi.Characteristics
	thin     scsi.Provisioning
	capacity scsi.Capacity
	mode     scsi.Mode
	caching  scsi.Caching
	cached   bool // caching is known
	same     bool // WRITE SAME(16) is supported
}

// identity is what tells one disk from another.
type identity struct {
	name            scsi.Designator
	hasName         bool
	serial          string
	vendor, product string
	block           uint32 // a disk of another block size cannot go on as the same one
}

func (f *facts) identity() identity {
	id := identity{serial: f.serial, vendor: f.inquiry.Vendor, product: f.inquiry.Product, block: f.capacity.BlockLength}
	id.name, id.hasName = scsi.BestDesignator(f.names)
	return id
}

// same reports whether the facts are of the disk that id was made of.
func (id *identity) same(f *facts) bool { return f.capacity.BlockLength == id.block && id.named(f) }

// named reports whether the names in the facts are of the disk that id was made of.
func (id *identity) named(f *facts) bool {
	if id.hasName {
		return slices.ContainsFunc(f.names, id.name.Equal)
	}
	now := f.identity()
	return !now.hasName && now.serial == id.serial && now.vendor == id.vendor && now.product == id.product
}

// check says why a logical unit cannot be a disk here.
func (f *facts) check() error {
	c := f.capacity
	switch {
	case c.BlockLength != 512 && c.BlockLength != 4096:
		return fmt.Errorf("its blocks have %d bytes; 512 and 4096 are supported", c.BlockLength)
	case c.LastLBA >= math.MaxInt64/uint64(c.BlockLength):
		return fmt.Errorf("its size of %d blocks and one is not believable", c.LastLBA)
	}
	return nil
}

// cacheState is what is known of a disk's write cache.
type cacheState uint8

const (
	cacheUnknown cacheState = iota
	cacheOff
	cacheOn
)

// limits are how requests become commands. Sizes are in bytes.
type limits struct {
	block    int64
	transfer int64 // of one READ or WRITE
	discard  int64 // of one UNMAP, or WRITE SAME that is to unmap; 0: none
	granule  int64 // of unmapping
	align    int64 // offset of the first granule

	discardBySame bool
	same          int64 // of one WRITE SAME; 0: none
	sameUnmap     bool  // WRITE SAME with zeroes may unmap
	fua           bool
	cache         cacheState
	readOnly      bool
}

// discardPart returns how much of n bytes at off one command discards: parts end
// at a granule, so that none is lost between two of them.
func (l *limits) discardPart(off, n int64) int64 {
	if n <= l.discard {
		return n
	}
	n = l.discard
	if over := (off + n - l.align) % l.granule; over > 0 && over < n {
		n -= over
	}
	return n
}

func (f *facts) blockLimits(l *limits) {
	b := l.block
	l.granule = b * int64(max(f.limits.UnmapGranule, 1))
	if f.limits.UnmapAligned {
		l.align = b * int64(f.limits.UnmapAlignment) % l.granule
	}
	sameBlocks := int64(unknownSame)
	if f.limits.MaxWriteSame != 0 {
		sameBlocks = int64(min(f.limits.MaxWriteSame, maxBlocks))
	}
	if f.same {
		l.same = b * sameBlocks
	}
	if !f.capacity.LBPME {
		return
	}
	switch {
	case f.thin.LBPU && f.limits.MaxUnmapBlocks > 0 && f.limits.MaxUnmapExtents > 0:
		l.discard = b * int64(min(f.limits.MaxUnmapBlocks, maxBlocks))
	case f.thin.LBPWS && f.same:
		l.discard, l.discardBySame = b*sameBlocks, true
	}
	l.sameUnmap = f.same && f.thin.LBPWS && f.capacity.LBPRZ
}

// requestLimits works out how requests become commands, of whose data the nexus
// takes most bytes at a time; 0: any.
func (f *facts) requestLimits(most int) limits {
	l := limits{block: int64(f.capacity.BlockLength), readOnly: f.mode.WriteProtected, fua: f.mode.DPOFUA}
	l.transfer = maxTransfer
	if most != 0 {
		l.transfer = min(l.transfer, int64(most))
	}
	if m := f.limits.MaxTransfer; m != 0 {
		l.transfer = min(l.transfer, int64(m)*l.block)
	}
	f.blockLimits(&l)
	if f.cached {
		l.cache = cacheOff
		if f.caching.WriteCache {
			l.cache = cacheOn
		}
	}
	return l
}

// offered is the largest transfer that a host is offered: the most that it knows a
// disk to take, of this daemon or of one before it, by this nexus or another.
func offered(arenaSize int) int64 { return min(maxTransfer, int64(arenaSize/arenaPortion)) }

// geometry works out what the host is told.
func (f *facts) geometry(l *limits, arenaSize int) device.Geometry {
	offer := min(max(l.transfer, minTransfer), offered(arenaSize))
	physical := l.block << f.capacity.PhysicalExponent
	if physical > maxTransfer {
		physical = l.block
	}
	g := device.Geometry{
		Size:          int64(f.capacity.LastLBA+1) * l.block,
		LogicalBlock:  int(l.block),
		PhysicalBlock: int(physical),
		MaxTransfer:   int(max(offer-offer%l.block, l.block)),
		ReadOnly:      l.readOnly,
		WriteCache:    l.cache != cacheOff,
		FUA:           true, // by a bit of the command, or by flushing after it
		Rotational:    f.shape.Rotation > 1,
	}
	if m := int64(f.limits.OptimalGranule) * l.block; m <= int64(g.MaxTransfer) {
		g.MinimumIO = int(m)
	}
	if o := int64(f.limits.OptimalTransfer) * l.block; o <= int64(g.MaxTransfer) {
		g.OptimalIO = int(o)
	}
	if l.readOnly {
		return g
	}
	if l.discard > 0 {
		g.DiscardMax = roundRange(l.discard, l.granule)
		g.DiscardUnit = int(min(l.granule, maxRange/2))
		g.DiscardAlign = int(l.align % int64(g.DiscardUnit))
	}
	if l.same > 0 {
		g.ZeroesMax = roundRange(l.same, l.block)
	}
	return g
}

// roundRange returns the largest range to offer where one command does part bytes.
func roundRange(part, unit int64) int64 {
	n := min(part*maxParts, maxRange)
	if n > unit {
		n -= n % unit
	}
	return n
}
