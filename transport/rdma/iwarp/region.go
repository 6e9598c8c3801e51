package iwarp

import (
	"crypto/rand"
	"encoding/binary"
	"errors"

	"iscsictl/arena"
	"iscsictl/transport/rdma"
)

const (
	// regionsMax bounds the indices of the STag space, which has 24 bits.
	regionsMax = 1 << 20

	stagIndexBits = 24
	stagIndexMask = 1<<stagIndexBits - 1
)

type regionState uint8

const (
	regionFree regionState = iota
	regionGranted
	regionInvalidated // by the peer
	regionRevoked     // by us; something refers to it still
)

// region is memory that the peer can reach.
type region struct {
	id      uint64 // the user's
	mem     []byte
	to      uint64 // tagged offset of the first byte
	stag    uint32
	access  rdma.Access
	state   regionState
	placing bool // the reader is reading into it
}

// regionTable looks up STags. An STag is an index, made unguessable by a secret
// of the connection, with a generation in its low eight bits (RFC 5041 §7.1 has
// the STag's halves, RFC 5042 §6.1 the reasons). Free entries are used in turn,
// so that it takes a while until a stale STag is valid again.
type regionTable struct {
	entries []region
	free    []uint32 // a ring of len(entries)
	first   int      // of free
	count   int      // in free
	secret  uint32   // of stagIndexBits
	base    uint64   // tagged offset of the arena's first byte
}

func (t *regionTable) init(n, sinks int) error {
	if n+sinks > regionsMax {
		return errors.New("iwarp: too many regions")
	}
	var seed [12]byte
	_, _ = rand.Read(seed[:]) // never fails
	t.secret = binary.LittleEndian.Uint32(seed[:]) & stagIndexMask
	t.base = binary.LittleEndian.Uint64(seed[4:])>>17 | 1<<46
	t.base &^= arena.PageSize - 1
	t.entries, t.free, t.count = make([]region, n), make([]uint32, n), n
	generation := make([]byte, n)
	_, _ = rand.Read(generation)
	for i := range t.entries {
		t.free[i] = uint32(i)
		t.entries[i].stag = t.stag(uint32(i), generation[i])
	}
	return nil
}

// stag makes the STag of an index; indices from len(entries) are for the sinks
// of our RDMA Reads, which the peer can name in responses only.
func (t *regionTable) stag(index uint32, generation uint8) uint32 {
	s := (index^t.secret)<<8 | uint32(generation)
	if s == 0 {
		s++
	}
	return s
}

// nextSTag makes the STag of the same index that follows s.
func (t *regionTable) nextSTag(s uint32) uint32 {
	return t.stag(s>>8^t.secret, uint8(s)+1)
}

func (t *regionTable) grant(id uint64, e arena.Extent, a rdma.Access) (rdma.Region, error) {
	if e.Len() == 0 || a == 0 {
		return rdma.Region{}, errors.New("iwarp: grant of an empty extent or of no access")
	}
	if t.count == 0 {
		return rdma.Region{}, rdma.ErrFull
	}
	r := &t.entries[t.free[t.first]]
	t.first = (t.first + 1) % len(t.free)
	t.count--
	*r = region{
		id: id, mem: e.Bytes(), to: t.base + uint64(e.Offset()),
		stag: t.nextSTag(r.stag), access: a, state: regionGranted,
	}
	return rdma.Region{Key: rdma.Key(r.stag), Addr: r.to}, nil
}

// index returns where the region of an STag is, or false where it is not, or
// was given out anew.
func (t *regionTable) index(stag uint32) (uint32, bool) {
	i := stag>>8 ^ t.secret
	if i >= uint32(len(t.entries)) {
		return 0, false
	}
	r := &t.entries[i]
	return i, r.stag == stag && r.state != regionFree
}

// release takes a region back and returns the user's id of it.
func (t *regionTable) release(i uint32) uint64 {
	r := &t.entries[i]
	r.state, r.mem = regionFree, nil
	t.free[(t.first+t.count)%len(t.free)] = i
	t.count++
	return r.id
}

// breach is what is wrong with an access by the peer.
type breach uint8

const (
	breachNone breach = iota
	breachSTag
	breachAccess
	breachBounds
	breachWrap
)

// at returns the n bytes at a tagged offset of the region, where the peer may
// do to them what access says.
func (t *regionTable) at(stag uint32, to uint64, n uint32, access rdma.Access) (index uint32, mem []byte, b breach) {
	i, ok := t.index(stag)
	if !ok || t.entries[i].state != regionGranted {
		return 0, nil, breachSTag
	}
	r := &t.entries[i]
	switch {
	case r.access&access == 0:
		return 0, nil, breachAccess
	case to+uint64(n) < to:
		return 0, nil, breachWrap
	case to < r.to || to-r.to > uint64(len(r.mem)) || uint64(n) > uint64(len(r.mem))-(to-r.to):
		return 0, nil, breachBounds
	}
	from := to - r.to
	return i, r.mem[from : from+uint64(n)], breachNone
}
