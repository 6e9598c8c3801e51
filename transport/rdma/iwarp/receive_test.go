package iwarp

import (
	"bytes"
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func sliceOf(v unix.Iovec) []byte { return unsafe.Slice(v.Base, int(v.Len)) }

// heap is a sink that keeps what it is given.
type heap struct {
	segments []segment
	payloads [][]byte
	refuse   int // the segment that it does not want; counted from 1
}

var errRefused = errors.New("refused")

func (h *heap) segment(s *segment) ([]byte, error) {
	h.segments = append(h.segments, *s)
	if len(h.segments) == h.refuse {
		return nil, errRefused
	}
	h.payloads = append(h.payloads, make([]byte, s.payload))
	return h.payloads[len(h.payloads)-1], nil
}

func (h *heap) placed(*segment) error { return nil }

// feed gives a receiver the bytes in pieces of at most step.
func feed(r *receiver, wire []byte, step int, to sink) error {
	for len(wire) > 0 {
		n := 0
		for _, v := range r.vector() {
			n += copy(sliceOf(v), wire[n:min(len(wire), step)])
		}
		if n == 0 {
			return errors.New("the receiver has no room")
		}
		wire = wire[n:]
		r.landed(n)
		if err := r.parse(to); err != nil {
			return err
		}
	}
	return nil
}

// wireOf cuts messages to a stream.
func wireOf(mulpdu int, crc bool, ms ...message) []byte {
	var c cutter
	c.init(mulpdu, crc, Faults{})
	var b batch
	b.init()
	var wire []byte
	for _, m := range ms {
		c.begin(m)
		for more := true; more; {
			b.reset()
			more = !c.segment(&b)
			wire = append(wire, collect(&b)...)
		}
	}
	return wire
}

func TestReceiverPlacesEveryByte(t *testing.T) {
	data := make([]byte, 200<<10)
	for i := range data {
		data[i] = byte(i) ^ byte(i>>8)
	}
	ms := []message{
		{op: opSend, head: data[:76]},
		{op: opWrite, data: data, stag: 7},
		{op: opWrite, stag: 9},
		{op: opSend, head: data[:76], data: data[:333]},
		{op: opReadResponse, data: data[:70_001], to: 5},
	}
	for _, crc := range []bool{false, true} {
		for _, mulpdu := range []int{1442, 24_594, 65_534} {
			wire := wireOf(mulpdu, crc, ms...)
			for _, step := range []int{1, 2, 7, 1000, 4096, 100_000, 1 << 20} {
				if step == 1 && mulpdu > 1442 {
					continue // slow, and no other than the next
				}
				var r receiver
				r.init(crc)
				var h heap
				if err := feed(&r, wire, step, &h); err != nil {
					t.Fatalf("CRC %t, MULPDU %d, steps of %d: %v", crc, mulpdu, step, err)
				}
				if r.middle() {
					t.Errorf("CRC %t, MULPDU %d, steps of %d: something is left over", crc, mulpdu, step)
				}
				var want []byte
				for _, m := range ms {
					want = append(append(want, m.head...), m.data...)
				}
				if got := bytes.Join(h.payloads, nil); !bytes.Equal(got, want) {
					t.Errorf("CRC %t, MULPDU %d, steps of %d: the payload differs", crc, mulpdu, step)
				}
			}
		}
	}
}

// Large payload must not go through the stage, but for what stands beside a header.
func TestReceiverCopiesLittle(t *testing.T) {
	data := make([]byte, 1<<20)
	wire := wireOf(65_534, true, message{op: opWrite, data: data})
	var r receiver
	r.init(true)
	var h heap
	staged := 0
	for fpdu := 0; len(wire) > 0; fpdu++ {
		n := 0
		for i, v := range r.vector() {
			k := copy(sliceOf(v), wire[n:])
			if n += k; fpdu > 0 && i == len(r.vector())-1 {
				staged += k
			}
		}
		wire = wire[n:]
		r.landed(n)
		if err := r.parse(&h); err != nil {
			t.Fatal(err)
		}
	}
	if limit := len(data) / 100; staged > limit {
		t.Errorf("%d of %d bytes went through the stage", staged, len(data))
	}
}

func TestReceiverFindsEveryFlippedBit(t *testing.T) {
	wire := wireOf(1442, true, message{op: opSend, head: []byte("some payload, not a multiple of 4")})
	for bit := range len(wire) * 8 {
		bad := bytes.Clone(wire)
		bad[bit/8] ^= 1 << (bit % 8)
		var r receiver
		r.init(true)
		var h heap
		// A changed length may ask for more than has come: that is no
		// acceptance either.
		if err := feed(&r, bad, len(bad), &h); err == nil && !r.middle() {
			t.Errorf("bit %d: accepted", bit)
		}
	}
}

func TestReceiverStopsWhereRefused(t *testing.T) {
	wire := wireOf(1442, true, message{op: opSend, head: []byte("one")}, message{op: opSend, head: []byte("two")})
	var r receiver
	r.init(true)
	h := heap{refuse: 2}
	if err := feed(&r, wire, len(wire), &h); !errors.Is(err, errRefused) {
		t.Errorf("got %v", err)
	}
}

func FuzzFPDU(f *testing.F) {
	f.Add(wireOf(1442, true, message{op: opSend, head: []byte("hello")}, message{op: opWrite, data: make([]byte, 300), stag: 1}), uint16(5), true)
	f.Add(wireOf(130, false, message{op: opReadRequest, head: make([]byte, readReqLen)}), uint16(100), false)
	f.Add([]byte{0, 0, 0, 0}, uint16(1), true)
	f.Fuzz(func(t *testing.T, wire []byte, step uint16, crc bool) {
		var whole, pieces heap
		var r, s receiver
		r.init(crc)
		s.init(crc)
		err1 := feed(&r, wire, 1<<20, &whole)
		err2 := feed(&s, wire, int(step)+1, &pieces)
		if (err1 == nil) != (err2 == nil) {
			t.Errorf("at once: %v; in pieces: %v", err1, err2)
		}
		if len(whole.segments) != len(pieces.segments) {
			t.Errorf("%d segments at once, %d in pieces", len(whole.segments), len(pieces.segments))
		}
	})
}
