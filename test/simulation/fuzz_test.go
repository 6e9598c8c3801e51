package simulation

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"iscsictl/arena"
)

// FuzzSession plays a session as a whole, from the login to the disk, with all that
// happens decided by the fuzzer: what the host asks for, what the target answers and
// when, where the network cuts, and which bytes in the headers of the target's PDUs are
// changed. As long as none is, every rule holds that TestSeeds checks; from then on
// those that hold whatever a target says: nothing that was not received is given to a
// reader, no request ends twice or never, memory in use is not given back, all memory
// is given back in the end, and the session recovers.
func FuzzSession(f *testing.F) {
	a, err := arena.New(arenaSize)
	if err != nil {
		f.Fatal(err)
	}
	// Some of each kind: half a run as it comes, with nothing and with something changed.
	for i := range 8 {
		decisions := make([]byte, 100*(i+1))
		for k := range decisions {
			decisions[k] = byte(k * (2*i + 1) * 37 >> 2)
		}
		f.Add(decisions, []byte(nil))
		f.Add(decisions, []byte{byte(i), byte(4 * i), 1, 2, 36, 0x80, 9, 0, 0x11})
	}
	f.Fuzz(func(t *testing.T, decisions, bends []byte) {
		if _, err := runScript(decisions, bytes.Clone(bends), a); err != nil {
			t.Error(err)
			if a, err = arena.New(arenaSize); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestBent plays seeds against a target that changes headers of its PDUs, now and then
// or all the time. BENT_RUNS says how many.
func TestBent(t *testing.T) {
	runs := uint64(2000)
	if testing.Short() || raceEnabled {
		runs = 200
	}
	runs = setting(t, "BENT_RUNS", runs)
	a, err := arena.New(arenaSize)
	if err != nil {
		t.Fatal(err)
	}
	bent := 0
	for seed := range runs {
		rng := rand.New(rand.NewPCG(seed, 5))
		bends := make([]byte, 3*(1+rng.IntN(20)))
		for i := range bends {
			bends[i] = byte(rng.Uint32())
			if i%3 == 0 {
				bends[i] >>= rng.IntN(8)
			}
		}
		w := &world{rng: rng, arena: a, bends: bends, steps: faultySteps}
		if _, err := w.run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if w.bent {
			bent++
		}
	}
	t.Logf("%d runs, %d with changed headers", runs, bent)
	if bent < int(runs/2) {
		t.Error("the runs have not done what they are for")
	}
}
