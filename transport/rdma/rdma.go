// Package rdma is the part of RDMA that a datamover needs, as an interface that
// both the verbs of an RDMA device and a software implementation can give:
// reliable connections with private data, receives into slots, sends, RDMA Write
// and RDMA Read, and memory regions that let a peer reach just what it was lent.
// The words are those of the InfiniBand verbs and of RFC 5040 (RDMAP); nothing
// here knows what the bytes mean.
//
// A connection is driven as a datamover is: things happen between Handler.Enter
// and Handler.Leave, in batches, on the goroutine of whoever found them out (a
// socket's reader, a completion queue's poller). What is posted is queued under
// the handler's lock, and leaves with Flush, outside of it. No operation
// allocates, starts a goroutine, or copies data that lies in the arena.
package rdma

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"iscsictl/arena"
)

var (
	// ErrDisconnected is the cause of Handler.Closed where the peer closed the
	// connection without saying that anything is wrong.
	ErrDisconnected = errors.New("the peer closed the connection")
	// ErrFull is returned by Post where Options.SendDepth requests are
	// outstanding, and by Grant where Options.Regions regions are granted.
	ErrFull = errors.New("rdma: queue full")
	// ErrClosed is returned by a listener that was closed, and is the cause of
	// Handler.Closed where Close was called without one.
	ErrClosed = errors.New("rdma: closed")
)

// RejectedError is returned by Dial where the peer refused the connection.
type RejectedError struct {
	Reason      string // in words, or empty
	PrivateData []byte // of the peer; may be empty
}

func (e *RejectedError) Error() string {
	if e.Reason == "" {
		return "the peer rejected the connection"
	}
	return "the peer rejected the connection: " + e.Reason
}

// Provider makes connections of one kind.
type Provider interface {
	// Name is what a user calls the provider: "verbs", "iwarp".
	Name() string
	// RemoteInvalidate reports whether connections can take a Send with
	// Invalidate for a region that Grant gave out (so that the peer may be told
	// to use it).
	RemoteInvalidate() bool
	// Dial connects to addr, from the local address where that is valid (its
	// port may be 0). It returns when the connection is established; all
	// receives are posted by then.
	Dial(ctx context.Context, addr, local netip.AddrPort, opts Options) (Conn, error)
	// Listen waits for connections at addr; with port 0 at a free one.
	Listen(ctx context.Context, addr netip.AddrPort) (Listener, error)
}

// Listener takes connections in: the passive side.
type Listener interface {
	Addr() netip.AddrPort
	// Accept returns the next request for a connection, ErrClosed after Close,
	// or the error that keeps the listener from going on. A peer that is slow
	// or talks nonsense is dropped without being seen here.
	Accept() (Request, error)
	Close() error
}

// Request is a peer's wish to connect. One of Accept and Reject is to be called.
type Request interface {
	RemoteAddr() netip.AddrPort
	// PrivateData is the peer's, as it came: it may be padded with zeroes, or empty.
	PrivateData() []byte
	// Accept establishes the connection; all receives are posted before the
	// peer learns of it. The depths for RDMA Reads come out as the smaller of
	// ours and what the peer asked for. The active side speaks first: what
	// the passive side posts is held back until something has come.
	Accept(opts Options) (Conn, error)
	Reject(privateData []byte) error
}

// Options shape one connection.
type Options struct {
	PrivateData []byte // for the peer, at most 196 bytes (what every provider can carry)

	// Arena is where all data lies that Post and Grant name. It is registered
	// once, when the connection is made, and stays so until Handler.Closed has
	// been called. nil: there is none (a connection that only sends slots).
	Arena *arena.Arena

	SendDepth    int // requests posted and not yet done, at most
	SendSlots    int // pieces of memory for what is sent besides the arena's data
	SendSlotSize int // their size in bytes

	Receives    int // receive slots, all posted from the start
	ReceiveSize int // their size in bytes: the longest message that can come

	Regions int // regions granted at one time, at most

	// InboundReads is how many RDMA Reads of the peer are answered at a time
	// (IRD, responder_resources), OutboundReads how many we have under way
	// (ORD, initiator_depth). Both are upper limits for what is negotiated.
	InboundReads, OutboundReads int

	DSCP int // 0 to 63; -1: not set
	PCP  int // 0 to 7; -1: not set
}

// Check reports options that no provider can fulfil.
func (o *Options) Check() error {
	switch {
	case len(o.PrivateData) > MaxPrivateData:
		return fmt.Errorf("rdma: %d bytes of private data, over %d", len(o.PrivateData), MaxPrivateData)
	case o.SendDepth < 1 || o.SendSlots < 0 || o.SendSlotSize < 0 || o.Receives < 1 || o.ReceiveSize < 1 || o.Regions < 0:
		return fmt.Errorf("rdma: depths or sizes below what a connection needs (send %d, slots %d of %d bytes, receives %d of %d bytes, regions %d)",
			o.SendDepth, o.SendSlots, o.SendSlotSize, o.Receives, o.ReceiveSize, o.Regions)
	case o.InboundReads < 0 || o.OutboundReads < 0 || o.InboundReads > MaxReads || o.OutboundReads > MaxReads:
		return fmt.Errorf("rdma: read depths %d and %d are not from 0 to %d", o.InboundReads, o.OutboundReads, MaxReads)
	}
	return nil
}

