// Package device is about what the host sees of a disk: the interface between
// a disk and the ways to show it to the host (an NBD socket, a loop device over
// FUSE, and others), which live in the folders below. It knows nothing of SCSI.
//
// A back-end reads requests from the host, borrows an extent of the disk's
// arena for each one's data, and hands them to the disk in batches; the disk
// completes them in batches too, in any order. Nothing here allocates or starts
// a goroutine for a request.
package device

import (
	"context"
	"errors"
	"syscall"

	"iscsictl/arena"
)

// Op is what a request asks for.
type Op uint8

// The requests of a host.
const (
	Read Op = iota
	Write
	Flush       // make all that was completed before durable; no range
	Discard     // the range's content is not needed any more
	WriteZeroes // the range is to read as zeroes
)

// Request is one block request of the host. The back-end owns it, sets it up,
// submits it, and has it back when its Queue is told of its completion. It must
// not be touched in between.
type Request struct {
	Op      Op
	FUA     bool         // Write, WriteZeroes: durable before it is completed
	NoUnmap bool         // WriteZeroes: blocks must stay allocated
	Offset  int64        // bytes; a multiple of the logical block
	Length  int64        // bytes; a multiple of the logical block
	Data    arena.Extent // Read, Write: Length bytes; the back-end's to free
	Queue   Queue        // told when the request is done
	Tag     uint64       // the back-end's own

	// Errno is the outcome: 0, or what the host is told (EIO, ENOSPC,
	// EROFS, EOPNOTSUPP, EINVAL, EBADE for a reservation conflict, …).
	Errno syscall.Errno

	// Disk is for the disk's own use between Submit and completion.
	Disk DiskState
}

// DiskState is the disk's bookkeeping in a request.
type DiskState struct {
	Next    *Request // the disk's list
	Done    int64    // bytes handed out as tasks
	Pending int32    // tasks under way
	Start   int64    // nanoseconds, when it came
}

// Queue is told of completed requests. Complete may be called by any goroutine,
// with requests of this queue only; it must not block and must not keep the
// slice. It may submit further requests. A disk may call it from within Submit.
type Queue interface {
	Complete(done []*Request)
}

// Disk is what a back-end shows to the host. It may be a wait.Attended.
type Disk interface {
	// Geometry returns the disk's present size and limits.
	Geometry() Geometry
	// Arena returns where the extents of requests come from.
	Arena() *arena.Arena
	// Submit hands requests over. It may be called by any goroutine, does not
	// block, and does not keep the slice. Every request completes, once, in
	// any order. A request out of range, not aligned or larger than the limits
	// completes with EINVAL (or ENOSPC beyond the end).
	Submit(batch []*Request)
}

// Geometry is a disk's size and limits. Sizes are in bytes.
type Geometry struct {
	Size          int64
	LogicalBlock  int // 512 or 4096: the unit of offsets and lengths
	PhysicalBlock int // at least LogicalBlock
	MinimumIO     int // smallest that costs no more than is needed; 0 where the disk does not say
	OptimalIO     int // 0 where the disk does not say
	MaxTransfer   int // largest Read or Write; a multiple of LogicalBlock
	ReadOnly      bool
	WriteCache    bool // volatile cache: Flush matters
	FUA           bool // FUA is honoured
	Rotational    bool
	DiscardMax    int64 // largest Discard; 0: not offered
	DiscardUnit   int   // granularity
	DiscardAlign  int   // where the first unit begins
	ZeroesMax     int64 // largest WriteZeroes; 0: not offered
}

// Name identifies a disk to the host.
type Name struct {
	Session uint32 // session id
	LUN     uint64 // logical unit number as people write it
	Target  string // iSCSI name of the target
	Serial  string // VPD 80 or 83, printable; may be empty
}

// Backend is one way to show disks to the host.
type Backend interface {
	// Name is its name in configuration and listings: "socket", "loop".
	Name() string
	// Probe returns nil where it can be used here, and else why not.
	Probe() error
	// Attach shows a disk. ctx bounds the attaching only.
	Attach(ctx context.Context, disk Disk, name Name) (Device, error)
	// Clean takes away what a daemon that died has left behind, and says
	// what that was, a line each.
	Clean() []string
}

// Recoverer is a Backend whose devices outlive the daemon: their users wait
// until a daemon takes them back.
type Recoverer interface {
	Backend
	// Recover takes back the device of that path, which an earlier daemon
	// has left. Requests that were under way come again. Where it fails the
	// device goes on to wait.
	Recover(ctx context.Context, path string, disk Disk, name Name) (Device, error)
	// Discard takes away a device that waits; its requests fail.
	Discard(path string) error
	// Waiting returns the paths of the devices that wait.
	Waiting() []string
	// Left reports whether the device of that path is the disk of that name,
	// and of another daemon: it waits, or will as soon as that one is dead.
	// Recover then waits for it, until its context ends.
	Left(path string, name Name) bool
}

// Announcer is a Backend that knows what a device will be called before the
// host sees it.
type Announcer interface {
	Backend
	// Announce has f told of each such name, as Device.Path will return it,
	// from within Attach.
	Announce(f func(name Name, path string))
}

// Device is a disk that the host sees.
type Device interface {
	// Path is what the listing shows: "loop0" for /dev/loop0, else a full path.
	Path() string
	// Update tells the host of a changed geometry; an error says what the
	// host could not be told, and what to do.
	Update(Geometry) error
	// Reserve keeps new users away from an idle device until Release or
	// Detach. Where the device is in use it keeps nothing and returns an
	// error that is ErrInUse, with who uses it, as far as can be known.
	Reserve() (users []User, err error)
	Release()
	// Detach takes the device away from the host, also from those who use
	// it still. Requests that are under way complete first, with an error
	// where the disk fails them. Where an error is returned, it says what
	// of the device is left; calling Detach again does nothing more.
	Detach() error
	// Outlives says whether the device goes on existing, with its users'
	// requests waiting, when the daemon dies.
	Outlives() bool
}

// ErrInUse is returned for a device that somebody uses.
var ErrInUse = errors.New("the device is in use")

// User is one who has a device open.
type User struct {
	PID  int    // 0 for the kernel (mounts, swap, device mapper)
	What string // "mounted on /mnt", "held by dm-0", "process fio"
}
