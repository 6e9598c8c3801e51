package iwarp

import (
	"encoding/binary"
	"fmt"
)

// Layers and error types of a Terminate message (RFC 5040 §4.8, RFC 5041 §8.2,
// RFC 5044 §8, RFC 6581 §10).
const (
	layerRDMAP = 0
	layerDDP   = 1
	layerMPA   = 2

	rdmapCatastrophic = 0
	rdmapProtection   = 1
	rdmapOperation    = 2

	ddpCatastrophic   = 0
	ddpTaggedBuffer   = 1
	ddpUntaggedBuffer = 2

	mpaError = 0

	terminateDDPLength = 0x80 // M: the DDP segment's length is there
	terminateDDP       = 0x40 // D: its header is there
	terminateRead      = 0x20 // R: the Read Request's header is there

	terminateMax = 4 + 2 + untaggedLen + readReqLen
)

type terminateKind struct{ layer, etype, code uint8 }

var (
	terminateCatastrophic    = terminateKind{layerRDMAP, rdmapCatastrophic, 0}
	terminateReadSTag        = terminateKind{layerRDMAP, rdmapProtection, 0}
	terminateReadBounds      = terminateKind{layerRDMAP, rdmapProtection, 1}
	terminateAccess          = terminateKind{layerRDMAP, rdmapProtection, 2}
	terminateReadWrap        = terminateKind{layerRDMAP, rdmapProtection, 4}
	terminateInvalidate      = terminateKind{layerRDMAP, rdmapProtection, 9}
	terminateRDMAPVersion    = terminateKind{layerRDMAP, rdmapOperation, 5}
	terminateOpcode          = terminateKind{layerRDMAP, rdmapOperation, 6}
	terminateOperation       = terminateKind{layerRDMAP, rdmapOperation, 0xff}
	terminateTaggedSTag      = terminateKind{layerDDP, ddpTaggedBuffer, 0}
	terminateTaggedBounds    = terminateKind{layerDDP, ddpTaggedBuffer, 1}
	terminateTaggedWrap      = terminateKind{layerDDP, ddpTaggedBuffer, 3}
	terminateTaggedVersion   = terminateKind{layerDDP, ddpTaggedBuffer, 4}
	terminateQueue           = terminateKind{layerDDP, ddpUntaggedBuffer, 1}
	terminateNoBuffer        = terminateKind{layerDDP, ddpUntaggedBuffer, 2}
	terminateMSN             = terminateKind{layerDDP, ddpUntaggedBuffer, 3}
	terminateMO              = terminateKind{layerDDP, ddpUntaggedBuffer, 4}
	terminateTooLong         = terminateKind{layerDDP, ddpUntaggedBuffer, 5}
	terminateUntaggedVersion = terminateKind{layerDDP, ddpUntaggedBuffer, 6}
	terminateCRC             = terminateKind{layerMPA, mpaError, 2}
	terminateIRD             = terminateKind{layerMPA, mpaError, 5}
)

// terminateNames has every code that the RFCs define.
var terminateNames = map[terminateKind]string{
	terminateCatastrophic:               "local catastrophic error",
	terminateReadSTag:                   "remote protection: invalid STag",
	terminateReadBounds:                 "remote protection: base or bounds violation",
	terminateAccess:                     "remote protection: access rights violation",
	{layerRDMAP, rdmapProtection, 3}:    "remote protection: STag not associated with the stream",
	terminateReadWrap:                   "remote protection: tagged offset wrap",
	terminateInvalidate:                 "remote protection: STag cannot be invalidated",
	{layerRDMAP, rdmapProtection, 0xff}: "remote protection: unspecified error",
	terminateRDMAPVersion:               "remote operation: invalid RDMAP version",
	terminateOpcode:                     "remote operation: unexpected opcode",
	{layerRDMAP, rdmapOperation, 7}:     "remote operation: catastrophic error, localized to the stream",
	{layerRDMAP, rdmapOperation, 8}:     "remote operation: catastrophic error, global",
	terminateOperation:                  "remote operation: unspecified error",
	{layerDDP, ddpCatastrophic, 0}:      "DDP local catastrophic error",
	terminateTaggedSTag:                 "tagged buffer: invalid STag",
	terminateTaggedBounds:               "tagged buffer: base or bounds violation",
	{layerDDP, ddpTaggedBuffer, 2}:      "tagged buffer: STag not associated with the stream",
	terminateTaggedWrap:                 "tagged buffer: tagged offset wrap",
	terminateTaggedVersion:              "tagged buffer: invalid DDP version",
	terminateQueue:                      "untagged buffer: invalid queue number",
	terminateNoBuffer:                   "untagged buffer: no buffer available",
	terminateMSN:                        "untagged buffer: message sequence number out of range",
	terminateMO:                         "untagged buffer: invalid message offset",
	terminateTooLong:                    "untagged buffer: message too long",
	terminateUntaggedVersion:            "untagged buffer: invalid DDP version",
	{layerMPA, mpaError, 1}:             "TCP connection closed or lost",
	terminateCRC:                        "CRC error",
	{layerMPA, mpaError, 3}:             "marker and ULPDU length mismatch",
	{layerMPA, mpaError, 4}:             "local catastrophic error of MPA",
	terminateIRD:                        "insufficient IRD",
	{layerMPA, mpaError, 6}:             "no matching RTR",
}

