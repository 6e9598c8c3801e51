// Package simulation plays a session with a target on a simulated network and
// clock, one seed a run: the initiator's own session, datamover and disk rules,
// without a goroutine or a socket, against a target model that accepts bytes in
// pieces, answers in any order, says BUSY, vanishes, resets, lies, and comes
// back with other parameters, while the network cuts connections at any byte.
//
// A checker holds what the host was told: no write that was acknowledged is
// lost, no read returns bytes that were never written there or were not
// received, no write of an old nexus lands after a new one has answered, no
// request is completed twice or never, memory is given back, and all comes to
// an end when the network is well. The target model holds the initiator to the
// protocol: sequence numbers, window, bursts, offsets, tags.
//
// A run is decided by its seed alone. `go test` plays 50,000; what fails names
// its seed, and SIM_SEED=N plays it again with a log. SIM_RUNS says how many.
package simulation
