// Package iser is the datamover of iSCSI Extensions for RDMA (RFC 7145): PDUs
// travel as messages behind the iSER header, and the data of a command moves by
// RDMA: the target writes it to, or reads it from, the memory that the command
// advertises. Nothing is copied here.
//
// Which verbs do the work is package rdma's matter. rules.go is a state machine
// between the session and a connection of that package, both of which enter it
// under the session's lock.
package iser
