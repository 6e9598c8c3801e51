package main

import (
	"math"
	"testing"
	"time"
)

// TestBuckets checks that buckets are in order, and that none is wider than a
// 64th of its values.
func TestBuckets(t *testing.T) {
	last := -1
	for _, v := range []uint64{0, 1, 63, 64, 65, 127, 128, 129, 130, 1000, 1 << 20, 1<<20 + 1<<14, 1 << 40, math.MaxInt64} {
		b := bucketOf(v)
		if b < last || b >= buckets {
			t.Errorf("bucket of %d is %d, after %d and of %d", v, b, last, buckets)
		}
		last = b
		if got := valueOf(b); math.Abs(float64(got)-float64(v)) > float64(v)/sub {
			t.Errorf("%d is taken for %d", v, got)
		}
	}
	for b := range bucketOf(math.MaxInt64) {
		if got := bucketOf(uint64(valueOf(b))); got != b {
			t.Fatalf("the middle of bucket %d is in bucket %d", b, got)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var a, b histogram
	for i := range 500 {
		a.add(time.Duration(i) * time.Microsecond)
		b.add(time.Duration(500+i) * time.Microsecond)
	}
	b.add(-1)
	a.merge(&b)
	if a.n != 1001 || a.max != 999*time.Microsecond {
		t.Errorf("%d values up to %v", a.n, a.max)
	}
	for _, c := range []struct{ q, want float64 }{{0, 0}, {0.5, 500}, {0.99, 990}, {1, 999}} {
		if got := microseconds(a.quantile(c.q)); math.Abs(got-c.want) > c.want/sub+1 {
			t.Errorf("quantile %v is %v µs, want %v", c.q, got, c.want)
		}
	}
	if got := microseconds(a.mean()); math.Abs(got-499) > 1 {
		t.Errorf("mean %v µs", got)
	}
	var empty histogram
	if empty.quantile(0.5) != 0 || empty.mean() != 0 {
		t.Error("an empty histogram has values")
	}
	if n := testing.AllocsPerRun(100, func() { a.add(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
