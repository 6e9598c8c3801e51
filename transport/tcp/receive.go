package tcp

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"iscsictl/iscsi"
)

const (
	// stageLen is how much is read at once where it isn't known what comes.
	stageLen = 64 << 10
	// bulkLen is the size of a Data-In payload from which it pays to read
	// little beyond it: what is read into the stage is copied.
	bulkLen  = 64 << 10
	bulkRead = 4 << 10
)

var (
	errHeaderDigest = errors.New("header digest error")
	errDataDigest   = errors.New("data digest error")
)

// receiver takes the byte stream apart into PDUs. Reads go to the vector that it
// names: what is known to be payload straight to its place, the rest to the
// stage, from where it is parsed.
type receiver struct {
	stage   []byte
	r, w    int // stage[r:w] is to be parsed
	vec     [2]unix.Iovec
	bulk    bool   // the last Data-In was large
	control []byte // data segment of a PDU other than Data-In

	h       iscsi.BHS // the PDU whose data segment is under way, if inData
	inData  bool
	place   []byte // what is still to come of its payload
	data    []byte // the payload's place from its start
	trailer int    // bytes of padding and digest behind it
	crc     uint32

	headerDigest, dataDigest bool
	maxData                  int
}

func (r *receiver) init(headerDigest, dataDigest bool, maxData int) {
	r.stage = make([]byte, stageLen)
	r.headerDigest, r.dataDigest, r.maxData = headerDigest, dataDigest, maxData
}

// vector says where the next bytes are to be read.
func (r *receiver) vector() []unix.Iovec {
	room := r.stage[r.w:]
	if r.bulk || len(r.place) >= bulkLen {
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
	if r.dataDigest && k > 0 {
		r.crc = iscsi.DigestUpdate(r.crc, r.place[:k])
	}
	r.place = r.place[k:]
	r.w += n - k
}

// sink is what a receiver hands PDUs to.
type sink interface {
	// dataIn says where the payload of a Data-In belongs.
	dataIn(h *iscsi.BHS) ([]byte, error)
	// dataInDone: the payload is there, and its digest, if any, is right.
	dataInDone(h *iscsi.BHS) error
	// pdu takes any other PDU; data is valid during the call.
	pdu(h *iscsi.BHS, data []byte) error
}

// parse hands on every PDU that is complete, and the places of those that have begun.
func (r *receiver) parse(to sink) error {
	for {
		var more bool
		var err error
		if r.inData {
			more, err = r.parseData(to)
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
	if len(in) < iscsi.BHSLen {
		return false, nil
	}
	h := iscsi.BHS(in)
	n := iscsi.BHSLen + h.TotalAHSLength()
	whole := n
	if r.headerDigest {
		whole += iscsi.DigestLen
	}
	if len(in) < whole {
		return false, nil
	}
	if r.headerDigest && !iscsi.CheckDigest(in[n:], iscsi.DigestUpdate(0, in[:n])) {
		return false, errHeaderDigest
	}
	r.r += whole
	size := h.DataSegmentLength()
	if size > r.maxData {
		return false, fmt.Errorf("%v with a data segment of %d bytes, over the %d that we declared", h.Opcode(), size, r.maxData)
	}
	r.h, r.crc, r.trailer = h, 0, 0
	if size > 0 {
		r.trailer = iscsi.Pad(size)
		if r.dataDigest {
			r.trailer += iscsi.DigestLen
		}
	}
	if h.Opcode() == iscsi.OpDataIn {
		if r.data, err = to.dataIn(&r.h); err != nil {
			return false, err
		}
		r.bulk = size >= bulkLen
	} else {
		if size > cap(r.control) {
			r.control = make([]byte, size)
		}
		r.data = r.control[:size]
		r.bulk = false
	}
	k := copy(r.data, r.stage[r.r:r.w])
	if r.dataDigest {
		r.crc = iscsi.DigestUpdate(r.crc, r.data[:k])
	}
	r.r += k
	r.place, r.inData = r.data[k:], true
	return true, nil
}

func (r *receiver) parseData(to sink) (more bool, err error) {
	if len(r.place) > 0 || r.w-r.r < r.trailer {
		return false, nil
	}
	if tail := r.stage[r.r : r.r+r.trailer]; r.dataDigest && r.trailer > 0 {
		pad := len(tail) - iscsi.DigestLen
		if !iscsi.CheckDigest(tail[pad:], iscsi.DigestUpdate(r.crc, tail[:pad])) {
			return false, errDataDigest
		}
	}
	r.r += r.trailer
	r.inData, r.place = false, nil
	if r.h.Opcode() == iscsi.OpDataIn {
		r.data = nil
		return true, to.dataInDone(&r.h)
	}
	return true, to.pdu(&r.h, r.data)
}