const (
	// MaxPrivateData is the most private data that Options may have, in bytes.
	MaxPrivateData = 196
	// MaxReads is the most RDMA Reads that a connection may have under way in
	// one direction.
	MaxReads = 255
)

// Info describes an established connection.
type Info struct {
	Local, Remote netip.AddrPort
	PrivateData   []byte // the peer's; may be padded with zeroes, or empty
	Provider      string // Provider.Name
	Device        string // RDMA device, or the network interface's name; may be empty
	GID           string // of the device's port; empty where there is none
	Detail        string // for people: what else was negotiated ("MPA 2, CRC32C, MULPDU 1444")
	SendDepth     int
	Receives      int
	InboundReads  int // as negotiated (IRD)
	OutboundReads int // as negotiated (ORD)
	// Revokes reports whether the peer can no longer reach a region once Revoke
	// is done. Where it is false (memory regions of a device are kept), only
	// the end of the connection ends the peer's access.
	Revokes bool
}

// Key names a region to the peer: an STag, or an R_Key.
type Key uint32

// Access is what a peer may do to a region.
type Access uint8

// The kinds of access.
const (
	RemoteRead Access = 1 << iota
	RemoteWrite
)

// Region is memory that the peer can reach, as it is advertised to the peer.
// There is no valid region with Key 0.
type Region struct {
	Key  Key
	Addr uint64 // of its first byte: tagged offset, or remote address
}

// Op is a kind of request.
type Op uint8

// The kinds of request.
const (
	OpSend           Op = iota // into the peer's next receive slot
	OpSendInvalidate           // and the peer's region Remote.Key becomes invalid
	OpWrite                    // RDMA Write to the peer's memory at Remote
	OpRead                     // RDMA Read from the peer's memory at Remote
)

// WorkRequest is one operation to post. Slot and Head are for sends only; Data,
// within Options.Arena, may be empty. A Write of no bytes to the zero Region
// does nothing but to reach the peer's provider.
type WorkRequest struct {
	ID     uint64 // the user's, for Handler.Done
	Op     Op
	Signal bool         // Done is wanted at once; else it may come with later events
	Slot   int          // send slot whose first Head bytes are sent
	Head   int          // in bytes; 0: Slot is not looked at
	Data   arena.Extent // sent after the head; a Write's source; a Read's sink
	Remote Region       // OpWrite, OpRead; its Key: OpSendInvalidate
}

// Conn is an established connection. Post, Repost, Grant, Revoke and Handover are called
// with the handler's lock (between Enter and Leave, or before Start); Start,
// Flush and Close without it. It may be a wait.Lender, whose Lend is called without
// the lock, after Start.
type Conn interface {
	Info() Info
	// SendSlot returns the memory of a send slot, 0 to Options.SendSlots-1,
	// which must not be written to while a request that names it is not done,
	// nor touched at all after Handler.Closed.
	SendSlot(i int) []byte

	// Start begins to deliver events. Nothing is received before it, and what
	// is posted before it may wait for it.
	Start(h Handler)
	// Handover makes h the handler of all further events. The caller holds the lock
	// of the handler so far, whose Leave is the last that is called of it, and
	// does nothing more to the connection under that lock.
	Handover(h Handler)

	// Post queues a request. Requests are executed in order; a Read may still
	// be under way while later ones begin. An error leaves nothing queued:
	// ErrFull, or a request that names what does not exist. After the end of
	// the connection requests are swallowed: Done does not follow.
	Post(w WorkRequest) error
	// Repost gives a receive slot back to receive into, once its data are used up.
	Repost(slot int)
	// Grant lets the peer reach an extent of the arena until it is revoked. id
	// is the user's, for Handler.Revoked. A provider may let the peer reach
	// the whole block that the arena gave out for the extent, never more.
	Grant(id uint64, e arena.Extent, a Access) (Region, error)
	// Revoke ends what Grant began (also for a region that the peer has
	// invalidated). It reports whether nothing refers to the extent any more;
	// where it reports false, Handler.Revoked follows when that is so.
	Revoke(r Region) bool
	// Flush sends what is queued, as far as can be done without blocking; the
	// connection does the rest by itself.
	Flush()
	// Close drops the connection: queued requests may be lost. Handler.Closed
	// follows with err, from another goroutine, when all has stopped. Further
	// calls do nothing. Where Start has not been called, all has stopped when
	// Close returns, and Closed follows only if Start is called after all.
	Close(err error)
}

// Handler takes in the events of a connection. Enter takes the user's lock;
// Received, Done and Revoked are called between Enter and Leave, Closed
// without. An error that one of them returns ends the connection, and is the
// cause that Closed is told.
type Handler interface {
	Enter()
	// Leave ends a batch of events: it gives up the lock, and flushes.
	Leave()
	// Received hands over a message of the peer. data is in a receive slot and
	// stays there until the slot is given to Repost. invalidated is the key of
	// the region that the peer has invalidated with the message, or 0.
	Received(slot int, data []byte, invalidated Key) error
	// Done ends a request: nothing refers to its slot and data any more, and
	// a Read's data are there. Requests are done in the order of Post.
	Done(id uint64) error
	// Revoked: nothing refers to the extent any more that Grant was given with
	// this id, after a Revoke that reported false.
	Revoked(id uint64) error
	// Closed is called once, as the last event, when nothing touches any memory
	// of the connection any more: neither the arena nor slots. Requests and
	// regions that are not done or revoked by then are the caller's again.
	Closed(err error)
}
