package ublk

import "unsafe"

// What follows is linux/ublk_cmd.h, in the order that it has there. Commands
// are in the form of ioctl numbers, which is the only one that kernels have to
// understand (UBLK_F_CMD_IOCTL_ENCODE).

// Commands to /dev/ublk-control.
var (
	cmdGetDevInfo        = iocR(0x02, unsafe.Sizeof(ctrlCmd{}))
	cmdAddDev            = iocWR(0x04, unsafe.Sizeof(ctrlCmd{}))
	cmdDelDev            = iocWR(0x05, unsafe.Sizeof(ctrlCmd{}))
	cmdStartDev          = iocWR(0x06, unsafe.Sizeof(ctrlCmd{}))
	cmdStopDev           = iocWR(0x07, unsafe.Sizeof(ctrlCmd{}))
	cmdSetParams         = iocWR(0x08, unsafe.Sizeof(ctrlCmd{}))
	cmdGetParams         = iocR(0x09, unsafe.Sizeof(ctrlCmd{}))
	cmdStartUserRecovery = iocWR(0x10, unsafe.Sizeof(ctrlCmd{}))
	cmdEndUserRecovery   = iocWR(0x11, unsafe.Sizeof(ctrlCmd{}))
	cmdGetFeatures       = iocR(0x13, unsafe.Sizeof(ctrlCmd{}))
	cmdUpdateSize        = iocWR(0x15, unsafe.Sizeof(ctrlCmd{}))
)

// Commands to /dev/ublkcN.
var (
	ioFetch          = iocWR(0x20, unsafe.Sizeof(ioCmd{}))
	ioCommitAndFetch = iocWR(0x21, unsafe.Sizeof(ioCmd{}))
)

// iocR and iocWR make the numbers of _IOR('u', …) and _IOWR('u', …), as most
// architectures have them (asm-generic/ioctl.h).
func iocR(nr uint32, size uintptr) uint32  { return ioc(2, nr, size) }
func iocWR(nr uint32, size uintptr) uint32 { return ioc(3, nr, size) }

func ioc(direction, nr uint32, size uintptr) uint32 {
	return direction<<30 | uint32(size)<<16 | 'u'<<8 | nr
}

// Features of the driver, and properties of a device (UBLK_F_*).
const (
	featUserRecovery = 1 << 3
	featReissue      = 1 << 4
	featIoctlEncode  = 1 << 6
	featUserCopy     = 1 << 7
	featUpdateSize   = 1 << 10
)

// States of a device (UBLK_S_DEV_*).
const (
	stateDead     = 0
	stateLive     = 1
	stateQuiesced = 2
)

// ctrlCmd is struct ublksrv_ctrl_cmd.
type ctrlCmd struct {
	devID   uint32
	queueID uint16
	length  uint16
	addr    uint64
	data    uint64
	pathLen uint16
	_       uint16
	_       uint32
}

// devInfo is struct ublksrv_ctrl_dev_info.
type devInfo struct {
	queues uint16
	depth  uint16
	state  uint16
	_      uint16
	maxIO  uint32 // bytes
	devID  uint32
	pid    int32
	_      uint32
	flags  uint64
	owner  uint64    // the server's own: ublksrv_flags
	_      [2]uint32 // user and group
	_      [2]uint64
}

// params is the beginning of struct ublk_params, to where we know it.
type params struct {
	length uint32
	types  uint32

	// struct ublk_param_basic
	attrs         uint32
	logicalShift  uint8
	physicalShift uint8
	optimalShift  uint8
	minimumShift  uint8
	maxSectors    uint32
	_             uint32 // chunk_sectors
	devSectors    uint64
	_             uint64 // virt_boundary_mask

	// struct ublk_param_discard
	discardAlignment   uint32
	discardGranularity uint32
	maxDiscardSectors  uint32
	maxZeroesSectors   uint32
	maxDiscardSegments uint16
	_                  uint16

	_ uint32 // of what follows
}

// Types of parameters, and basic attributes.
const (
	typeBasic   = 1 << 0
	typeDiscard = 1 << 1

	attrReadOnly      = 1 << 0
	attrRotational    = 1 << 1
	attrVolatileCache = 1 << 2
	attrFUA           = 1 << 3
)

// ioDesc is struct ublksrv_io_desc: a request, in memory that is shared with
// the driver and that only it writes.
type ioDesc struct {
	opFlags uint32
	sectors uint32
	start   uint64 // sector
	addr    uint64
}

// Kinds and flags of a request.
const (
	opRead        = 0
	opWrite       = 1
	opFlush       = 2
	opDiscard     = 3
	opWriteZeroes = 5
	opMask        = 0xff

	flagFUA     = 1 << 13
	flagNoUnmap = 1 << 15
)

// ioCmd is struct ublksrv_io_cmd.
type ioCmd struct {
	queue  uint16
	tag    uint16
	result int32
	addr   uint64
}

const (
	sectorShift = 9
	// maxDepth is UBLK_MAX_QUEUE_DEPTH, and maxQueues a bound of ours: the
	// driver takes as many as there are processors.
	maxDepth  = 4096
	maxQueues = 64
	// maxBuffer is the largest data of a request: UBLK_IO_BUF_BITS.
	maxBuffer = 1 << 25
	// copyBase, tagShift and queueShift make the position of a request's
	// data in /dev/ublkcN: UBLKSRV_IO_BUF_OFFSET, UBLK_TAG_OFF, UBLK_QID_OFF.
	copyBase   = 0x80000000
	tagShift   = 25
	queueShift = 41
)

// dataPos returns where in /dev/ublkcN the data of a request is.
func dataPos(queue, tag int) int64 {
	return copyBase + int64(queue)<<queueShift + int64(tag)<<tagShift
}

// descSize returns the size of a queue's ioDescs, mapped from /dev/ublkcN at a
// multiple of descSize(maxDepth), in bytes.
func descSize(depth int) int {
	const page = 4096
	return (depth*int(unsafe.Sizeof(ioDesc{})) + page - 1) &^ (page - 1)
}
