package target

import (
	"errors"
	"io"

	"iscsictl/iscsi"
)

// input is what was read from the connection and not used yet.
type input struct {
	buf  []byte
	r, w int // buf[r:w] is there
	bhs  iscsi.BHS
}

const inputSize = 256 << 10

func newInput() input { return input{buf: make([]byte, inputSize)} }

// fill waits until n bytes are there. Before it waits, it sends what is
// pending, as the initiator may be waiting for that.
func (m *stream) fill(n int) error {
	in := &m.in
	for in.w-in.r < n {
		if in.r == in.w {
			in.r, in.w = 0, 0
		} else if in.w-in.r < 4096 || len(in.buf)-in.r < n {
			in.w = copy(in.buf, in.buf[in.r:in.w])
			in.r = 0
		}
		if err := m.flush(); err != nil {
			return err
		}
		m.c.mu.Unlock()
		k, err := m.nc.Read(in.buf[in.w:])
		m.c.mu.Lock()
		in.w += k
		if k > 0 {
			continue
		}
		if err == io.EOF && in.w > in.r {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	return nil
}

// receive implements datamover. Additional header segments are dropped.
func (m *stream) receive() (*iscsi.BHS, error) {
	if err := m.fill(iscsi.BHSLen); err != nil {
		return nil, err
	}
	in := &m.in
	h := &in.bhs
	copy(h[:], in.buf[in.r:])
	digest := 0
	if m.headerDigest() {
		digest = iscsi.DigestLen
	}
	if n := h.TotalAHSLength() + digest; n > 0 {
		n += iscsi.BHSLen
		if err := m.fill(n); err != nil {
			return nil, err
		}
		head := in.buf[in.r : in.r+n-digest]
		if digest > 0 && !iscsi.CheckDigest(in.buf[in.r+n-digest:in.r+n], iscsi.DigestUpdate(0, head)) {
			// RFC 7143 §7.8: where the next PDU begins is not known.
			return nil, errors.New("header digest of the initiator is wrong")
		}
		in.r += n
		return h, nil
	}
	in.r += iscsi.BHSLen
	return h, nil
}

// segment implements datamover.
func (m *stream) segment(n int, t *task, off uint32) (intact bool, err error) {
	if n == 0 {
		return true, nil
	}
	in := &m.in
	digest := m.dataDigest()
	var crc uint32
	for left := n; left > 0; {
		if in.r == in.w {
			if err := m.fill(1); err != nil {
				return false, err
			}
		}
		p := in.buf[in.r:min(in.w, in.r+left)]
		if digest {
			crc = iscsi.DigestUpdate(crc, p)
		}
		if t != nil {
			t.place(off, p)
			off += uint32(len(p))
		}
		in.r += len(p)
		left -= len(p)
	}
	return m.trailer(n, crc, digest)
}

// trailer reads padding and digest after n bytes of data.
func (m *stream) trailer(n int, crc uint32, digest bool) (intact bool, err error) {
	pad, more := iscsi.Pad(n), 0
	if digest {
		more = iscsi.DigestLen
	}
	if pad+more == 0 {
		return true, nil
	}
	if err := m.fill(pad + more); err != nil {
		return false, err
	}
	in := &m.in
	p := in.buf[in.r : in.r+pad+more]
	in.r += pad + more
	if digest {
		return iscsi.CheckDigest(p[pad:], iscsi.DigestUpdate(crc, p[:pad])), nil
	}
	return true, nil
}

// collect implements datamover.
func (m *stream) collect(n int) (intact bool, err error) {
	c, in := m.c, &m.in
	for len(c.data) < n {
		if in.r == in.w {
			if err := m.fill(1); err != nil {
				return false, err
			}
		}
		p := in.buf[in.r:min(in.w, in.r+n-len(c.data))]
		c.data = append(c.data, p...)
		in.r += len(p)
	}
	if n == 0 {
		return true, nil
	}
	digest := m.dataDigest()
	var crc uint32
	if digest {
		crc = iscsi.DigestUpdate(0, c.data)
	}
	return m.trailer(n, crc, digest)
}
