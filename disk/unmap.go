package disk

import (
	"iscsictl/arena"
	"iscsictl/scsi"
)

// listSize is the place of one UNMAP parameter list with one descriptor, rounded up.
const (
	listSize  = 32
	listCount = arena.PageSize / listSize
)

// unmapLists is the memory of UNMAP parameter lists: a page of the arena for as
// long as one of them is in use.
type unmapLists struct {
	page arena.Extent
	free [listCount]uint8
	left int // of free
}

// take returns a place, or false where there is no memory now.
func (u *unmapLists) take(a *arena.Arena) (int, bool) {
	if u.page.Len() == 0 {
		page, ok := a.Alloc(arena.PageSize)
		if !ok {
			return 0, false
		}
		u.page, u.left = page, listCount
		for i := range u.free {
			u.free[i] = uint8(i)
		}
	}
	if u.left == 0 {
		return 0, false
	}
	u.left--
	return int(u.free[u.left]), true
}

// put gives a place back.
func (u *unmapLists) put(slot int) {
	u.free[u.left] = uint8(slot)
	u.left++
	if u.left == listCount {
		u.page.Free()
		u.page = arena.Extent{}
	}
}

// fill writes a parameter list of one extent.
func (u *unmapLists) fill(slot int, e scsi.Extent) arena.Extent {
	x := u.page.Slice(slot*listSize, (slot+1)*listSize)
	list := scsi.AppendUnmap(x.Bytes()[:0], e)
	return x.Slice(0, len(list))
}