// TerminateError is the cause of the end of a connection that the peer
// terminated (RFC 5040 §4.8).
type TerminateError struct {
	Layer, Type, Code uint8
	Reason            string // in words, or empty for a code that no RFC defines
	// Swapped: the peer wrote the fields in the order of a little-endian
	// compiler's bit fields, as siw does.
	Swapped bool
	Header  []byte // the message as it came, at most 52 bytes
}

func (e *TerminateError) Error() string {
	reason := e.Reason
	if reason == "" {
		reason = "an error that no RFC defines"
	}
	return fmt.Sprintf("the peer terminated the connection: %s (layer %d, type %d, code %#x)", reason, e.Layer, e.Type, e.Code)
}

// appendTerminate encodes a Terminate message. header is what of the offending
// segment is known: its DDP header, with a Read Request's behind it, or nothing.
func appendTerminate(b []byte, k terminateKind, ulpdu int, header []byte) []byte {
	flags := byte(0)
	if len(header) > 0 {
		flags = terminateDDPLength | terminateDDP
		if len(header) >= untaggedLen+readReqLen {
			flags |= terminateRead
		}
	}
	b = append(b, k.layer<<4|k.etype, k.code, flags, 0)
	if len(header) > 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(ulpdu))
		b = append(b, header...)
	}
	return b
}

// parseTerminate decodes the payload of a Terminate message: in the RFC's form,
// or in that of siw, which has the two halves of the first byte swapped and the
// flags in the low bits. It returns nil for fewer than four bytes.
func parseTerminate(b []byte) *TerminateError {
	if len(b) < 4 {
		return nil
	}
	high := terminateKind{b[0] >> 4, b[0] & 15, b[1]}
	low := terminateKind{b[0] & 15, b[0] >> 4, b[1]}
	k, swapped := high, false
	_, highKnown := terminateNames[high]
	_, lowKnown := terminateNames[low]
	switch flags := b[2]; {
	case flags&0xe0 != 0:
	case flags&0x07 != 0:
		k, swapped = low, true
	case !highKnown:
		k, swapped = low, lowKnown
	case lowKnown && high.layer == layerMPA && high.code >= 4:
		// RFC 6581's codes belong to the setup, where no Terminate is
		// taken in: this is RDMAP's version or opcode error, swapped.
		k, swapped = low, low != high
	}
	if swapped && !lowKnown && highKnown {
		k, swapped = high, false
	}
	return &TerminateError{
		Layer: k.layer, Type: k.etype, Code: k.code, Reason: terminateNames[k], Swapped: swapped,
		Header: append([]byte(nil), b[:min(len(b), terminateMax)]...),
	}
}

// fault is a breach of the protocol by the peer, of which it is told.
type fault struct {
	kind   terminateKind
	reason string // with its details, for us
}

func (f *fault) Error() string {
	return fmt.Sprintf("the peer broke the protocol: %s (terminated with layer %d, type %d, code %#x)",
		f.reason, f.kind.layer, f.kind.etype, f.kind.code)
}

func faultf(k terminateKind, format string, args ...any) error {
	return &fault{k, fmt.Sprintf(format, args...)}
}
