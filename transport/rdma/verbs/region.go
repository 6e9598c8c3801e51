package verbs

import (
	"errors"
	"fmt"
	"math/bits"
	"unsafe"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
)

const (
	// idleMax is how many regions are kept that nothing uses.
	idleMax = 8192

	// localOrder is the least size of regions for our own use, as a power of
	// two of pages (1 MiB): few of them do for a whole arena.
	localOrder = 8

	// none is the index of no region.
	none = -1
)

// registrar registers memory with a device.
type registrar interface {
	register(addr uintptr, n int, access rdma.Access) (registration, error)
	deregister(registration) error
}

// registration is a memory region of the device.
type registration struct {
	handle     uintptr
	lkey, rkey uint32
}

// region is a block of the arena that is registered.
type region struct {
	registration
	page   uint32 // where the block begins, in pages
	order  uint8  // its size is so many powers of two in pages
	access rdma.Access
	dead   bool // the peer has invalidated it: it is good for nothing more
	uses   int  // grants and requests that refer to it

	next     int32 // that begins at the same page, or is free like this one
	newer    int32 // while nothing uses it
	older    int32
	occupied bool
}

// regions are those of one arena and one connection. A connection's lock guards them.
type regions struct {
	device   registrar
	size     int     // of the arena, in bytes
	base     uintptr // address of the arena's first byte; 0: not known yet
	bytesMax int     // registered, before idle regions have to go

	all     []region
	first   []int32 // by page: a region that begins there
	free    int32
	newest  int32 // of those that nothing uses
	oldest  int32
	idle    int
	bytes   int // registered
	granted int
	limit   int // of granted
}

// newRegions keeps regions of an arena of size bytes, which may be 0. Twice the
// arena may be registered at a time, since the peer's reads, the peer's writes
// and our own use have regions of their own.
func newRegions(device registrar, size, limit int) *regions {
	r := &regions{
		device: device, size: size, bytesMax: 2 * size, limit: limit,
		first: make([]int32, size/arena.PageSize), free: none, newest: none, oldest: none,
	}
	for i := range r.first {
		r.first[i] = none
	}
	return r
}

var errForeign = errors.New("verbs: an extent of another arena")

// address returns where an extent's first byte is, and checks that it is of
// the arena.
func (r *regions) address(e arena.Extent) (uintptr, error) {
	if e.Offset()+e.Len() > r.size {
		return 0, errForeign
	}
	p := uintptr(unsafe.Pointer(unsafe.SliceData(e.Bytes())))
	base := p - uintptr(e.Offset())
	if r.base == 0 {
		r.base = base
	}
	if r.base != base {
		return 0, errForeign
	}
	return p, nil
}

// block returns the smallest block of at least 1<<least pages, but no more than
// the arena, that has all of the extent in it.
func (r *regions) block(e arena.Extent, least int) (page uint32, order uint8) {
	from, to := uint32(e.Offset()/arena.PageSize), uint32((e.Offset()+e.Len()-1)/arena.PageSize)
	whole := bits.Len(uint(len(r.first))) - 1
	o := max(bits.Len32(from^to), min(least, whole))
	return from >> o << o, uint8(o)
}

// grant lends an extent, which is not empty.
func (r *regions) grant(e arena.Extent, access rdma.Access) (rdma.Region, error) {
	addr, err := r.address(e)
	switch {
	case err != nil:
		return rdma.Region{}, err
	case e.Len() == 0 || access == 0:
		return rdma.Region{}, errors.New("verbs: grant of an empty extent or of no access")
	case r.granted == r.limit:
		return rdma.Region{}, rdma.ErrFull
	}
	page, order := r.block(e, 0)
	i, err := r.take(page, order, access)
	if err != nil {
		return rdma.Region{}, err
	}
	r.granted++
	return rdma.Region{Key: rdma.Key(r.all[i].rkey), Addr: uint64(addr)}, nil
}

// revoke takes back what was lent. It reports false for what was not.
func (r *regions) revoke(x rdma.Region) bool {
	i := r.find(x)
	if i == none {
		return false
	}
	r.granted--
	r.put(i)
	return true
}

