package iscsi

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pdu is what all PDU types have in common.
type pdu interface {
	Encode(h *BHS)
	Decode(h *BHS) error
}

// parseBHS reads a header as tests write it: hexadecimal, with spaces, and
// comments from // to the end of a line.
func parseBHS(t *testing.T, text string) BHS {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		code, _, _ := strings.Cut(line, "//")
		digits.WriteString(strings.Join(strings.Fields(code), ""))
	}
	data, err := hex.DecodeString(digits.String())
	if err != nil || len(data) != BHSLen {
		t.Fatalf("test's own header is wrong: %d bytes, %v", len(data), err)
	}
	return BHS(data)
}

// testGolden checks that p and the header are the same PDU in both directions,
// and that setting all bits of the mask reserved, and any one alone, does not
// matter to the decoder. Both are written down from the figures of RFC 7143 §11.
func testGolden(t *testing.T, p pdu, header, reserved string) {
	t.Helper()
	want, mask := parseBHS(t, header), parseBHS(t, reserved)
	// The encoder has to clear what was in the header before.
	got := BHS(bytes.Repeat([]byte{0xa5}, BHSLen))
	p.Encode(&got)
	if got != want {
		t.Errorf("Encode:\n got %x\nwant %x", got, want)
	}
	testDecode(t, want, p)
	for i := range BHSLen * 8 {
		if bit := byte(1) << (i % 8); mask[i/8]&bit != 0 {
			h := want
			if h[i/8]&bit != 0 {
				t.Fatalf("test's own mask is wrong: byte %d has bit %#x set and reserved", i/8, bit)
			}
			h[i/8] |= bit
			testDecode(t, h, p)
		}
	}
	for i := range want {
		want[i] |= mask[i]
	}
	testDecode(t, want, p)
}

// testDecode checks that h decodes to want, over a value that had other fields.
func testDecode(t *testing.T, h BHS, want pdu) {
	t.Helper()
	got := reflect.New(reflect.TypeOf(want).Elem()).Interface().(pdu)
	fill(rand.New(rand.NewPCG(1, 2)), got)
	if err := got.Decode(&h); err != nil {
		t.Errorf("Decode of %x: %v", h, err)
	} else if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Decode of %x (-want +got):\n%s", h, diff)
	}
}

// testRefused checks that p, encoded, is not decoded, and that the message names
// the PDU and says what is in reason.
func testRefused(t *testing.T, p pdu, reason string) {
	t.Helper()
	var h BHS
	p.Encode(&h)
	err := p.Decode(&h)
	if err == nil {
		t.Errorf("%+v: decoded", p)
		return
	}
	if !strings.HasPrefix(err.Error(), h.Opcode().String()+": ") || !strings.Contains(err.Error(), reason) {
		t.Errorf("%+v: error is %q", p, err)
	}
}

// testAccepted checks that p, encoded, decodes to p.
func testAccepted(t *testing.T, p pdu) {
	t.Helper()
	var h BHS
	p.Encode(&h)
	testDecode(t, h, p)
}

// testNeedsTask checks that p is not decoded with a reserved initiator task tag.
func testNeedsTask(t *testing.T, p pdu) {
	t.Helper()
	var h BHS
	p.Encode(&h)
	copy(h[16:20], []byte{0xff, 0xff, 0xff, 0xff}) // §11.2.1.8
	if err := p.Decode(&h); err == nil || !strings.Contains(err.Error(), "initiator task tag is reserved") {
		t.Errorf("%v with a reserved initiator task tag: %v", h.Opcode(), err)
	}
}

// testNames checks the names of numbers.
func testNames[T interface {
	comparable
	String() string
}](t *testing.T, names map[T]string) {
	t.Helper()
	for v, want := range names {
		if got := v.String(); got != want {
			t.Errorf("%T is named %q, want %q", v, got, want)
		}
	}
}

// allPDUs is one of each, by opcode (RFC 7143 §11.2.1.2).
func allPDUs() map[Opcode]pdu {
	return map[Opcode]pdu{
		0x00: new(NOPOut),
		0x01: new(SCSICommand),
		0x02: new(TaskManagementRequest),
		0x03: new(LoginRequest),
		0x04: new(TextRequest),
		0x05: new(DataOut),
		0x06: new(LogoutRequest),
		0x10: new(SNACKRequest),
		0x20: new(NOPIn),
		0x21: new(SCSIResponse),
		0x22: new(TaskManagementResponse),
		0x23: new(LoginResponse),
		0x24: new(TextResponse),
		0x25: new(DataIn),
		0x26: new(LogoutResponse),
		0x31: new(R2T),
		0x32: new(AsyncMessage),
		0x3f: new(Reject),
	}
}

// fill gives every field of p a value that the field can have on the wire.
func fill(r *rand.Rand, p pdu) {
	v := reflect.ValueOf(p).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		switch f.Kind() {
		case reflect.Bool:
			f.SetBool(r.IntN(2) == 1)
		case reflect.Int:
			f.SetInt(r.Int64N(1 << 24))
			if v.Type().Field(i).Name == "AHSLength" {
				f.SetInt(4 * r.Int64N(256))
			}
		case reflect.Array:
			for j := range f.Len() {
				f.Index(j).SetUint(r.Uint64N(256))
			}
		default:
			f.SetUint(r.Uint64() >> (64 - f.Type().Bits()))
		}
	}
	narrow(r, p)
}

