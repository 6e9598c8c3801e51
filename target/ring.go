package target

// ring is a queue that does not grow.
type ring[T any] struct {
	items       []T
	first, last uint64
}

func newRing[T any](n int) ring[T] { return ring[T]{items: make([]T, n)} }

func (r *ring[T]) empty() bool { return r.first == r.last }
func (r *ring[T]) full() bool  { return r.last-r.first == uint64(len(r.items)) }

// put reports false where the ring is full.
func (r *ring[T]) put(v T) bool {
	if r.full() {
		return false
	}
	r.items[r.last%uint64(len(r.items))] = v
	r.last++
	return true
}

func (r *ring[T]) take() (v T, ok bool) {
	if r.empty() {
		return v, false
	}
	p := &r.items[r.first%uint64(len(r.items))]
	v, *p = *p, v
	r.first++
	return v, true
}
