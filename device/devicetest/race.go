//go:build race

package devicetest

// RaceEnabled reports whether the race detector is on, which allocates.
const RaceEnabled = true
