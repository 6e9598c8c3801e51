// Package zerocopy shows that the payload of a disk's requests is not copied in
// this process where an RDMA device moves it: while the payload is under way,
// this process has no access to its memory, so that whoever touched it would
// die of a fault.
//
// A request goes the whole way: disk, session, iSER, provider. In between, guard
// wraps the provider. It notes what memory is lent to the target, which must be
// the request's own, and takes the access to it away with mprotect(2). The
// device reaches the pages all the same: it has pinned them before, and does not
// go by the process's page table.
package zerocopy
