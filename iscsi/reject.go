package iscsi

import "fmt"

// RejectReason is why a PDU was rejected (RFC 7143 §11.17.1).
type RejectReason uint8

// The reasons.
const (
	RejectDataDigestError     RejectReason = 0x02
	RejectSNACK               RejectReason = 0x03
	RejectProtocolError       RejectReason = 0x04
	RejectCommandNotSupported RejectReason = 0x05
	RejectTooManyImmediate    RejectReason = 0x06
	RejectTaskInProgress      RejectReason = 0x07
	RejectInvalidDataACK      RejectReason = 0x08
	RejectInvalidPDUField     RejectReason = 0x09
	RejectOutOfResources      RejectReason = 0x0a
	RejectNegotiationReset    RejectReason = 0x0b
	RejectWaitingForLogout    RejectReason = 0x0c
)

// String says what the reason is.
func (r RejectReason) String() string {
	switch r {
	case RejectDataDigestError:
		return "data digest error"
	case RejectSNACK:
		return "SNACK reject"
	case RejectProtocolError:
		return "protocol error"
	case RejectCommandNotSupported:
		return "command not supported"
	case RejectTooManyImmediate:
		return "too many immediate commands"
	case RejectTaskInProgress:
		return "task in progress"
	case RejectInvalidDataACK:
		return "invalid data ACK"
	case RejectInvalidPDUField:
		return "invalid PDU field"
	case RejectOutOfResources:
		return "long operation reject: out of resources"
	case RejectNegotiationReset:
		return "negotiation reset"
	case RejectWaitingForLogout:
		return "waiting for logout"
	}
	return fmt.Sprintf("reject reason 0x%02x", uint8(r))
}

// Reject is a Reject PDU (RFC 7143 §11.17). Its data segment begins with the
// header of the rejected PDU.
type Reject struct {
	Reason            RejectReason
	StatSN            uint32
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	DataSN            uint32 // or R2TSN: means something in answer to a SNACK only
	DataSegmentLength int
}

// Encode sets all of h.
func (p *Reject) Encode(h *BHS) {
	h.start(OpReject, false, finalBit)
	h[2] = byte(p.Reason)
	h.SetDataSegmentLength(p.DataSegmentLength)
	h.setU32(16, ReservedTag)
	h.setNumbers(p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	h.setU32(36, p.DataSN)
}

// Decode reads h.
func (p *Reject) Decode(h *BHS) error {
	if err := h.expect(OpReject); err != nil {
		return err
	}
	*p = Reject{
		Reason:            RejectReason(h[2]),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		DataSN:            h.u32(36),
		DataSegmentLength: h.DataSegmentLength(),
	}
	return nil
}

// RejectedHeader returns the header of the rejected PDU, which is the start of
// the data segment of a Reject (RFC 7143 §11.17.4). ok is false where it is incomplete.
func RejectedHeader(data []byte) (h BHS, ok bool) {
	if len(data) < BHSLen {
		return BHS{}, false
	}
	return BHS(data[:BHSLen]), true
}
