// Package session is the iSCSI initiator's session layer (RFC 7143): it connects
// to a target's portal, logs in (package login), and carries SCSI commands on
// the I_T nexus until it is lost, then reinstates it, for ever.
//
// nexus.go and the files beside it hold the rules of the full-feature phase: the
// command window, task tags, keep-alive, task management, logout, asynchronous
// messages. They are a state machine that has no socket, goroutine or clock;
// it is entered with events under the session's lock, by whoever brings them,
// and leaves completions behind, which are delivered in batches without the
// lock. session.go drives it: one goroutine for each session.
package session
