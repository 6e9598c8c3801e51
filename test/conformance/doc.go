// Package conformance drives the real iscsid against the embedded target, whose
// behaviour is scripted, and judges the bytes on the wire: each area of the
// initiator suites of the University of New Hampshire's InterOperability
// Laboratory (full-feature phase, login, CHAP), and what RFC 7143 asks of an
// initiator beyond them.
//
// What is judged is read from the wire by offsets and values that stand in this
// package, each beside its section of RFC 7143; nothing of the code under test
// takes part in it. Every test's bytes are also held to the rules that hold
// always (always.go).
//
// docs/conformance.md is the table of all tests with their verdicts;
// `go test ./test/conformance -update` writes it.
package conformance
