package session

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestStatSN(t *testing.T) {
	n, _ := newWire(3, limits{})
	for _, sn := range []uint32{100, 101} {
		if err := n.Numbers(true, sn, 0, 0); err != nil {
			t.Errorf("StatSN %d: %v", sn, err)
		}
	}
	if n.ExpStatSN() != 102 {
		t.Errorf("ExpStatSN is %d, want 102", n.ExpStatSN())
	}
	for _, sn := range []uint32{101, 103, 0} {
		if err := n.Numbers(true, sn, 0, 0); err == nil {
			t.Errorf("StatSN %d was accepted where 102 is due", sn)
		}
	}
	if err := n.Numbers(false, 999, 0, 0); err != nil || n.ExpStatSN() != 102 {
		t.Error("a PDU without status has changed ExpStatSN")
	}
}

// TestLooseStatSN: what is acknowledged never goes beyond the first number that
// has not come, in whatever order they come, some of them twice.
func TestLooseStatSN(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	first, last := uint32(0xffffff00), uint32(1<<14)
	s := statuses{expStatSN: first, loose: true}
	came := map[uint32]bool{}
	for due := first; due-first < last-first; {
		sn := due + uint32(rng.IntN(100))
		if rng.IntN(20) == 0 {
			sn = due - uint32(rng.IntN(100)) // again, or what is due
		}
		if err := s.status(sn); err != nil {
			t.Fatal(err)
		}
		came[sn] = true
		for came[due] {
			due++
		}
		if s.expStatSN != due {
			t.Fatalf("ExpStatSN is %d, want %d", s.expStatSN, due)
		}
	}
	for _, distance := range []uint32{statusWindow, 1 << 31, 1<<32 - statusWindow - 1} {
		if err := s.status(s.expStatSN + distance); err == nil {
			t.Errorf("a StatSN %#x from the one that is due was accepted", distance)
		}
	}
}

// TestOverdueStatSN: a status that does not come ends the connection in the end.
func TestOverdueStatSN(t *testing.T) {
	s := statuses{expStatSN: 7, loose: true}
	look := func(now time.Duration, want bool) {
		t.Helper()
		if err := s.watchStatus(now); (err != nil) != want {
			t.Errorf("after %v: %v", now, err)
		}
	}
	take := func(sn uint32) {
		t.Helper()
		if err := s.status(sn); err != nil {
			t.Fatal(err)
		}
	}
	look(time.Second, false)
	take(8)
	look(2*time.Second, false)
	look(11*time.Second, false)
	take(7) // at the last moment
	take(10)
	look(12*time.Second, false) // 9 is overdue since now
	look(21*time.Second, false)
	take(10)
	look(22*time.Second, true)
}
