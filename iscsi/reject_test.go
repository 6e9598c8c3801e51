package iscsi

import "testing"

func TestReject(t *testing.T) {
	testGolden(t, &Reject{
		Reason:            RejectInvalidPDUField,
		StatSN:            0x31323334,
		ExpCmdSN:          0x41424344,
		MaxCmdSN:          0x51525354,
		DataSN:            0x61626364,
		DataSegmentLength: 0x0a0b0c,
	}, `
		3f 80 09 00 // §11.17: opcode 0x3f; 1; Reason (§11.17.1)
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength
		00000000 00000000
		ff ff ff ff // in place of the Initiator Task Tag
		00000000
		31 32 33 34 // StatSN (§11.17.3)
		41 42 43 44 // ExpCmdSN
		51 52 53 54 // MaxCmdSN
		61 62 63 64 // DataSN/R2TSN (§11.17.2)
		00000000 00000000`, `
		c0 7f 00 ff
		ff 00 00 00
		ffffffff ffffffff 00000000 ffffffff 00000000 00000000
		00000000 00000000 ffffffff ffffffff`)
}

// The numbers of §11.17.1.
func TestRejectReasons(t *testing.T) {
	testNames(t, map[RejectReason]string{
		0x01: "reject reason 0x01",
		0x02: "data digest error",
		0x03: "SNACK reject",
		0x04: "protocol error",
		0x05: "command not supported",
		0x06: "too many immediate commands",
		0x07: "task in progress",
		0x08: "invalid data ACK",
		0x09: "invalid PDU field",
		0x0a: "long operation reject: out of resources",
		0x0b: "negotiation reset",
		0x0c: "waiting for logout",
	})
}

func TestRejectedHeader(t *testing.T) {
	var h BHS
	(&NOPOut{InitiatorTaskTag: 0x11121314}).Encode(&h)
	data := append(h[:], 1, 2, 3)
	if got, ok := RejectedHeader(data); !ok || got != h {
		t.Errorf("got %x, %v; want %x", got, ok, h)
	}
	for n := range BHSLen {
		if _, ok := RejectedHeader(data[:n]); ok {
			t.Errorf("%d bytes are a header", n)
		}
	}
}
