package simulation

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"iscsictl/arena"
)

// How many seeds a plain `go test` plays; runsShort with -short or -race.
const (
	runsDefault = 50_000
	runsShort   = 500
)

// arenaSize is enough for all that a run asks for at a time.
const arenaSize = 512 << 10

func setting(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestSeeds plays seeds; SIM_FIRST is the first of them, SIM_RUNS how many.
func TestSeeds(t *testing.T) {
	runs := uint64(runsDefault)
	if testing.Short() || raceEnabled {
		runs = runsShort
	}
	runs = setting(t, "SIM_RUNS", runs)
	first := setting(t, "SIM_FIRST", 1)
	// Each run leaves much behind, of a few KiB that are all soon dead. On a busy machine
	// what is made during a collection counts, and would make the next one wait longer.
	defer debug.SetGCPercent(debug.SetGCPercent(1000))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(512 << 20))
	var next, failures atomic.Uint64
	next.Store(first)
	var mu sync.Mutex
	var sum counts
	begin := time.Now()
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			a, err := arena.New(arenaSize)
			if err != nil {
				t.Error(err)
				return
			}
			var own counts
			for seed := next.Add(1) - 1; seed < first+runs && failures.Load() < 5; seed = next.Add(1) - 1 {
				c, err := run(seed, a, nil)
				own.add(c)
				if err != nil {
					failures.Add(1)
					t.Errorf("seed %d: %v (SIM_SEED=%d go test -run TestSeed$ ./test/simulation plays it with a log)", seed, err, seed)
					if a, err = arena.New(arenaSize); err != nil {
						t.Error(err)
						return
					}
				}
			}
			mu.Lock()
			sum.add(own)
			mu.Unlock()
		})
	}
	wait.Wait()
	took := time.Since(begin)
	t.Logf("%d runs from seed %d in %.1f s (%.0f a second): %d requests, %d errors, %d logins, %d cuts, %d steps",
		runs, first, took.Seconds(), float64(runs)/took.Seconds(), sum.requests, sum.errors, sum.logins, sum.cuts, sum.steps)
	if sum.requests == 0 || sum.logins == 0 || sum.cuts == 0 || sum.errors == 0 {
		t.Error("the runs have not done what they are for")
	}
}

func (c *counts) add(o counts) {
	c.requests += o.requests
	c.errors += o.errors
	c.logins += o.logins
	c.cuts += o.cuts
	c.steps += o.steps
}

// TestSeed plays the seed SIM_SEED with a log.
func TestSeed(t *testing.T) {
	seed := setting(t, "SIM_SEED", 0)
	if seed == 0 {
		seed = 1
	}
	a, err := arena.New(arenaSize)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	_, err = run(seed, a, &log)
	if os.Getenv("SIM_SEED") != "" {
		t.Logf("\n%s", log.Bytes())
	}
	if err != nil {
		t.Fatal(err)
	}
}
