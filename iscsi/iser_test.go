package iscsi

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The headers of a PDU without RDMA, a read (as seen on the wire between real
// implementations), a write, and both.
func TestISERHeader(t *testing.T) {
	for _, c := range []struct {
		header ISERHeader
		wire   string
	}{
		{
			ISERHeader{},
			"10000000" + "00000000" + "0000000000000000" + "00000000" + "0000000000000000",
		},
		{
			ISERHeader{HasRead: true, ReadSTag: 0x1100, ReadBase: 0x7f0000001000},
			"14000000" + "00000000" + "0000000000000000" + "00001100" + "00007f0000001000",
		},
		{
			ISERHeader{HasWrite: true, WriteSTag: 0x2200, WriteBase: 0x7f0000803000},
			"18000000" + "00002200" + "00007f0000803000" + "00000000" + "0000000000000000",
		},
		{
			ISERHeader{HasWrite: true, WriteSTag: 0x01020304, WriteBase: 0x1112131415161718, HasRead: true, ReadSTag: 0x21222324, ReadBase: 0x3132333435363738},
			"1c000000" + "01020304" + "1112131415161718" + "21222324" + "3132333435363738",
		},
	} {
		wire := [ISERHeaderLen]byte{1: 0xa5, 5: 0xa5, 20: 0xa5}
		c.header.Encode(&wire)
		if got := hex.EncodeToString(wire[:]); got != c.wire {
			t.Errorf("%+v:\n got %s\nwant %s", c.header, got, c.wire)
		}
		// Reserved bits do not matter.
		wire[0] |= 0x03
		wire[1], wire[2], wire[3] = 0xff, 0xff, 0xff
		got := ISERHeader{HasRead: true, HasWrite: true, ReadSTag: 9, WriteSTag: 9, ReadBase: 9, WriteBase: 9}
		if err := got.Decode(&wire); err != nil {
			t.Errorf("%+v: %v", c.header, err)
		} else if diff := cmp.Diff(c.header, got); diff != "" {
			t.Errorf("decoded (-want +got):\n%s", diff)
		}
	}
}

// A tag is not used where the header does not say that it is valid.
func TestISERHeaderInvalidTags(t *testing.T) {
	wire := [ISERHeaderLen]byte{0: 0x10, 4: 1, 8: 1, 16: 1, 20: 1}
	got := ISERHeader{HasRead: true, ReadSTag: 9}
	if err := got.Decode(&wire); err != nil || got != (ISERHeader{}) {
		t.Errorf("%+v, %v", got, err)
	}
	unclean := ISERHeader{WriteSTag: 1, WriteBase: 2, ReadSTag: 3, ReadBase: 4}
	unclean.Encode(&wire)
	if wire != [ISERHeaderLen]byte{0: 0x10} {
		t.Errorf("%+v is encoded as %x", unclean, wire)
	}
}

// Hello and HelloReply (2, 3) and what does not exist are no control-type PDUs.
func TestISERHeaderOpcode(t *testing.T) {
	for op := range byte(16) {
		wire := [ISERHeaderLen]byte{op << 4}
		if err := new(ISERHeader).Decode(&wire); (err == nil) != (op == 1) {
			t.Errorf("opcode %d: %v", op, err)
		}
	}
}

func FuzzISERHeader(f *testing.F) {
	f.Add([]byte{0x1c, 0, 0, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		var wire, again [ISERHeaderLen]byte
		copy(wire[:], data)
		var p, q ISERHeader
		if p.Decode(&wire) != nil {
			return
		}
		p.Encode(&again)
		if err := q.Decode(&again); err != nil || p != q {
			t.Errorf("%+v became %+v, %v", p, q, err)
		}
	})
}
