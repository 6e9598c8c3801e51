// Package nbd shows a disk to NBD clients: the protocol of the network block
// device, fixed newstyle negotiation, with simple and structured replies, as
// written down in doc/proto.md of the NBD project.
//
// An Export serves one disk to any number of connections. Socket is the
// back-end "socket", which gives each disk a unix socket for qemu, nbdcopy, fio
// and others. Kernel is the back-end "nbd": /dev/nbdN of the kernel's driver, whose
// client is handed its end of a socket pair, with nothing to negotiate.
//
// The kernel must never send a request while the disk has an earlier copy of it.
// Its driver (drivers/block/nbd.c) does that where NBD_ATTR_TIMEOUT is set, and
// where it has several connections: what takes longer than the queue's io_timeout
// is sent again on another one. So there is one connection, which our server keeps
// as busy as several, and no time-out. A request is then repeated only once its
// connection was replaced, and that is noticed at its io_timeout.
//
// One goroutine for each connection reads requests, their payloads straight to
// extents of the disk's arena, and submits them in batches. Whoever completes
// requests writes the replies, from the extents, as far as the socket takes
// them without waiting; the rest is left to a second goroutine of the connection.
package nbd

import "syscall"

// Magic numbers of the protocol.
const (
	magicServer     = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply   = 0x0003e889045565a9
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef
)

// Handshake flags; the server's and the client's have the same values.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Options of the negotiation.
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
)

// Replies to options.
const (
	repAck        = 1
	repServer     = 2
	repInfo       = 3
	repErrUnsup   = 1<<31 + 1
	repErrInvalid = 1<<31 + 3
	repErrUnknown = 1<<31 + 6
	repErrTooBig  = 1<<31 + 9
)

// What an option INFO or GO asks for.
const (
	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3
)

// Transmission flags: what an export can do.
const (
	FlagHasFlags        = 1 << 0
	FlagReadOnly        = 1 << 1
	FlagSendFlush       = 1 << 2
	FlagSendFUA         = 1 << 3
	FlagRotational      = 1 << 4
	FlagSendTrim        = 1 << 5
	FlagSendWriteZeroes = 1 << 6
	FlagSendDF          = 1 << 7
	FlagCanMultiConn    = 1 << 8
)

// Commands of the transmission phase.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
)

// Flags of commands.
const (
	cmdFlagFUA    = 1 << 0
	cmdFlagNoHole = 1 << 1
	cmdFlagDF     = 1 << 2 // one chunk only
)

// Structured replies.
const (
	replyFlagDone      = 1 << 0
	replyTypeOffsetDat = 1
	replyTypeError     = 1<<15 + 1
)

const (
	requestSize    = 28
	simpleSize     = 16
	structuredSize = 20
	dataHeaderSize = structuredSize + 8 // with the offset
	errorReplySize = structuredSize + 6 // with the error and an empty message

	// maxPayload is the largest read or write that is served, the one that
	// clients without knowledge of the server's limits may use.
	maxPayload = 32 << 20
)

// wireErrno returns the protocol's number for the outcome of a request; the
// protocol has just a few.
func wireErrno(e syscall.Errno) uint32 {
	switch e {
	case 0:
		return 0
	case syscall.EPERM, syscall.EROFS, syscall.EACCES:
		return 1
	case syscall.ENOMEM:
		return 12
	case syscall.EINVAL:
		return 22
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return 28
	case syscall.EOVERFLOW:
		return 75
	case syscall.EOPNOTSUPP:
		return 95
	case syscall.ESHUTDOWN:
		return 108
	}
	return 5 // EIO
}
