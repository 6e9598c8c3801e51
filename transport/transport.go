// Package transport is the border between the session layer and what carries
// its PDUs: the datamover of RFC 5047. A session hands a datamover commands with
// the extents of their data and is handed back responses; how the data moves
// (immediate data, R2T, Data-In and Data-Out on TCP; RDMA with iSER) is the
// datamover's business and the session has no branch on it.
//
// A connection begins in the login phase, in which login PDUs go one at a time
// (Conn.Send, Conn.Receive), and is then enabled for the full-feature phase, in
// which a Mover works for a Session. The protocol rules of both are state
// machines without I/O: they are entered with events (Session.Enter ...
// Session.Leave) by whoever drives the connection: a socket's reader, a
// completion queue, a ring.
package transport

import (
	"context"
	"net/netip"
	"time"

	"iscsictl/arena"
	"iscsictl/iscsi"
)

// Dialer opens connections of one kind.
type Dialer interface {
	// Dial connects to addr (a numeric address with its port), from the
	// local address where that is valid.
	Dial(ctx context.Context, addr, local netip.AddrPort, opts DialOptions) (Conn, error)
}

// DialOptions are what a connection needs to know before it is opened.
type DialOptions struct {
	DSCP  int          // 0 to 63; -1: not set
	PCP   int          // 0 to 7; -1: not set
	Arena *arena.Arena // of the session's data; nil for discovery
	Tasks int          // size of the session's task table
}

// Conn is one connection in the login phase. Send and Receive may be called by
// one goroutine each; Close by any, and it ends both.
type Conn interface {
	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
	// SetDeadline bounds Send and Receive, as net.Conn's does.
	SetDeadline(time.Time) error
	// Send sends one PDU with its data segment. It pads, and sets no field.
	Send(h *iscsi.BHS, data []byte) error
	// Receive returns the next PDU. data is valid until the next call. A PDU
	// with more than 8192 bytes of data (RFC 7143 §13.12: the default that
	// holds until negotiation) is an error.
	Receive() (h iscsi.BHS, data []byte, err error)
	// Offers returns the keys that this kind of datamover negotiates in its
	// own way in the operational stage.
	Offers() Offers
	// Enable enters the full-feature phase with what login negotiated
	// (Enable_Datamover and Notice_Key_Values of RFC 5047). From here on Conn's
	// methods but Close and the addresses are not to be called. Nothing is
	// received before Start is called on the mover.
	Enable(p Params, s Session) Mover
	// Facts says what else there is to know of the connection, for people.
	Facts() []Fact
	// Close drops the connection. Before Enable, it is all that is needed.
	Close() error
}

// Fact is something to be shown of a connection.
type Fact struct {
	Name  string // lowerCamelCase, for programs
	Label string // for people
	Value string
}

// Offers says what login may offer on a kind of datamover.
type Offers struct {
	Digests                   bool                                 // HeaderDigest and DataDigest may be CRC32C; else None alone is offered
	MaxRecvDataSegmentLength  int                                  // to declare; 0: the key is not sent (iSER)
	MaxBurstLength            int                                  // to offer
	FirstBurstLength          int                                  // to offer
	ImmediateData, InitialR2T bool                                 // to offer
	MaxOutstandingR2T         int                                  // to offer
	MaxTransfer               int                                  // data of one command that can be relied on, in bytes; 0: any. Not negotiated
	LooseStatSN               bool                                 // a StatSN that is not the next says nothing (see Session.Numbers). Not negotiated
	Extra                     []iscsi.KeyValue                     // further keys (iSER's), whose answers are checked by Check
	Check                     func(answers []iscsi.KeyValue) error // may be nil
}

// Params are the outcome of login, as the full-feature phase needs it.
type Params struct {
	HeaderDigest, DataDigest bool // CRC32C
	MaxRecvDataSegmentLength int  // what we declared
	MaxSendDataSegmentLength int  // what the target declared
	MaxBurstLength           int
	FirstBurstLength         int
	ImmediateData            bool
	InitialR2T               bool
	MaxOutstandingR2T        int
	DataPDUInOrder           bool
	DataSequenceInOrder      bool
	DefaultTime2Wait         time.Duration
	DefaultTime2Retain       time.Duration
	ErrorRecoveryLevel       int
	MaxTransfer              int              // Offers.MaxTransfer
	LooseStatSN              bool             // Offers.LooseStatSN
	Extra                    []iscsi.KeyValue // answers to Offers.Extra
}

// Task is one SCSI command on the wire. It belongs to the session, which hands
// it to the mover with Mover.Command and has it back with Session.Done, or with
// the end of the connection.
type Task struct {
	Index   int               // in the task table: 0 to DialOptions.Tasks-1
	Command iscsi.SCSICommand // complete but for ExpStatSN, Final and the segment lengths
	Out     arena.Extent      // data to be sent; its length is the expected one
	In      arena.Extent      // place for data to be received; likewise
}

// Result is how the target ended a task.
type Result struct {
	Response  uint8 // iscsi.ResponseCompleted or ResponseTargetFailure
	Status    uint8 // SCSI status
	Underflow bool
	Overflow  bool
	Residual  uint32
	Aborted   bool   // ended by Mover.Abort; nothing else is set
	Received  int    // bytes of Task.In that were filled, from its start without a gap
	Sense     []byte // sense data, valid during the call only
}

// Session is what a datamover sees of the session that it works for. Enter
// takes the session's lock; everything else is called between Enter and Leave.
// An error that one of them returns means that the connection is to be dropped:
// the mover passes it on with Down.
type Session interface {
	Enter()
	// Leave ends a batch of events: it gives up the lock, flushes the mover
	// and delivers completions.
	Leave()
	// Numbers takes in the sequence numbers of a PDU (every PDU in
	// full-feature phase, those included that the mover keeps). hasStatus
	// says that the PDU has a StatSN of its own that is to be acknowledged:
	// not for Data-In without status, R2T, or NOP-In that asks nothing.
	Numbers(hasStatus bool, statSN, expCmdSN, maxCmdSN uint32) error
	// ExpStatSN is what the next PDU that is sent acknowledges.
	ExpStatSN() uint32
	// Task returns the task of an initiator task tag, or nil where there is none.
	Task(itt uint32) *Task
	// Done ends a task: the target has answered, and no queued write and no
	// read in progress refers to its extents.
	Done(t *Task, r *Result) error
	// Control takes in any other PDU: NOP-In, task management, text, logout,
	// async message, reject. data is valid during the call only.
	Control(h *iscsi.BHS, data []byte) error
	// Down ends the connection, once. The mover has stopped: nothing refers
	// to any task's extents any more.
	Down(err error)
}

// Mover moves the PDUs and the data of one connection in full-feature phase.
// Start, Flush and Close are called without the session's lock, the others with it.
// It may be a wait.Lender, whose Lend is called without the lock, after Start.
type Mover interface {
	// Start begins to receive.
	Start()
	// Command sends a command and sees to its data.
	Command(t *Task)
	// Control sends another PDU, whose data is copied, and whose ExpStatSN the
	// mover fills in when it queues the PDU.
	Control(h *iscsi.BHS, data []byte)
	// Abort ends a task that the target has forgotten (its task management
	// response has come). Session.Done follows with Result.Aborted, during the
	// call or later, once nothing refers to the task's extents.
	Abort(t *Task)
	// Flush writes what is queued, as far as can be done without blocking;
	// the mover does the rest by itself.
	Flush()
	// Close drops the connection: Session.Down follows with err, from
	// another goroutine, when all has stopped. Further calls do nothing.
	Close(err error)
}
