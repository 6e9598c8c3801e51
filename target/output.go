package target

import (
	"net"

	"iscsictl/iscsi"
)

// output is what is to be sent: headers and small data one after another in
// head, and large data where it lies.
type output struct {
	head []byte      // never grows: iov refers to it
	tail int         // head[tail:] is not in iov yet
	iov  net.Buffers // sent next
	sent net.Buffers // scratch of flush, which WriteTo consumes
	size int         // bytes
}

const (
	outputHead  = 512 << 10 // bytes
	outputLimit = 1 << 20   // bytes that are sent at once
	outputVecs  = 512
	inlineData  = 1024 // data up to here is copied, as that costs less than another vector
)

func newOutput() output {
	return output{head: make([]byte, 0, outputHead), iov: make(net.Buffers, 0, outputVecs+3)}
}

// queue implements datamover.
func (m *stream) queue(data []byte, ref bool, as distortion) {
	c := m.c
	dataDigest := m.dataDigest() && len(data) > 0
	pad := iscsi.Pad(len(data))
	// The digest and the bytes must be of one moment, but the medium may
	// change: with a digest, data is copied.
	ref = ref && !dataDigest && len(data) > inlineData
	need := iscsi.BHSLen + 2*iscsi.DigestLen + pad
	if !ref {
		need += len(data)
	}
	o := &m.out
	if len(o.head)+need > cap(o.head) || o.size >= outputLimit || len(o.iov) >= outputVecs {
		if m.flush() != nil {
			return
		}
		if need > cap(o.head) { // longer than anything that is built here
			o.head = make([]byte, 0, need)
		}
	}
	o.head = append(o.head, c.h[:]...)
	if m.headerDigest() {
		o.appendDigest(iscsi.DigestUpdate(0, c.h[:]), as.header)
	}
	if ref {
		o.iov = append(o.iov, o.head[o.tail:], data)
		o.tail = len(o.head)
	} else {
		o.head = append(o.head, data...)
	}
	o.head = append(o.head, zeroes[:pad]...)
	if dataDigest {
		start := len(o.head) - pad - len(data)
		o.appendDigest(iscsi.DigestUpdate(0, o.head[start:]), as.data)
	}
	o.size += iscsi.BHSLen + len(data)
}

var zeroes [4]byte

func (o *output) appendDigest(crc uint32, wrong bool) {
	if wrong {
		crc = ^crc
	}
	n := len(o.head)
	o.head = o.head[:n+iscsi.DigestLen]
	iscsi.PutDigest(o.head[n:], crc)
}

// flush implements datamover.
func (m *stream) flush() error {
	c, o := m.c, &m.out
	if c.err != nil {
		return c.err
	}
	if o.tail < len(o.head) {
		o.iov = append(o.iov, o.head[o.tail:])
	}
	if len(o.iov) == 0 {
		return nil
	}
	o.sent = o.iov
	_, err := o.sent.WriteTo(m.nc)
	o.head, o.iov, o.tail, o.size = o.head[:0], o.iov[:0], 0, 0
	c.err = err
	return err
}

// raw implements datamover.
func (m *stream) raw(b []byte) error {
	_, err := m.nc.Write(b)
	return err
}

// truncated implements datamover.
func (m *stream) truncated(n int, data []byte) {
	for _, p := range [][]byte{m.c.h[:], data} {
		p = p[:min(n, len(p))]
		n -= len(p)
		_, _ = m.nc.Write(p) // the connection ends in any case
	}
}
