package target

import "iscsictl/iscsi"

// datamover carries PDUs, and the data of SCSI commands in its own way (the
// word is RFC 5047's): as PDUs on a TCP stream, or by RDMA (RFC 7145). What
// commands mean is not its business. All of it but open, close and end is
// called with the connection's lock.
type datamover interface {
	// open establishes the connection.
	open() error
	// receive waits for the next PDU and returns its header, which is valid
	// until the next call. Before it waits it sends what is queued; meanwhile
	// the lock is let go.
	receive() (*iscsi.BHS, error)
	// segment takes the next n bytes of the PDU's data segment, which go to
	// the task's data at off; without a task they are dropped. It reports
	// whether the digest was right.
	segment(n int, t *task, off uint32) (intact bool, err error)
	// collect takes all n bytes of the PDU's data segment into conn.data.
	collect(n int) (intact bool, err error)

	// queue queues the PDU whose header is in conn.h. With ref, data must stay
	// as it is until it was sent. Errors are kept in conn.err.
	queue(data []byte, ref bool, as distortion)
	// sendData moves total bytes to the initiator, of the unit from byte off,
	// or of conn.params if there is no unit, and ends the command with its
	// status. full is how many bytes the command has.
	sendData(cmd *scsiCommand, u *unit, off, total, full int64, f *Fault)
	// fetch asks for data of a write. false means that there is no room for
	// them now: proceed is called for the task when there is.
	fetch(t *task, b burst) bool
	// burstLimit is the most that is fetched at a time, in bytes, and how many
	// fetches of a task may be under way.
	burstLimit() (size uint32, outstanding int)
	// settle waits until no fetch is under way.
	settle()

	// flush sends what is queued; drain waits until all of it has left.
	flush() error
	drain()
	// suspend stops all that happens beside the conn's goroutine until resume.
	suspend()
	resume()

	// raw sends bytes that are no PDU, and truncated the first n bytes of the
	// PDU in conn.h and of its data: for faults.
	raw(b []byte) error
	truncated(n int, data []byte)

	// close ends the connection. Anyone may call it.
	close()
	// end gives memory back, after close, once nothing refers to it.
	end()
}

// distortion is what a fault does to a PDU that is sent.
type distortion struct {
	header, data bool   // TCP: the digest is wrong
	invalidate   *Fault // iSER: an STag is invalidated that should not be
	excess       int    // iSER: bytes of data that no receive has room for
}
