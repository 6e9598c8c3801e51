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

// corruption is what a fault does to a PDU that is sent.
type corruption struct {
	header, data bool // the digest is wrong
}

// send queues the PDU whose header is in c.h, with its data. With ref, data is
// not copied: it must stay as it is until it was sent. Errors are kept for
// serve.
func (c *conn) send(data []byte, ref bool) {
	if c.silent {
		return
	}
	var bad corruption
	if c.server.faults.some.Load() {
		var swallowed bool
		if swallowed, bad = c.sentFaults(data); swallowed {
			return
		}
	}
	c.queue(data, ref, bad)
}

func (c *conn) queue(data []byte, ref bool, bad corruption) {
	if c.login == nil {
		c.session.counters.pdusOut.Add(1)
	}
	dataDigest := c.dataDigest && len(data) > 0
	pad := iscsi.Pad(len(data))
	// The digest and the bytes must be of one moment, but the medium may
	// change: with a digest, data is copied.
	ref = ref && !dataDigest && len(data) > inlineData
	need := iscsi.BHSLen + 2*iscsi.DigestLen + pad
	if !ref {
		need += len(data)
	}
	o := &c.out
	if len(o.head)+need > cap(o.head) || o.size >= outputLimit || len(o.iov) >= outputVecs {
		if c.flush() != nil {
			return
		}
		if need > cap(o.head) { // longer than anything that is built here
			o.head = make([]byte, 0, need)
		}
	}
	o.head = append(o.head, c.h[:]...)
	if c.headerDigest {
		o.appendDigest(iscsi.DigestUpdate(0, c.h[:]), bad.header)
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
		o.appendDigest(iscsi.DigestUpdate(0, o.head[start:]), bad.data)
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

// flush sends everything that is queued.
func (c *conn) flush() error {
	o := &c.out
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
	_, err := o.sent.WriteTo(c.nc)
	o.head, o.iov, o.tail, o.size = o.head[:0], o.iov[:0], 0, 0
	c.err = err
	return err
}
