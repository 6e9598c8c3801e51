package simulation

import (
	"bytes"
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