// narrow makes what fill made a PDU that RFC 7143 allows.
func narrow(r *rand.Rand, p pdu) {
	switch p := p.(type) {
	case *NOPOut:
		p.Immediate = p.Immediate || p.InitiatorTaskTag == ReservedTag
	case *SCSICommand:
		p.Attribute %= 8
		p.Write = p.Write || !p.Final || !p.Read
	case *TaskManagementRequest:
		p.Function %= 128
	case *LoginRequest:
		p.Transit, p.Continue, p.CurrentStage, p.NextStage = stages(r)
	case *LoginResponse:
		p.Transit, p.Continue, p.CurrentStage, p.NextStage = stages(r)
	case *TextRequest:
		p.Continue = p.Continue && !p.Final
	case *TextResponse:
		p.Continue = p.Continue && !p.Final
	case *DataOut:
		p.BufferOffset %= 0xff000000
	case *DataIn:
		p.BufferOffset %= 0xff000000
		p.Final = p.Final || p.HasStatus
		p.Underflow = p.Underflow && !p.Overflow
	case *LogoutRequest:
		p.Reason %= 128
	case *SNACKRequest:
		p.Type %= 16
	case *NOPIn:
		if r.IntN(2) == 1 {
			p.InitiatorTaskTag = ReservedTag
		} else {
			p.TargetTransferTag = ReservedTag
		}
	case *SCSIResponse:
		p.Underflow = p.Underflow && !p.Overflow
		p.BidiUnderflow = p.BidiUnderflow && !p.BidiOverflow
	case *R2T:
		p.BufferOffset %= 0x7fffffff
		p.DesiredLength = 1 + p.DesiredLength%0x7fffffff
	}
}

func stages(r *rand.Rand) (transit, more bool, current, next Stage) {
	switch r.IntN(5) {
	case 0:
		return false, r.IntN(2) == 1, StageSecurity, 0
	case 1:
		return false, r.IntN(2) == 1, StageOperational, 0
	case 2:
		return true, false, StageSecurity, StageOperational
	case 3:
		return true, false, StageSecurity, StageFullFeature
	}
	return true, false, StageOperational, StageFullFeature
}

func newRand(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestRoundTrip(t *testing.T) {
	r := newRand(t)
	for op, p := range allPDUs() {
		for range 500 {
			fill(r, p)
			var h BHS
			p.Encode(&h)
			if h.Opcode() != op {
				t.Fatalf("%T has opcode %v, not %v", p, h.Opcode(), op)
			}
			testDecode(t, h, p)
		}
		if t.Failed() {
			return
		}
	}
}

// No PDU is taken for another.
func TestDecodeOtherOpcode(t *testing.T) {
	for op, p := range allPDUs() {
		for other := range Opcode(64) {
			h := BHS{byte(other)}
			err := p.Decode(&h)
			if other == op {
				continue // may be valid or not
			}
			if err == nil || !strings.Contains(err.Error(), "unexpected PDU") {
				t.Errorf("%T from opcode %v: %v", p, other, err)
			}
		}
	}
}

func TestCodecsDoNotAllocate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for op, p := range allPDUs() {
		fill(r, p)
		var h BHS
		if n := testing.AllocsPerRun(10, func() { p.Encode(&h) }); n != 0 {
			t.Errorf("%v: Encode allocates %v times", op, n)
		}
		if n := testing.AllocsPerRun(10, func() { _ = p.Decode(&h) }); n != 0 {
			t.Errorf("%v: Decode allocates %v times", op, n)
		}
	}
}

// Whatever is decoded and encoded again decodes to the same.
func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, p := range allPDUs() {
		fill(r, p)
		var h BHS
		p.Encode(&h)
		f.Add(h[:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var h BHS
		copy(h[:], data)
		p, ok := allPDUs()[h.Opcode()]
		if !ok || p.Decode(&h) != nil {
			return
		}
		var again BHS
		p.Encode(&again)
		testDecode(t, again, p)
	})
}

func BenchmarkSCSICommandEncode(b *testing.B) {
	p := SCSICommand{
		Final: true, Read: true, Attribute: Simple, LUN: 1 << 48, InitiatorTaskTag: 0x10002,
		ExpectedDataTransferLength: 4096, CmdSN: 3, ExpStatSN: 4, CDB: [16]byte{0x28, 8: 8},
	}
	var h BHS
	b.ReportAllocs()
	for b.Loop() {
		p.CmdSN++
		p.Encode(&h)
	}
}

func BenchmarkDataInDecode(b *testing.B) {
	p := DataIn{
		Final: true, HasStatus: true, InitiatorTaskTag: 0x10002, TargetTransferTag: ReservedTag,
		StatSN: 3, ExpCmdSN: 4, MaxCmdSN: 5, DataSegmentLength: 4096,
	}
	var h BHS
	p.Encode(&h)
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Decode(&h); err != nil {
			b.Fatal(err)
		}
	}
}
