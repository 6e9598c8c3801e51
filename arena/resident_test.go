package arena

import (
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func openResident(t *testing.T, size int) *Arena {
	t.Helper()
	a, err := NewResident(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// populated reports whether every page of a piece of memory is in memory.
func populated(t *testing.T, b []byte) bool {
	t.Helper()
	page := os.Getpagesize()
	there := make([]byte, (len(b)+page-1)/page)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&there[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, x := range there {
		if x&1 == 0 {
			return false
		}
	}
	return true
}

// TestResidentGivesOutWhatIsThere: every extent is in memory before it is given
// out, and all of the budget can be had.
func TestResidentGivesOutWhatIsThere(t *testing.T) {
	const size = 8 << 20
	a := openResident(t, size)
	if got := a.Resident(); got != residentFirst {
		t.Errorf("it begins with %d bytes, want %d", got, residentFirst)
	}
	if populated(t, a.mem) {
		t.Error("all of it is in memory from the beginning")
	}
	var all []Extent
	for range size / (256 << 10) {
		e, err := a.Wait(256<<10, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !populated(t, e.Bytes()) {
			t.Fatalf("the extent at %d is not in memory", e.Offset())
		}
		all = append(all, e)
	}
	if _, ok := a.Alloc(1); ok || a.Resident() != size {
		t.Errorf("more than the budget, or %d bytes of it there", a.Resident())
	}
	for _, e := range all {
		e.Free()
	}
	whole, ok := a.Alloc(size)
	if !ok {
		t.Fatal("the pieces are not one again")
	}
	whole.Free()
}

// TestResidentLarge: who needs a large extent gets it, though it begins small.
func TestResidentLarge(t *testing.T) {
	a := openResident(t, 16<<20)
	if _, ok := a.Alloc(4 << 20); ok {
		t.Fatal("memory that was not there was given out")
	}
	e, err := a.Wait(4<<20, nil)
	if err != nil || !populated(t, e.Bytes()) {
		t.Fatalf("%v, or not in memory", err)
	}
	e.Free()
}

func TestReserve(t *testing.T) {
	a := openResident(t, 8<<20)
	a.Reserve(3 << 20)
	e, err := a.Wait(2<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Free()
	a.Reserve(1 << 30) // all there is
	e, err = a.Wait(8<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Free()
}

// TestResidentSmall: an arena that is smaller than what one begins with.
func TestResidentSmall(t *testing.T) {
	a := openResident(t, 2*PageSize)
	e, ok := a.Alloc(2 * PageSize)
	if !ok {
		t.Fatal("its memory cannot be had")
	}
	e.Free()
}

// TestResidentClose closes arenas while they grow.
func TestResidentClose(t *testing.T) {
	for range 20 {
		a, err := NewResident(32 << 20)
		if err != nil {
			t.Fatal(err)
		}
		a.Reserve(32 << 20)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestResidentByMany has many take and give back while it grows.
func TestResidentByMany(t *testing.T) {
	a := openResident(t, 16<<20)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var all sync.WaitGroup
	for i := range uint64(8) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, i))
			for range 500 {
				e, err := a.Wait(1+r.IntN(1<<20), nil)
				if err != nil {
					t.Error(err)
					return
				}
				b := e.Bytes()
				b[0], b[len(b)-1] = byte(i), byte(i)
				if b[0] != byte(i) || b[len(b)-1] != byte(i) {
					t.Error("another has written to it")
				}
				e.Free()
			}
		})
	}
	all.Wait()
	if n := a.InUse(); n != 0 {
		t.Errorf("%d bytes are in use", n)
	}
}
