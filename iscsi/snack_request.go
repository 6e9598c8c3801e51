package iscsi

import "fmt"

// SNACKType is what a SNACK asks for or acknowledges (RFC 7143 §11.16.1).
type SNACKType uint8

// The types.
const (
	SNACKData    SNACKType = 0 // Data-In or R2T PDUs again
	SNACKStatus  SNACKType = 1 // responses again
	SNACKDataACK SNACKType = 2 // acknowledges Data-In PDUs
	SNACKRData   SNACKType = 3 // Data-In PDUs again, cut anew
)

// String is the name of the type.
func (t SNACKType) String() string {
	switch t {
	case SNACKData:
		return "Data/R2T SNACK"
	case SNACKStatus:
		return "Status SNACK"
	case SNACKDataACK:
		return "DataACK"
	case SNACKRData:
		return "R-Data SNACK"
	}
	return fmt.Sprintf("SNACK type %d", uint8(t))
}

const snackTypeMask = 0x0f

// SNACKRequest is a SNACK Request PDU (RFC 7143 §11.16), which exists at error
// recovery levels above 0 only.
type SNACKRequest struct {
	Type              SNACKType
	LUN               uint64
	InitiatorTaskTag  uint32 // ReservedTag with SNACKStatus and SNACKDataACK
	TargetTransferTag uint32 // or SNACK tag, with SNACKRData
	ExpStatSN         uint32
	BegRun            uint32 // first number that is asked for or acknowledged
	RunLength         uint32 // how many; 0: all
}

// Encode sets all of h.
func (p *SNACKRequest) Encode(h *BHS) {
	h.start(OpSNACKRequest, false, finalBit|byte(p.Type)&snackTypeMask)
	h.setLUN(p.LUN)
	h.setU32(16, p.InitiatorTaskTag)
	h.setU32(20, p.TargetTransferTag)
	h.setU32(28, p.ExpStatSN)
	h.setU32(40, p.BegRun)
	h.setU32(44, p.RunLength)
}

// Decode reads h.
func (p *SNACKRequest) Decode(h *BHS) error {
	if err := h.expect(OpSNACKRequest); err != nil {
		return err
	}
	*p = SNACKRequest{
		Type:              SNACKType(h[1] & snackTypeMask),
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		ExpStatSN:         h.ExpStatSN(),
		BegRun:            h.u32(40),
		RunLength:         h.u32(44),
	}
	return nil
}
