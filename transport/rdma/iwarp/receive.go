package iwarp

import (
	"encoding/binary"
	"hash/crc32"

	"golang.org/x/sys/unix"
)

const (
	// stageLen is how much is read at once where it isn't known what comes.
	stageLen = 64 << 10
	// bulkLen is the size of a payload from which it pays to read little
	// beyond it: what is read into the stage is copied. bulkRead has room for
	// the end of an FPDU, a short message, and the next header. As large
	// payloads come with short messages in between, bulkTurns segments must
	// come without one until more is read again.
	bulkLen   = 16 << 10
	bulkRead  = 256
	bulkTurns = 8
)

// receiver takes the byte stream apart into FPDUs. Reads go to the vector that
// it names: what is known to be payload straight to its place, the rest to the
// stage, from where it is parsed.
type receiver struct {
	stage []byte
	r, w  int // stage[r:w] is to be parsed
	vec   [2]unix.Iovec
	bulk  int // segments for which to go on expecting large payloads
	crcOn bool

	seg       segment // of the FPDU under way, if inPayload
	ulpdu     int     // its length
	inPayload bool
	place     []byte // what is still to come of its payload
	trailer   int    // bytes of padding and CRC behind it
	crc       uint32
}

func (r *receiver) init(crc bool) {
	r.stage, r.crcOn = make([]byte, stageLen), crc
}

// vector says where the next bytes are to be read.
func (r *receiver) vector() []unix.Iovec {
	room := r.stage[r.w:]
	if r.bulk > 0 {
		room = room[:min(len(room), bulkRead)]
	}
	if len(r.place) == 0 {
		r.vec[0] = iovec(room)
		return r.vec[:1]
	}
	r.vec[0], r.vec[1] = iovec(r.place), iovec(room)
	return r.vec[:2]
}

// landed notes that n bytes were read into the vector. It needs no lock.
func (r *receiver) landed(n int) {
	k := min(n, len(r.place))
	if r.crcOn && k > 0 {
		r.crc = crc32.Update(r.crc, castagnoli, r.place[:k])
	}
	r.place = r.place[k:]
	r.w += n - k
}

// middle reports whether an FPDU has begun and not ended.
func (r *receiver) middle() bool { return r.inPayload || r.r != r.w }

// sink is what a receiver hands segments to.
type sink interface {
	// segment checks a segment's header and says where its payload belongs.
	segment(s *segment) ([]byte, error)
	// placed: the payload is there, and its CRC, if any, is right.
	placed(s *segment) error
}

// parse hands on every segment that is complete, and the places of those that have begun.
func (r *receiver) parse(to sink) error {
	for {
		var more bool
		var err error
		if r.inPayload {
			more, err = r.parsePayload(to)
		} else {
			more, err = r.parseHeader(to)
		}
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if r.r == r.w {
		r.r, r.w = 0, 0
	} else if r.r > 0 && len(r.stage)-r.w < bulkRead {
		r.w = copy(r.stage, r.stage[r.r:r.w])
		r.r = 0
	}
	return nil
}

func (r *receiver) parseHeader(to sink) (more bool, err error) {
	in := r.stage[r.r:r.w]
	if len(in) < lengthLen+controlLen {
		return false, nil
	}
	n := int(binary.BigEndian.Uint16(in))
	headerLen := segmentHeaderLen(in[lengthLen])
	if n < headerLen {
		r.ulpdu = 0
		return false, faultf(terminateCatastrophic, "an FPDU of %d bytes, which is less than a DDP header", n)
	}
	whole := lengthLen + headerLen
	if len(in) < whole {
		return false, nil
	}
	r.seg, r.ulpdu = parseSegment(in[lengthLen:whole], n), n
	r.r += whole
	place, err := to.segment(&r.seg)
	if err != nil {
		return false, err
	}
	r.crc, r.trailer = 0, fpduPad(n)+crcLen
	if len(place) >= bulkLen {
		r.bulk = bulkTurns
	} else if r.bulk > 0 {
		r.bulk--
	}
	k := copy(place, r.stage[r.r:r.w])
	if r.crcOn {
		// Header and payload are one run in the stage.
		r.crc = crc32.Update(0, castagnoli, in[:whole+k])
	}
	r.r += k
	r.place, r.inPayload = place[k:], true
	return true, nil
}

func (r *receiver) parsePayload(to sink) (more bool, err error) {
	if len(r.place) > 0 || r.w-r.r < r.trailer {
		return false, nil
	}
	tail := r.stage[r.r : r.r+r.trailer]
	if pad := len(tail) - crcLen; r.crcOn {
		want := crc32.Update(r.crc, castagnoli, tail[:pad])
		if got := binary.LittleEndian.Uint32(tail[pad:]); got != want {
			return false, faultf(terminateCRC, "the CRC of a %v segment is %#08x and should be %#08x", r.seg.op, got, want)
		}
	}
	r.r += r.trailer
	r.inPayload, r.place = false, nil
	return true, to.placed(&r.seg)
}
