package ublk

import (
	"fmt"
	"math/bits"
	"unsafe"

	"iscsictl/arena"
	"iscsictl/device"
)

const (
	// maxWhole is the largest read or write that the host is told of, in bytes.
	maxWhole = 4 << 20
	// arenaShare is how many of the largest requests an arena has to hold.
	arenaShare = 8
	// maxRange is the most that the host is to discard or zero at once, in bytes.
	maxRange = 1 << 31
)

// check returns an error for what a ublk device cannot be.
func check(g device.Geometry, a *arena.Arena) error {
	switch block := g.LogicalBlock; {
	case block < 512 || block > arena.PageSize || block&(block-1) != 0:
		return fmt.Errorf("ublk: a logical block of %d bytes cannot be shown", block)
	case g.Size <= 0 || g.Size%int64(block) != 0:
		return fmt.Errorf("ublk: a size of %d bytes cannot be shown", g.Size)
	case g.MaxTransfer < block:
		return fmt.Errorf("ublk: largest transfer of %d bytes is less than a block of %d", g.MaxTransfer, block)
	case a.Size() < arenaShare*arena.PageSize:
		return fmt.Errorf("ublk: an arena of %d bytes is too small", a.Size())
	}
	return nil
}

// makeParams puts a geometry, which check has passed, into the driver's terms.
func makeParams(g device.Geometry, arenaSize int) params {
	p := params{types: typeBasic}
	p.length = uint32(unsafe.Sizeof(p))
	// A page is the least that the kernel accepts; smaller transfers of the
	// disk are made of it by splitting.
	whole := min(g.MaxTransfer, arenaSize/arenaShare, maxWhole)
	whole = max(whole-whole%arena.PageSize, arena.PageSize)
	p.maxSectors = uint32(whole >> sectorShift)
	p.devSectors = uint64(g.Size) >> sectorShift

	p.logicalShift = shift(g.LogicalBlock)
	p.physicalShift = max(shift(g.PhysicalBlock), p.logicalShift)
	p.minimumShift = max(shift(g.MinimumIO), p.physicalShift)
	p.optimalShift = max(shift(g.OptimalIO), p.minimumShift)

	if g.ReadOnly {
		p.attrs |= attrReadOnly
	}
	if g.Rotational {
		p.attrs |= attrRotational
	}
	if g.WriteCache {
		p.attrs |= attrVolatileCache
		if g.FUA {
			p.attrs |= attrFUA
		}
	}
	if !g.ReadOnly && (g.DiscardMax > 0 || g.ZeroesMax > 0) {
		p.setDiscard(g)
	}
	return p
}

func (p *params) setDiscard(g device.Geometry) {
	p.types |= typeDiscard
	p.discardGranularity = uint32(max(g.DiscardUnit, g.LogicalBlock))
	p.discardAlignment = uint32(g.DiscardAlign)
	p.maxDiscardSegments = 1
	sectors := func(most int64, unit int64) uint32 {
		most = min(most, maxRange)
		if most > unit {
			most -= most % unit
		}
		return uint32(most >> sectorShift)
	}
	p.maxDiscardSectors = sectors(g.DiscardMax, int64(p.discardGranularity))
	p.maxZeroesSectors = sectors(g.ZeroesMax, int64(g.LogicalBlock))
}

// shift returns the exponent of a power of two, and 0 of what is none: the
// driver has no means to say of a size that is not a power of two.
func shift(n int) uint8 {
	if n <= 0 || n&(n-1) != 0 || n > maxRange {
		return 0
	}
	return uint8(bits.TrailingZeros64(uint64(n)))
}

// whole returns the largest read or write of the host, in bytes.
func (p *params) whole() int { return int(p.maxSectors) << sectorShift }

// limits are what requests are made by.
type limits struct {
	device.Geometry
	// direct: every write is to be durable, as the host was told that the
	// disk has no volatile cache and sends no flush.
	direct bool
}

func newLimits(g device.Geometry, p *params) *limits {
	return &limits{Geometry: g, direct: g.WriteCache && p.attrs&attrVolatileCache == 0}
}