// find returns the region that was lent as x, or none.
func (r *regions) find(x rdma.Region) int32 {
	page := (x.Addr - uint64(r.base)) / arena.PageSize
	if r.base == 0 || x.Addr < uint64(r.base) || page >= uint64(len(r.first)) {
		return none
	}
	for o := 0; 1<<o <= len(r.first); o++ {
		for i := r.first[page>>o<<o]; i != none; i = r.all[i].next {
			if g := &r.all[i]; int(g.order) == o && g.rkey == uint32(x.Key) && g.access != 0 && g.uses > 0 {
				return i
			}
		}
	}
	return none
}

// invalidated notes that the peer has invalidated a region.
func (r *regions) invalidated(k rdma.Key) {
	for i := range r.all {
		if g := &r.all[i]; g.occupied && g.rkey == uint32(k) {
			g.dead = true
			if g.uses == 0 {
				r.unlist(int32(i))
				r.remove(int32(i))
			}
			return
		}
	}
}

// local gives the key by which this host's own device may use an extent, which
// is not empty, and the region to put back. A sink that the device treats as
// the peer's to write (iWARP's RDMA Read) needs remote access.
func (r *regions) local(e arena.Extent, sink bool) (addr uintptr, lkey uint32, i int32, err error) {
	if addr, err = r.address(e); err != nil {
		return 0, 0, none, err
	}
	var access rdma.Access
	least := localOrder
	if sink {
		access, least = rdma.RemoteWrite, 0
	}
	page, order := r.block(e, least)
	if i, err = r.take(page, order, access); err != nil {
		return 0, 0, none, err
	}
	return addr, r.all[i].lkey, i, nil
}

// take returns the region of a block, which is registered unless it is there.
func (r *regions) take(page uint32, order uint8, access rdma.Access) (int32, error) {
	for i := r.first[page]; i != none; i = r.all[i].next {
		if g := &r.all[i]; g.order == order && g.access == access && !g.dead {
			if g.uses == 0 {
				r.unlist(i)
			}
			g.uses++
			return i, nil
		}
	}
	n := arena.PageSize << order
	for r.oldest != none && (r.bytes+n > r.bytesMax || r.idle >= idleMax) {
		r.evict()
	}
	made, err := r.device.register(r.base+uintptr(page)*arena.PageSize, n, access)
	for err != nil && r.oldest != none { // perhaps of what is locked already
		r.evict()
		made, err = r.device.register(r.base+uintptr(page)*arena.PageSize, n, access)
	}
	if err != nil {
		return none, fmt.Errorf("register %d KiB of memory: %w", n>>10, err)
	}
	return r.add(region{registration: made, page: page, order: order, access: access, uses: 1, occupied: true}), nil
}

// put ends one use of a region.
func (r *regions) put(i int32) {
	g := &r.all[i]
	if g.uses--; g.uses > 0 {
		return
	}
	if g.dead {
		r.remove(i)
		return
	}
	g.older, g.newer = r.newest, none
	if r.newest != none {
		r.all[r.newest].newer = i
	} else {
		r.oldest = i
	}
	r.newest = i
	r.idle++
}

// unlist takes a region from the list of those that nothing uses.
func (r *regions) unlist(i int32) {
	g := &r.all[i]
	if g.newer != none {
		r.all[g.newer].older = g.older
	} else {
		r.newest = g.older
	}
	if g.older != none {
		r.all[g.older].newer = g.newer
	} else {
		r.oldest = g.newer
	}
	r.idle--
}

func (r *regions) evict() {
	i := r.oldest
	r.unlist(i)
	r.remove(i)
}

func (r *regions) add(g region) int32 {
	i := r.free
	if i == none {
		i = int32(len(r.all))
		r.all = append(r.all, region{})
	} else {
		r.free = r.all[i].next
	}
	g.next = r.first[g.page]
	r.all[i] = g
	r.first[g.page] = i
	r.bytes += arena.PageSize << g.order
	return i
}

// remove deregisters a region that is on no list but its page's.
func (r *regions) remove(i int32) {
	g := &r.all[i]
	at := &r.first[g.page]
	for *at != i {
		at = &r.all[*at].next
	}
	*at = g.next
	r.bytes -= arena.PageSize << g.order
	// The memory is the device's until this has succeeded, which it does
	// but for a device that is gone.
	_ = r.device.deregister(g.registration)
	*g = region{next: r.free}
	r.free = i
}

// close deregisters all.
func (r *regions) close() {
	for i := range r.all {
		if r.all[i].occupied {
			_ = r.device.deregister(r.all[i].registration)
		}
	}
	r.all, r.granted, r.size = nil, 0, 0
}
