// Package target is an iSCSI target (RFC 7143) for demonstrations, for tests
// and for measuring initiators. It is not a product: it keeps no promise about
// the data given to it, and it can be told to break the protocol on purpose.
//
// It stands on the wire format of package iscsi alone. Login, key negotiation,
// CHAP, the command window, R2T and residuals are written here a second time,
// so that a mistake in the initiator of this project is not confirmed by the
// same mistake at its peer. For the same reason it is strict: what RFC 7143
// forbids an initiator to do ends the connection, with a log line that says
// what it was.
//
// A [Server] is made from a [Config] and serves the listeners that it is
// given. Every connection is one goroutine: it reads a large piece of the
// stream, carries out the commands in it where it finds them, and writes all
// answers with one vectored write before it reads again. Data of logical units
// in memory goes to the socket from where it lies.
//
// Faults are data ([Fault]): each says which PDU it waits for and what goes
// wrong then.
//
// Limits: one connection to a session (MaxConnections=1), error recovery
// level 0, no persistent reservations, no bidirectional commands.
package target
