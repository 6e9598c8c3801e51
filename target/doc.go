// Package target is an iSCSI target (RFC 7143) for demonstrations, for tests
// and for measuring initiators. It is not a product: it keeps no promise about
// the data given to it, and it can be told to break the protocol on purpose.
//
// It stands on the wire format of package iscsi, and for iSER on software iWARP
// (transport/rdma/iwarp), alone. Login, key negotiation,
// CHAP, the command window, R2T and residuals are written here a second time,
// so that a mistake in the initiator of this project is not confirmed by the
// same mistake at its peer. For the same reason it is strict: what RFC 7143
// forbids an initiator to do ends the connection, with a log line that says
// what it was.
//
// A [Server] is made from a [Config] and serves the listeners that it is
// given. Every connection has one goroutine that carries out commands as they
// come. How PDUs and data travel is apart from that:
//
//   - On TCP it reads a large piece of the stream, carries out the commands in
//     it where it finds them, and writes all answers with one vectored write
//     before it reads again. Data of logical units in memory goes to the socket
//     from where it lies.
//   - With iSER (RFC 7145, [Server.ServeISER]) PDUs are messages, the data of
//     reads leaves by RDMA Write and that of writes is fetched by RDMA Read,
//     through a piece of memory that the connection has for it: one copy more
//     than an adapter would make. Send with Invalidate is used where the
//     initiator's private data permits it. The first command must be answered
//     before more may come, as with the Linux kernel's target.
//
// Faults are data ([Fault]): each says which PDU it waits for and what goes
// wrong then. Those of iWARP itself belong to a portal ([IWARP]).
//
// Limits: one connection to a session (MaxConnections=1), error recovery
// level 0, no persistent reservations, no bidirectional commands. With iSER:
// 128 commands at a time, data segments of 8192 bytes, no Hello exchange.
package target
