package iwarp

import (
	"bytes"
	"hash/crc32"
	"testing"
)

// Seen between an initiator and siw: FPDUs without padding and CRC.
var segments = []struct {
	name    string
	bytes   []string // up to the payload
	ulpdu   int
	segment segment
}{
	{
		"Send",
		[]string{"4143", "00000000", "00000000", "00000002", "00000000"},
		0x5e,
		segment{last: true, op: opSend, msn: 2, payload: 76},
	},
	{
		"Write",
		[]string{"c140", "00001100", "00007f0000001000"},
		0x6e,
		segment{tagged: true, last: true, op: opWrite, stag: 0x1100, to: 0x7f0000001000, payload: 96},
	},
	{
		"Read Request",
		[]string{"4141", "00000000", "00000001", "00000001", "00000000"},
		0x2e,
		segment{last: true, op: opReadRequest, qn: queueRead, msn: 1, payload: readReqLen},
	},
	{
		"Read Response",
		[]string{"8142", "c413f101", "ffff8c4d095e6000"},
		0x5a0,
		segment{tagged: true, op: opReadResponse, stag: 0xc413f101, to: 0xffff8c4d095e6000, payload: 0x5a0 - taggedLen},
	},
	{
		"last Read Response",
		[]string{"c142", "c413f101", "ffff8c4d095e6592"},
		0x5a0,
		segment{tagged: true, last: true, op: opReadResponse, stag: 0xc413f101, to: 0xffff8c4d095e6592, payload: 0x5a0 - taggedLen},
	},
	{
		"Send with Invalidate",
		[]string{"4144", "00001100", "00000000", "00000002", "00000000"},
		0x5e,
		segment{last: true, op: opSendInvalidate, stag: 0x1100, msn: 2, payload: 76},
	},
}

func TestSegments(t *testing.T) {
	for _, c := range segments {
		want := unhex(t, c.bytes...)
		c.segment.ddp, c.segment.rdmap = ddpVersion, rdmapVersion>>6
		if n := segmentHeaderLen(want[0]); n != len(want) {
			t.Errorf("%s: header of %d bytes, want %d", c.name, n, len(want))
			continue
		}
		if got := parseSegment(want, c.ulpdu); got != c.segment {
			t.Errorf("%s: decoded as %+v, want %+v", c.name, got, c.segment)
		}
		if got := c.segment.append(nil); !bytes.Equal(got, want) {
			t.Errorf("%s: encoded as %x, want %x", c.name, got, want)
		}
	}
}

func TestReadRequest(t *testing.T) {
	b := unhex(t, "c413f101", "ffff8c4d095e6000", "000fe000", "00002200", "00007f0000803000")
	want := readRequest{sinkSTag: 0xc413f101, sinkTO: 0xffff8c4d095e6000, length: 0xfe000, srcSTag: 0x2200, srcTO: 0x7f0000803000}
	if got := parseReadRequest(b); got != want {
		t.Errorf("decoded as %+v, want %+v", got, want)
	}
	if got := want.append(nil); !bytes.Equal(got, b) {
		t.Errorf("encoded as %x, want %x", got, b)
	}
}

func TestPadding(t *testing.T) {
	for n, want := range map[int]int{14: 0, 15: 3, 16: 2, 17: 1, 18: 0, 0x5e: 0, 0x5a0: 2, 65535: 3} {
		if got := fpduPad(n); got != want || (lengthLen+n+got)%4 != 0 {
			t.Errorf("a ULPDU of %d bytes is padded with %d, want %d", n, got, want)
		}
	}
}

// collect is the text of a batch as the wire has it.
func collect(b *batch) []byte {
	var all []byte
	for _, v := range b.vector {
		all = append(all, sliceOf(v)...)
	}
	return all
}

// A message that is cut small must come together again, whatever its head and
// data are, with every FPDU within the limit and its CRC right.
func TestCutting(t *testing.T) {
	data := make([]byte, 5000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for _, mulpdu := range []int{130, 1442, 65534} {
		for _, headLen := range []int{0, 1, 76, 256, 257, 4000} {
			for _, dataLen := range []int{0, 1, 113, 5000} {
				head := bytes.Repeat([]byte{0xaa}, headLen)
				var c cutter
				c.init(mulpdu, true, Faults{})
				var b batch
				b.init()
				c.begin(message{op: opSend, head: head, data: data[:dataLen]})
				var got []byte
				for more := true; more; {
					b.reset()
					more = !c.segment(&b)
					wire := collect(&b)
					n := int(wire[0])<<8 | int(wire[1])
					if n > mulpdu || len(wire) != lengthLen+n+fpduPad(n)+crcLen {
						t.Fatalf("FPDU of %d bytes with a ULPDU of %d, limit %d", len(wire), n, mulpdu)
					}
					body, sum := wire[:len(wire)-crcLen], wire[len(wire)-crcLen:]
					if crc := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)); !bytes.Equal(sum, []byte{byte(crc), byte(crc >> 8), byte(crc >> 16), byte(crc >> 24)}) {
						t.Fatalf("CRC %x of %x", sum, crc)
					}
					s := parseSegment(wire[lengthLen:], n)
					if int(s.mo) != len(got) || s.last == more || s.msn != 1 {
						t.Fatalf("segment %+v after %d bytes", s, len(got))
					}
					got = append(got, wire[lengthLen+untaggedLen:lengthLen+n]...)
				}
				if want := append(head, data[:dataLen]...); !bytes.Equal(got, want) {
					t.Errorf("MULPDU %d, head %d, data %d: %d bytes come out that differ", mulpdu, headLen, dataLen, len(got))
				}
			}
		}
	}
}

func FuzzSegment(f *testing.F) {
	for _, c := range segments {
		f.Add(unhex(f, c.bytes...))
	}
	f.Add([]byte("\xb1A0000000000000000000000000000000000000000")) // a Read Request that is tagged
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 1 || len(b) < segmentHeaderLen(b[0]) || len(b) > ulpduMax {
			return
		}
		s := parseSegment(b, len(b))
		if s.payload < 0 || s.payload > len(b) {
			t.Errorf("%d bytes of payload in %d", s.payload, len(b))
		}
		if s.ddp != ddpVersion || s.rdmap != rdmapVersion>>6 {
			return
		}
		if again := parseSegment(s.append(nil), len(b)); again != s {
			t.Errorf("%+v becomes %+v", s, again)
		}
		if s.op == opReadRequest && !s.tagged && s.payload >= readReqLen {
			q := parseReadRequest(b[untaggedLen:])
			if again := q.append(nil); !bytes.Equal(again, b[untaggedLen:untaggedLen+readReqLen]) {
				t.Errorf("%+v is encoded as %x", q, again)
			}
		}
	})
}
