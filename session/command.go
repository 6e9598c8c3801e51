package session

import (
	"errors"
	"time"

	"iscsictl/arena"
	"iscsictl/iscsi"
)

// SenseMax is how much sense data of a command is kept, in bytes (SPC-4 §4.5:
// descriptor and fixed format sense data is at most 252).
const SenseMax = 252

// Command is a SCSI command, from Submit to its completion. It belongs to the
// issuer, who must not touch it in between, and who may use it again after.
type Command struct {
	LUN       uint64 // as on the wire: SAM-5 §4.7, big-endian
	CDB       [16]byte
	Attribute iscsi.TaskAttribute
	Out       arena.Extent  // data to be sent, or none
	In        arena.Extent  // place for data to be received, or none
	Timeout   time.Duration // 0: the session's command time-out
	Issuer    Issuer
	Context   any // the issuer's own

	// Nexus is the number of the nexus that the command was sent on, or that
	// was the last one when there was none to send it on.
	Nexus uint64

	// The outcome. Err is nil where the target answered: then the others say how.
	Err      error
	Response uint8 // iscsi.ResponseCompleted or a target's failure (RFC 7143 §11.4.3)
	Status   uint8 // SCSI status (SAM-5 §5.3)
	Overflow bool  // the target had more data than In or Out hold
	Residual uint32
	Received int // bytes of In that were filled, from its start
	SenseLen int
	Sense    [SenseMax]byte

	next    *Command // the session's queue
	started time.Duration
}

// Issuer is told of completed commands, in batches, by any goroutine and
// without any lock held. It must not block, must not keep the slice, and may
// submit further commands.
type Issuer interface {
	Complete(done []*Command)
}

var (
	// ErrNexusLost completes commands that were on the nexus when it was
	// lost, or that came while there was none. The target may have executed
	// them, or may still do so until the next Handler.Up: only then may they be
	// sent again. Their extents are free of any use when they complete.
	ErrNexusLost = errors.New("session: nexus lost")
	// ErrTimedOut completes commands whose time was up and that the target
	// has then forgotten (task management has succeeded). They may be sent again.
	ErrTimedOut = errors.New("session: command timed out and was aborted")
	// ErrRejected completes commands that the target rejected (RFC 7143 §11.17).
	ErrRejected = errors.New("session: command rejected by the target")
)

// Handler is told what happens to a session. Its methods are called one at a
// time, by the session's own goroutine, and must not block for long.
type Handler interface {
	// Up: full-feature phase. The nexus is new: the target has forgotten
	// whatever was sent on an older one. Numbers rise, from 1.
	Up(nexus uint64)
	// Down: the nexus is lost, or could not be had. All commands of it were completed.
	Down(err error)
	// Async: the target sent sense data by itself (RFC 7143 §11.9, event 0),
	// for instance REPORTED LUNS DATA HAS CHANGED.
	Async(lun uint64, sense []byte)
}
