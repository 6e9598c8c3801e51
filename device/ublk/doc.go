// Package ublk shows a disk as /dev/ublkbN by the kernel's user-space block
// driver, ublk (Documentation/block/ublk.rst of Linux, 6.5 and later): the
// driver hands requests of the block layer to this process through io_uring
// and takes their outcome back the same way.
//
// A device outlives the daemon (UBLK_F_USER_RECOVERY and its REISSUE): when the
// process dies, whoever uses the device waits, and requests that were under way
// come again once Backend.Recover has taken the device back.
//
// # Memory
//
// The driver knows three ways for the data of a request. By default each tag
// has a buffer for good, which for 128 tags of 1 MiB is 128 MiB of every disk's
// arena, used or not. With zero copy the pages have no address in this process,
// so that neither a socket nor an RDMA adapter can be given them. We have
// UBLK_F_USER_COPY: data is copied by pread and pwrite on /dev/ublkcN, once, to
// and from any memory, when we say. So a request borrows an extent of the arena
// for just as long as it is under way, and TCP's Data-In or an RDMA Write lands
// in that extent. Where the arena is exhausted, requests wait for memory in
// their order, by the queue's feeder goroutine, while the queue goes on with
// those that need none and with what the disk completes.
//
// # Goroutines
//
// The driver takes commits of a queue from one thread only. Each queue has a
// goroutine that is locked to its thread, with an io_uring of its own. It waits
// in io_uring_enter for requests, and hands them to the disk in batches. The
// disk completes from any goroutine: that puts the batch on the queue's list,
// and writes to an eventfd only if the queue's goroutine sleeps, which is what
// costs (tens of microseconds on a small machine), once for a batch.
//
// The goroutine attends to the disk (wait.Attended): where it is lent the
// session's connection, it polls that as well, takes in what comes, and so
// mostly completes its own requests, with nobody to be woken (watch.go).
//
// The queue's goroutine copies, both ways: for writes before it submits, for
// reads before it commits. Who reads for the session could do the latter, but
// all disks of the session wait for that one, and it copies out of the socket
// already; the queue's has to be awake for the commit anyway. It also makes the
// copy and the commit of a tag one after the other by nature: no late completion
// can write to the request that has the tag next. Copies go by system calls of
// their own: the driver's file has no non-blocking I/O, so that io_uring would
// hand each copy to a worker thread.
//
// # Ends
//
// The kernel's search for partitions within START_DEV reads from the disk, and
// STOP_DEV waits for all requests: both are for other goroutines than a queue's.
// Where the disk does not answer in time, the host is told that its requests
// failed. The disk keeps those, with their memory, until it is done with them,
// while their tags are free.
package ublk
