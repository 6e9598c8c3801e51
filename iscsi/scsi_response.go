package iscsi

import (
	"encoding/binary"
	"fmt"
)

// Values of SCSIResponse.Response (RFC 7143 §11.4.3); 0x80 to 0xff are the
// vendor's. Only with ResponseCompleted does the SCSI status mean anything.
const (
	ResponseCompleted     uint8 = 0x00
	ResponseTargetFailure uint8 = 0x01
)

const (
	bidiOverflowBit  = 0x10
	bidiUnderflowBit = 0x08
	overflowBit      = 0x04
	underflowBit     = 0x02
)

// SCSIResponse is a SCSI Response PDU (RFC 7143 §11.4). Its data segment, where
// there is one, is read by ResponseSense.
type SCSIResponse struct {
	BidiOverflow      bool // of the read part of a bidirectional command
	BidiUnderflow     bool
	Overflow          bool // Residual bytes did not fit into the expected length
	Underflow         bool // Residual bytes of the expected length were not moved
	Response          uint8
	Status            uint8 // SCSI status (SAM-5 §5.3)
	InitiatorTaskTag  uint32
	SNACKTag          uint32
	StatSN            uint32
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	ExpDataSN         uint32 // number of Data-In and R2T PDUs of the command
	BidiResidual      uint32 // bytes
	Residual          uint32 // bytes
	DataSegmentLength int    // sense data with its length, or the response's data
}

// Encode sets all of h.
func (p *SCSIResponse) Encode(h *BHS) {
	h.start(OpSCSIResponse, false, finalBit)
	h.setBit(1, bidiOverflowBit, p.BidiOverflow)
	h.setBit(1, bidiUnderflowBit, p.BidiUnderflow)
	h.setBit(1, overflowBit, p.Overflow)
	h.setBit(1, underflowBit, p.Underflow)
	h[2], h[3] = p.Response, p.Status
	h.SetDataSegmentLength(p.DataSegmentLength)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.SNACKTag)
	h.setNumbers(p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	h.setU32(36, p.ExpDataSN)
	h.setU32(40, p.BidiResidual)
	h.setU32(44, p.Residual)
}

// Decode reads h. Overflow and underflow exclude each other (§11.4.1).
func (p *SCSIResponse) Decode(h *BHS) error {
	if err := h.expectTask(OpSCSIResponse); err != nil {
		return err
	}
	*p = SCSIResponse{
		BidiOverflow:      h[1]&bidiOverflowBit != 0,
		BidiUnderflow:     h[1]&bidiUnderflowBit != 0,
		Overflow:          h[1]&overflowBit != 0,
		Underflow:         h[1]&underflowBit != 0,
		Response:          h[2],
		Status:            h[3],
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		SNACKTag:          h.u32(20),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		ExpDataSN:         h.u32(36),
		BidiResidual:      h.u32(40),
		Residual:          h.u32(44),
		DataSegmentLength: h.DataSegmentLength(),
	}
	if p.Overflow && p.Underflow || p.BidiOverflow && p.BidiUnderflow {
		return fmt.Errorf("%v: both overflow and underflow", OpSCSIResponse)
	}
	return nil
}

// ResponseSense returns the sense data in the data segment of a SCSI Response
// (RFC 7143 §11.4.7), as a part of data; it is empty where there is none. Bytes
// after it, which the RFC leaves to the SCSI response, are not returned.
func ResponseSense(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, nil
	}
	sense, _, err := cutSense(data)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", OpSCSIResponse, err)
	}
	return sense, nil
}

// AppendResponseSense appends to b the data segment that holds sense, which is
// at most 65535 bytes (252 by SPC-4 §4.5); of a longer one the rest is left out.
func AppendResponseSense(b, sense []byte) []byte {
	sense = sense[:min(len(sense), 1<<16-1)]
	b = binary.BigEndian.AppendUint16(b, uint16(len(sense)))
	return append(b, sense...)
}

// cutSense splits sense data, preceded by its length in two bytes, from what follows.
func cutSense(data []byte) (sense, rest []byte, err error) {
	if len(data) < 2 {
		return nil, nil, fmt.Errorf("%d byte of data where a sense length is due", len(data))
	}
	n := int(binary.BigEndian.Uint16(data))
	data = data[2:]
	if n > len(data) {
		return nil, nil, fmt.Errorf("sense length %d exceeds the %d bytes of data left", n, len(data))
	}
	return data[:n:n], data[n:], nil
}
