// Package iwarp is iWARP in software, on a TCP socket and in user space: MPA
// (RFC 5044, with the enhanced connection setup of RFC 6581), DDP (RFC 5041)
// and RDMAP (RFC 5040), active and passive. It gives package rdma's interface
// to hosts without an RDMA device, and talks to the kernel's siw, to iWARP
// adapters, and to itself.
//
// Payload is read from the socket straight into the memory that it is for, and
// written from where it lies: the socket's own copy is the only one. (Pieces
// below 16 KiB that arrived together with others are taken from the read-ahead
// buffer instead, which costs less than a system call.) Bounds are checked
// before anything is placed; a wrong CRC shows only afterwards, and ends the
// connection before anyone is told of the data.
//
// Left out: markers (a peer that demands them is refused), which also means
// that FPDUs need not be aligned with TCP segments, as no user-space socket
// could promise; and the multiple connections per stream of RDMAP's terms.
package iwarp
