// Package tcp is the datamover of plain iSCSI (RFC 7143): PDUs framed on a TCP
// connection, data moved by immediate and unsolicited data, by Data-Out in
// answer to R2T, and by Data-In.
//
// The rules (rules.go) and the framing in both directions (receive.go,
// send.go) are state machines on memory, entered under the session's lock.
// conn.go drives them with a socket: one goroutine reads; whoever has queued
// something writes it without blocking, and a second goroutine takes over
// where the socket is full. A socket that is lent (lend.go) is read, and written
// to where it was full, by the thread that has it, and both goroutines wait.
package tcp
