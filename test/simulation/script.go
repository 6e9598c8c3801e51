package simulation

import (
	"math/rand/v2"

	"iscsictl/arena"
	"iscsictl/iscsi"
)

// script is a source of decisions that somebody else has made: a byte each. What
// comes after them is made of them.
type script struct {
	bytes []byte
	after *rand.PCG
}

// Uint64 implements rand.Source. A byte decides among up to 256 things.
func (s *script) Uint64() uint64 {
	if len(s.bytes) == 0 {
		return s.after.Uint64()
	}
	b := s.bytes[0]
	s.bytes = s.bytes[1:]
	return uint64(b) * 0x0101010101010101
}

// runScript plays a run in which each thing that happens is decided by one of the
// bytes of decisions, and in which the target changes its PDUs by bends, where there
// are any.
func runScript(decisions, bends []byte, a *arena.Arena) (counts, error) {
	h := uint64(len(decisions))<<32 | uint64(len(bends))
	for _, b := range decisions {
		h = h*0x100000001b3 ^ uint64(b)
	}
	w := &world{
		rng: rand.New(&script{decisions, rand.NewPCG(h, 2)}), arena: a, bends: bends,
		steps: min(len(decisions), faultySteps),
	}
	return w.run()
}

// bend changes the header of a PDU that the target sends: a byte of bends says how
// many PDUs stay as they are, the two after it which byte of the next is changed, and
// by what.
func (w *world) bend(h *iscsi.BHS) {
	if w.well || len(w.bends) < 3 {
		return
	}
	if w.bends[0] > 0 {
		w.bends[0]--
		return
	}
	h[int(w.bends[1])%len(h)] ^= w.bends[2]
	w.bends = w.bends[3:]
	w.bent = true
	w.logf("target: the header is bent: % x", h[:])
}
