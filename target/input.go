package target

import (
	"errors"
	"fmt"
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
func (c *conn) fill(n int) error {
	in := &c.in
	for in.w-in.r < n {
		if in.r == in.w {
			in.r, in.w = 0, 0
		} else if in.w-in.r < 4096 || len(in.buf)-in.r < n {
			in.w = copy(in.buf, in.buf[in.r:in.w])
			in.r = 0
		}
		if err := c.flush(); err != nil {
			return err
		}
		c.mu.Unlock()
		m, err := c.nc.Read(in.buf[in.w:])
		c.mu.Lock()
		in.w += m
		if m > 0 {
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

// readHeader reads a PDU's header and additional header segments. The header
// is valid until the next call.
func (c *conn) readHeader() (*iscsi.BHS, error) {
	if err := c.fill(iscsi.BHSLen); err != nil {
		return nil, err
	}
	in := &c.in
	h := &in.bhs
	copy(h[:], in.buf[in.r:])
	digest := 0
	if c.headerDigest {
		digest = iscsi.DigestLen
	}
	if n := h.TotalAHSLength() + digest; n > 0 {
		n += iscsi.BHSLen
		if err := c.fill(n); err != nil {
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

// segment reads a data segment of n bytes and puts it into the task's data at
// off; without a task it is dropped. It reports whether the digest was right.
func (c *conn) segment(n int, t *task, off uint32) (intact bool, err error) {
	if n == 0 {
		return true, nil
	}
	in := &c.in
	digest := c.dataDigest
	var crc uint32
	for left := n; left > 0; {
		if in.r == in.w {
			if err := c.fill(1); err != nil {
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
	return c.trailer(n, crc, digest)
}

// trailer reads padding and digest after n bytes of data.
func (c *conn) trailer(n int, crc uint32, digest bool) (intact bool, err error) {
	pad, more := iscsi.Pad(n), 0
	if digest {
		more = iscsi.DigestLen
	}
	if pad+more == 0 {
		return true, nil
	}
	if err := c.fill(pad + more); err != nil {
		return false, err
	}
	in := &c.in
	p := in.buf[in.r : in.r+pad+more]
	in.r += pad + more
	if digest {
		return iscsi.CheckDigest(p[pad:], iscsi.DigestUpdate(crc, p[:pad])), nil
	}
	return true, nil
}

func (c *conn) skip(n int) (intact bool, err error) { return c.segment(n, nil, 0) }

// collect reads a data segment of n bytes into c.data. ok is false where its
// digest is wrong; then the PDU h was rejected and is to be dropped
// (RFC 7143 §7.8).
func (c *conn) collect(h *iscsi.BHS) (ok bool, err error) {
	n := h.DataSegmentLength()
	c.data = c.data[:0]
	in := &c.in
	for len(c.data) < n {
		if in.r == in.w {
			if err := c.fill(1); err != nil {
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
	digest := c.dataDigest
	var crc uint32
	if digest {
		crc = iscsi.DigestUpdate(0, c.data)
	}
	intact, err := c.trailer(n, crc, digest)
	if err != nil || intact {
		return err == nil, err
	}
	if c.login != nil {
		return false, fmt.Errorf("%v: data digest is wrong", h.Opcode())
	}
	c.reject(h, iscsi.RejectDataDigestError)
	return false, nil
}
