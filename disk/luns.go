package disk

import (
	"fmt"
	"slices"

	"iscsictl/scsi"
)

const lunSize, lunHeader = 8, 8

// list asks the target for its logical units, in the order of their numbers. A
// target that cannot tell has LUN 0.
func (r *round) list() ([]scsi.LUN, error) {
	// REPORT LUNS is for LUN 0, whether there is such a logical unit or not
	// (SPC-4 §6.33).
	list, total, err := r.report(r.listBuf, listAlloc)
	if illegal(err) || missing(err) {
		return []scsi.LUN{0}, nil
	}
	// A list may grow while it is asked for; and a target may say that it has
	// more than it sends.
	for tries := 0; err == nil && tries < 3 && total > int64(lunHeader+lunSize*len(list)); tries++ {
		n := int(min(total, lunHeader+lunSize*maxLUNs, int64(r.nexusArena()/4)))
		before := len(list)
		list, total, err = r.reportLong(n)
		if err == nil && len(list) <= before {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot ask the target for its LUNs: %w", err)
	}
	if len(list) > maxLUNs {
		list = list[:maxLUNs]
	}
	if total > int64(lunHeader+lunSize*len(list)) {
		r.note("the target says that it has %d LUNs; %d of them are looked at", (total-lunHeader)/lunSize, len(list))
	}
	slices.SortStableFunc(list, func(a, b scsi.LUN) int {
		switch x, y := a.Number(), b.Number(); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return list, nil
}

func (r *round) nexusArena() int { return r.Set.nexus.Arena().Size() }

// reportLong asks with a buffer of its own.
func (r *round) reportLong(n int) ([]scsi.LUN, int64, error) {
	buf, err := r.Set.nexus.Arena().Wait(n, r.ctx.Done())
	if err != nil {
		return nil, 0, err
	}
	defer buf.Free()
	return r.report(newCaller(r.Set, buf), n)
}

func (r *round) report(c *caller, n int) ([]scsi.LUN, int64, error) {
	b, err := c.call(r.ctx, 0, scsi.ReportLUNs(uint32(n)), n)
	if err != nil {
		return nil, 0, err
	}
	return scsi.ParseLUNs(b)
}
