package iscsi

import (
	"bytes"
	"testing"
)

func TestSCSIResponse(t *testing.T) {
	p := SCSIResponse{
		BidiOverflow:      true,
		Underflow:         true,
		Response:          0x71,
		Status:            0x72,
		InitiatorTaskTag:  0x11121314,
		SNACKTag:          0x21222324,
		StatSN:            0x31323334,
		ExpCmdSN:          0x41424344,
		MaxCmdSN:          0x51525354,
		ExpDataSN:         0x61626364,
		BidiResidual:      0x73747576,
		Residual:          0x81828384,
		DataSegmentLength: 0x0a0b0c,
	}
	const rest = `
		00 0a 0b 0c // TotalAHSLength; DataSegmentLength
		00000000 00000000
		11 12 13 14 // Initiator Task Tag
		21 22 23 24 // SNACK Tag (§11.4.4)
		31 32 33 34 // StatSN
		41 42 43 44 // ExpCmdSN
		51 52 53 54 // MaxCmdSN
		61 62 63 64 // ExpDataSN (§11.4.8)
		73 74 75 76 // Bidirectional Read Residual Count (§11.4.6)
		81 82 83 84 // Residual Count (§11.4.5)`
	const reserved = `
		c0 61 00 00
		ff 00 00 00
		ffffffff ffffffff 00000000 00000000 00000000 00000000
		00000000 00000000 00000000 00000000`
	testGolden(t, &p, "21 92 71 72 // §11.4: opcode 0x21; 1, o, U (§11.4.1); Response; Status\n"+rest, reserved)
	testNeedsTask(t, &p)

	p.BidiOverflow, p.BidiUnderflow, p.Underflow, p.Overflow = false, true, false, true
	testGolden(t, &p, "21 8c 71 72 // 1, u, O\n"+rest, reserved)
}

func TestSCSIResponseFlags(t *testing.T) {
	testRefused(t, &SCSIResponse{Overflow: true, Underflow: true}, "both overflow and underflow")
	testRefused(t, &SCSIResponse{BidiOverflow: true, BidiUnderflow: true}, "both overflow and underflow")
	testAccepted(t, &SCSIResponse{BidiOverflow: true, Underflow: true})
}

// The numbers of §11.4.3.
func TestResponseCodes(t *testing.T) {
	if ResponseCompleted != 0x00 || ResponseTargetFailure != 0x01 {
		t.Errorf("completed is %#x, target failure is %#x", ResponseCompleted, ResponseTargetFailure)
	}
}

// §11.4.7: SenseLength, sense data, response data.
func TestResponseSense(t *testing.T) {
	data := []byte{0, 3, 0x70, 0, 6, 0xaa, 0xbb}
	sense, err := ResponseSense(data)
	if err != nil || !bytes.Equal(sense, data[2:5]) {
		t.Errorf("%x, %v", sense, err)
	}
	// Appending to it must not write over what follows.
	_ = append(sense, 0x11)
	if data[5] != 0xaa {
		t.Error("sense data can grow into what follows it")
	}
	for n := 1; n < 5; n++ {
		if sense, err := ResponseSense(data[:n]); err == nil {
			t.Errorf("%d bytes of it parse: %x", n, sense)
		}
	}
	for _, none := range [][]byte{nil, {0, 0}, {0, 0, 1, 2}} {
		if sense, err := ResponseSense(none); err != nil || len(sense) != 0 {
			t.Errorf("from %x: %x, %v", none, sense, err)
		}
	}
}

func TestAppendResponseSense(t *testing.T) {
	got := AppendResponseSense([]byte{0x99}, []byte{0x70, 0, 6})
	if want := []byte{0x99, 0, 3, 0x70, 0, 6}; !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	got = AppendResponseSense(nil, make([]byte, 1<<16))
	if sense, err := ResponseSense(got); err != nil || len(sense) != 1<<16-1 {
		t.Errorf("of 65536 bytes: %d, %v", len(sense), err)
	}
}

func FuzzResponseSense(f *testing.F) {
	f.Add([]byte{0, 3, 0x70, 0, 6, 0xaa, 0xbb})
	f.Add([]byte{0xff, 0xff, 1})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, data []byte) {
		sense, err := ResponseSense(data)
		if err == nil && len(data) > 0 && !bytes.HasPrefix(data, AppendResponseSense(nil, sense)) {
			t.Errorf("%x became sense %x", data, sense)
		}
	})
}
