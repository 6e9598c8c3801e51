package iscsi

import (
	"bytes"
	"testing"
)

func TestAsyncMessage(t *testing.T) {
	testGolden(t, &AsyncMessage{
		LUN:               0x0102030405060708,
		StatSN:            0x31323334,
		ExpCmdSN:          0x41424344,
		MaxCmdSN:          0x51525354,
		Event:             AsyncDropConnection,
		VendorCode:        0x62,
		Parameter1:        0x6364,
		Parameter2:        0x7172,
		Parameter3:        0x7374,
		DataSegmentLength: 0x0a0b0c,
	}, `
		32 80 00 00 // §11.9: opcode 0x32; 1
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength
		01 02 03 04 05 06 07 08 // LUN (§11.9.3)
		ff ff ff ff // in place of the Initiator Task Tag
		00000000
		31 32 33 34 // StatSN
		41 42 43 44 // ExpCmdSN
		51 52 53 54 // MaxCmdSN
		02 // AsyncEvent (§11.9.1)
		62 // AsyncVCode (§11.9.2)
		63 64 // Parameter1
		71 72 // Parameter2
		73 74 // Parameter3
		00000000`, `
		c0 7f ff ff
		ff 00 00 00
		00000000 00000000 00000000 ffffffff 00000000 00000000
		00000000 00000000 00000000 ffffffff`)
}

// The numbers of §11.9.1.
func TestAsyncEvents(t *testing.T) {
	testNames(t, map[AsyncEvent]string{
		0: "SCSI asynchronous event", 1: "target requests logout",
		2: "target will drop the connection", 3: "target will drop all connections of the session",
		4: "target requests parameter negotiation", 5: "all active tasks of the LUN are being terminated",
		255: "vendor-specific event", 6: "asynchronous event 6",
	})
}

// §11.9.4: SenseLength, sense data, event data.
func TestParseAsyncSense(t *testing.T) {
	data := []byte{0, 3, 0x70, 0, 6, 0xaa, 0xbb}
	sense, vendor, err := ParseAsyncSense(data)
	if err != nil || !bytes.Equal(sense, data[2:5]) || !bytes.Equal(vendor, data[5:]) {
		t.Errorf("sense %x, vendor %x, %v", sense, vendor, err)
	}
	sense, vendor, err = ParseAsyncSense(data[:5])
	if err != nil || !bytes.Equal(sense, data[2:5]) || len(vendor) != 0 {
		t.Errorf("without event data: sense %x, vendor %x, %v", sense, vendor, err)
	}
	for n := 1; n < 5; n++ {
		if sense, _, err := ParseAsyncSense(data[:n]); err == nil {
			t.Errorf("%d bytes of it parse: %x", n, sense)
		}
	}
	if sense, vendor, err := ParseAsyncSense(nil); err != nil || len(sense)+len(vendor) != 0 {
		t.Errorf("no data: sense %x, vendor %x, %v", sense, vendor, err)
	}
}

func FuzzParseAsyncSense(f *testing.F) {
	f.Add([]byte{0, 3, 0x70, 0, 6, 0xaa, 0xbb})
	f.Add([]byte{0xff, 0xff, 1})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, data []byte) {
		sense, vendor, err := ParseAsyncSense(data)
		if err != nil || len(data) == 0 {
			return
		}
		// There is nothing before, between and after them but the length.
		if again := append(AppendResponseSense(nil, sense), vendor...); !bytes.Equal(again, data) {
			t.Errorf("%x became sense %x, vendor %x", data, sense, vendor)
		}
	})
}
