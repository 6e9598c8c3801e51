package iscsi

import "fmt"

// AsyncEvent is what an asynchronous message is about (RFC 7143 §11.9.1).
type AsyncEvent uint8

// The events.
const (
	AsyncSCSIEvent       AsyncEvent = 0   // sense data in the data segment
	AsyncLogoutRequest   AsyncEvent = 1   // log out within Parameter3 seconds
	AsyncDropConnection  AsyncEvent = 2   // the target drops connection Parameter1
	AsyncDropSession     AsyncEvent = 3   // the target drops all connections
	AsyncNegotiate       AsyncEvent = 4   // negotiate by a text request within Parameter3 seconds
	AsyncTasksTerminated AsyncEvent = 5   // all tasks of the LUN are terminated (FastAbort)
	AsyncVendorSpecific  AsyncEvent = 255 // VendorCode says what
)

// String says what the event is.
func (e AsyncEvent) String() string {
	switch e {
	case AsyncSCSIEvent:
		return "SCSI asynchronous event"
	case AsyncLogoutRequest:
		return "target requests logout"
	case AsyncDropConnection:
		return "target will drop the connection"
	case AsyncDropSession:
		return "target will drop all connections of the session"
	case AsyncNegotiate:
		return "target requests parameter negotiation"
	case AsyncTasksTerminated:
		return "all active tasks of the LUN are being terminated"
	case AsyncVendorSpecific:
		return "vendor-specific event"
	}
	return fmt.Sprintf("asynchronous event %d", uint8(e))
}

// AsyncMessage is an Asynchronous Message PDU (RFC 7143 §11.9). Its data
// segment, where there is one, is read by ParseAsyncSense.
type AsyncMessage struct {
	LUN               uint64 // of AsyncSCSIEvent and AsyncTasksTerminated
	StatSN            uint32
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	Event             AsyncEvent
	VendorCode        uint8
	Parameter1        uint16 // CID, of AsyncLogoutRequest and AsyncDropConnection
	Parameter2        uint16 // Time2Wait in seconds, of AsyncDropConnection and AsyncDropSession
	Parameter3        uint16 // seconds: see the events
	DataSegmentLength int    // sense data and event data
}

// Encode sets all of h.
func (p *AsyncMessage) Encode(h *BHS) {
	h.start(OpAsyncMessage, false, finalBit)
	h.SetDataSegmentLength(p.DataSegmentLength)
	h.setLUN(p.LUN)
	h.setU32(16, ReservedTag)
	h.setNumbers(p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	h[36], h[37] = byte(p.Event), p.VendorCode
	h.setU16(38, p.Parameter1)
	h.setU16(40, p.Parameter2)
	h.setU16(42, p.Parameter3)
}

// Decode reads h.
func (p *AsyncMessage) Decode(h *BHS) error {
	if err := h.expect(OpAsyncMessage); err != nil {
		return err
	}
	*p = AsyncMessage{
		LUN:               h.LUN(),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		Event:             AsyncEvent(h[36]),
		VendorCode:        h[37],
		Parameter1:        h.u16(38),
		Parameter2:        h.u16(40),
		Parameter3:        h.u16(42),
		DataSegmentLength: h.DataSegmentLength(),
	}
	return nil
}

// ParseAsyncSense splits the data segment of an asynchronous message into sense
// data and the event data of the vendor (RFC 7143 §11.9.4). Both are parts of
// data, and either may be empty.
func ParseAsyncSense(data []byte) (sense, vendor []byte, err error) {
	if len(data) == 0 {
		return nil, nil, nil
	}
	if sense, vendor, err = cutSense(data); err != nil {
		return nil, nil, fmt.Errorf("%v: %w", OpAsyncMessage, err)
	}
	return sense, vendor, nil
}
