package arena

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
)

func open(t *testing.T, size int) *Arena {
	t.Helper()
	a, err := New(size)
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

func TestSizeMustBeAPowerOfTwo(t *testing.T) {
	for _, size := range []int{0, -PageSize, PageSize - 1, 3 * PageSize, PageSize + 1} {
		if a, err := New(size); err == nil {
			a.Close()
			t.Errorf("New(%d) succeeded", size)
		}
	}
}

func TestExtentsAreDistinctAndMerge(t *testing.T) {
	const size = 64 * PageSize
	a := open(t, size)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	type loan struct {
		e    Extent
		mark byte
	}
	var loans []loan
	for i := range 20_000 {
		if len(loans) > 0 && r.IntN(2) == 0 {
			k := r.IntN(len(loans))
			l := loans[k]
			for j, b := range l.e.Bytes() {
				if b != l.mark {
					t.Fatalf("step %d: byte %d of an extent at %d was overwritten", i, j, l.e.Offset())
				}
			}
			l.e.Free()
			loans[k] = loans[len(loans)-1]
			loans = loans[:len(loans)-1]
			continue
		}
		n := 1 + r.IntN(9*PageSize)
		e, ok := a.Alloc(n)
		if !ok {
			continue
		}
		if e.Len() != n || e.Offset()%PageSize != 0 || e.Offset()+n > size {
			t.Fatalf("Alloc(%d) gave %d bytes at %d", n, e.Len(), e.Offset())
		}
		mark := byte(i)
		for j := range e.Bytes() {
			e.Bytes()[j] = mark
		}
		loans = append(loans, loan{e, mark})
	}
	for _, l := range loans {
		l.e.Free()
	}
	if a.InUse() != 0 {
		t.Fatalf("%d bytes in use after all were freed", a.InUse())
	}
	// Only when all the pieces have merged can the whole be had.
	e, ok := a.Alloc(size)
	if !ok {
		t.Fatal("the whole arena is not free")
	}
	e.Free()
}

func TestSliceIsBounded(t *testing.T) {
	a := open(t, 4*PageSize)
	e, _ := a.Alloc(1000)
	defer e.Free()
	s := e.Slice(10, 20)
	s.Bytes()[0] = 7
	if s.Len() != 10 || cap(s.Bytes()) != 10 || e.Bytes()[10] != 7 || s.Offset() != e.Offset()+10 {
		t.Errorf("Slice(10, 20): %d bytes, capacity %d, at %d", s.Len(), cap(s.Bytes()), s.Offset())
	}
	for _, bad := range [][2]int{{-1, 2}, {3, 2}, {0, 1001}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Slice(%d, %d) of 1000 bytes did not panic", bad[0], bad[1])
				}
			}()
			e.Slice(bad[0], bad[1])
		}()
	}
	Extent{}.Free() // nothing happens
}

func TestWaitersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, 4*PageSize)
		all, _ := a.Alloc(4 * PageSize)
		var order []int
		var mu sync.Mutex
		for i := range 3 {
			go func() {
				e, err := a.Wait(4*PageSize, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				e.Free()
			}()
			synctest.Wait()
		}
		if _, ok := a.Alloc(PageSize); ok {
			t.Error("Alloc went before those who wait")
		}
		all.Free()
		synctest.Wait()
		if len(order) != 3 || order[0] != 0 || order[1] != 1 || order[2] != 2 {
			t.Errorf("served in the order %v", order)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := New(PageSize)
		if err != nil {
			t.Fatal(err)
		}
		e, _ := a.Alloc(1)
		stop := make(chan struct{})
		got := make(chan error, 2)
		wait := func(stop chan struct{}) {
			_, err := a.Wait(1, stop)
			got <- err
		}
		go wait(stop)
		synctest.Wait()
		close(stop)
		if err := <-got; !errors.Is(err, ErrStopped) {
			t.Errorf("a stopped wait gave %v", err)
		}
		if err := a.Close(); err == nil {
			t.Error("an arena was closed with an extent given out")
		}
		e.Free()
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		go wait(nil)
		if err := <-got; !errors.Is(err, ErrClosed) {
			t.Errorf("a wait at a closed arena gave %v", err)
		}
	})
}

func TestAllocDoesNotAllocate(t *testing.T) {
	a := open(t, 1<<20)
	if n := testing.AllocsPerRun(1000, func() {
		e, _ := a.Alloc(5000)
		e.Free()
	}); n != 0 {
		t.Errorf("%v allocations for an extent", n)
	}
}

func BenchmarkAllocFree(b *testing.B) {
	a, err := New(64 << 20)
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	b.ReportAllocs()
	for b.Loop() {
		e, _ := a.Alloc(4096)
		e.Free()
	}
}
