package iwarp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MPA startup frames (RFC 5044 §7.1, RFC 6581 §9).
const (
	mpaKeyLen    = 16
	mpaHeaderLen = mpaKeyLen + 4
	mpaPDMax     = 512 // most private data of a frame, in bytes
	enhancedLen  = 4   // of the private data: IRD and ORD

	mpaRequestKey = "MPA ID Req Frame"
	mpaReplyKey   = "MPA ID Rep Frame"

	flagMarkers  = 0x80
	flagCRC      = 0x40
	flagReject   = 0x20
	flagEnhanced = 0x10

	// readsUnsaid as a depth means: not negotiated here.
	readsUnsaid = 0x3fff

	bitPeerToPeer = 0x8000 // A, in the IRD word
	bitRTRSend    = 0x4000 // B, in the IRD word
	bitRTRWrite   = 0x8000 // C, in the ORD word
	bitRTRRead    = 0x4000 // D, in the ORD word
)

// ErrNotIWARP is what Dial's error wraps where something else than an iWARP
// listener answers at the address.
var ErrNotIWARP = errors.New("not an iWARP listener")

// RTR is the kind of the message with which an active side shows that it is
// ready to receive, in peer-to-peer mode (RFC 6581 §5).
type RTR uint8

// The kinds of RTR message: sets of bits in an offer, one of them in an answer.
const (
	RTRWrite RTR = 1 << iota // a zero-length RDMA Write
	RTRRead                  // a zero-length RDMA Read
	RTRSend                  // a zero-length Send; refused, for it would take a receive
)

// mpaFrame is a request or a reply.
type mpaFrame struct {
	reply    bool
	markers  bool
	crc      bool
	reject   bool
	enhanced bool
	revision uint8

	// These are there in enhanced frames.
	ird, ord   uint16 // 0 to 0x3fff
	peerToPeer bool
	rtr        RTR

	private []byte
}

// append encodes the frame.
func (f *mpaFrame) append(b []byte) []byte {
	key, flags, n := mpaRequestKey, byte(0), len(f.private)
	if f.reply {
		key = mpaReplyKey
	}
	for _, x := range []struct {
		on  bool
		bit byte
	}{{f.markers, flagMarkers}, {f.crc, flagCRC}, {f.reject, flagReject}, {f.enhanced, flagEnhanced}} {
		if x.on {
			flags |= x.bit
		}
	}
	if f.enhanced {
		n += enhancedLen
	}
	b = append(append(b, key...), flags, f.revision)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	if f.enhanced {
		ird, ord := f.ird&readsUnsaid, f.ord&readsUnsaid
		if f.peerToPeer {
			ird |= bitPeerToPeer
		}
		if f.rtr&RTRSend != 0 {
			ird |= bitRTRSend
		}
		if f.rtr&RTRWrite != 0 {
			ord |= bitRTRWrite
		}
		if f.rtr&RTRRead != 0 {
			ord |= bitRTRRead
		}
		b = binary.BigEndian.AppendUint16(b, ird)
		b = binary.BigEndian.AppendUint16(b, ord)
	}
	return append(b, f.private...)
}

// parseMPAHeader decodes the first 20 bytes of a frame and returns the length
// of the private data that follows.
func parseMPAHeader(b []byte, reply bool) (f mpaFrame, pdLen int, err error) {
	key := mpaRequestKey
	if reply {
		key = mpaReplyKey
	}
	if len(b) < mpaHeaderLen || string(b[:mpaKeyLen]) != key {
		return f, 0, ErrNotIWARP
	}
	flags := b[mpaKeyLen]
	f = mpaFrame{
		reply:   reply,
		markers: flags&flagMarkers != 0,
		crc:     flags&flagCRC != 0,
		reject:  flags&flagReject != 0,
		// The other bits are reserved, or a peer's own: not looked at.
		enhanced: flags&flagEnhanced != 0,
		revision: b[mpaKeyLen+1],
	}
	pdLen = int(binary.BigEndian.Uint16(b[mpaKeyLen+2:]))
	switch {
	case pdLen > mpaPDMax:
		return f, 0, fmt.Errorf("MPA frame with %d bytes of private data, over the %d of RFC 5044", pdLen, mpaPDMax)
	case f.revision < 2:
		f.enhanced = false // the bit is reserved in revision 1
	case f.enhanced && pdLen < enhancedLen:
		return f, 0, fmt.Errorf("enhanced MPA frame with %d bytes of private data", pdLen)
	}
	return f, pdLen, nil
}

// parsePrivate takes in the private data, of which the frame keeps a part.
func (f *mpaFrame) parsePrivate(b []byte) {
	if f.enhanced && len(b) >= enhancedLen {
		ird, ord := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		f.ird, f.ord = ird&readsUnsaid, ord&readsUnsaid
		f.peerToPeer = ird&bitPeerToPeer != 0
		if ird&bitRTRSend != 0 {
			f.rtr |= RTRSend
		}
		if ord&bitRTRWrite != 0 {
			f.rtr |= RTRWrite
		}
		if ord&bitRTRRead != 0 {
			f.rtr |= RTRRead
		}
		b = b[enhancedLen:]
	}
	f.private = b
}

// readDepth is the depth that both sides can do: ours, and what the peer said.
func readDepth(ours int, peers uint16, said bool) int {
	if !said || peers == readsUnsaid {
		return ours
	}
	return min(ours, int(peers))
}
