// Package wait lets a thread that waits in the kernel anyway, such as for the
// requests of a block device, wait for a connection as well: what arrives there
// is then taken in, and answered, without another thread's being woken.
package wait

// Thread is who waits. Its methods may be called by any goroutine.
type Thread interface {
	// Watch has the thread wait for s, until it gives it back with s.Return.
	// Where it waits for nothing any more, Watch returns false.
	Watch(s Source) bool
	// Wake has the thread look again at what its sources wait for.
	Wake()
}

// Source is what is waited for: a descriptor, with what there is to be done
// when it is ready. Its methods but Full are called by the thread alone, from
// Watch to Return.
type Source interface {
	// FD is the descriptor; it stays the same, and open, until Return.
	FD() int
	// Readable takes in what is there, without blocking. Where it returns
	// false the descriptor has nothing more to give.
	Readable() bool
	// Full reports whether there is something to be written for which there
	// was no room. The thread then also waits for room, and calls Writable.
	Full() bool
	Writable()
	// Return ends the waiting. The thread has no use of the descriptor any more.
	Return()
}

// Attended is what has connections for a thread to wait for, now and later.
type Attended interface {
	// Attend offers a thread. Of several, the first waits.
	Attend(Thread)
	// Dismiss ends that. What the thread has it returns by itself; by
	// Watch it may yet be asked.
	Dismiss(Thread)
}

// Lender is a connection that can be lent to a thread.
type Lender interface {
	// Lend lends it as soon as that can be, and no other thread has it; nil
	// takes back what was asked for and has not come about.
	Lend(Thread)
}
