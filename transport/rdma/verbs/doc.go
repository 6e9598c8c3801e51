// Package verbs gives package rdma's interface by an RDMA device: the verbs of
// libibverbs, with librdmacm's connection management (InfiniBand, RoCE, iWARP).
//
// It needs the libraries' headers to be built, with cgo and the build tag rdma,
// and the libraries themselves only when a connection is made: they are opened
// then, and not linked to. Without any of these, Dial and Listen say what is
// missing and what to do, and so does Probe.
//
// # Memory
//
// A connection has a protection domain of its own: what it registers, no other
// connection's peer can reach. Of the arena, a block is registered when it is
// first lent to the peer (or first sent from), as one memory region for each
// kind of access, and the region is kept for the next time: in the steady state
// nothing is registered. What is kept is bounded, in regions and in bytes; the
// region that was unused longest goes first. A block is the smallest one of
// 2^n pages, at a multiple of its size, that has the extent in it, and so never
// more than the arena gave out for it. The price: a key that was lent stays
// valid for its block until the connection ends (rdma.Info.Revokes is false).
//
// How well the device keeps the peer to that is its affair: Linux's siw, which is
// for trying things out, lets it read any region of the connection.
//
// Slots are registered for this host's own use only. Pages that are registered
// count against RLIMIT_MEMLOCK, which is raised where the process may do that.
//
// # Events
//
// Both event channels are parked in Go's network poller. A wake-up takes one
// call into C, which takes what has completed, and one more at most that posts
// what was queued meanwhile: receives first, then sends, each as one list. That
// goes on without a further system call but for the posting until nothing has
// completed; only then is the next event asked for.
package verbs
