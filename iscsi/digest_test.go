package iscsi

import (
	"bytes"
	"testing"
)

// The examples of RFC 3720 §B.4 (RFC 7143 appendix A.4), in the order of the wire.
func TestDigest(t *testing.T) {
	rising, falling := make([]byte, 32), make([]byte, 32)
	for i := range rising {
		rising[i], falling[31-i] = byte(i), byte(i)
	}
	read := parseBHS(t, `
		01 c0 00 00 00 00 00 00 00 00 00 00 00 00 00 00
		14 00 00 00 00 00 04 00 00 00 00 14 00 00 00 18
		28 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00`)
	for _, c := range []struct {
		name string
		data []byte
		wire [DigestLen]byte
	}{
		{"zeroes", make([]byte, 32), [DigestLen]byte{0xaa, 0x36, 0x91, 0x8a}},
		{"ones", bytes.Repeat([]byte{0xff}, 32), [DigestLen]byte{0x43, 0xab, 0xa8, 0x62}},
		{"incrementing", rising, [DigestLen]byte{0x4e, 0x79, 0xdd, 0x46}},
		{"decrementing", falling, [DigestLen]byte{0x5c, 0xdb, 0x3f, 0x11}},
		{"SCSI Read (10)", read[:], [DigestLen]byte{0x56, 0x3a, 0x96, 0xd9}},
	} {
		for cut := range len(c.data) + 1 { // in one part and in two
			crc := DigestUpdate(DigestUpdate(0, c.data[:cut]), c.data[cut:])
			var wire [DigestLen]byte
			PutDigest(wire[:], crc)
			if wire != c.wire {
				t.Errorf("%s, cut at %d: % x, want % x", c.name, cut, wire, c.wire)
			}
			if !CheckDigest(c.wire[:], crc) {
				t.Errorf("%s, cut at %d: not its own digest", c.name, cut)
			}
		}
	}
}

func TestCheckDigest(t *testing.T) {
	const crc = 0x8a9136aa
	good := []byte{0xaa, 0x36, 0x91, 0x8a}
	for i := range 32 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if CheckDigest(bad, crc) {
			t.Errorf("% x is taken for the digest of % x", bad, good)
		}
	}
	for n := range DigestLen {
		if CheckDigest(good[:n], crc) {
			t.Errorf("%d bytes are a digest", n)
		}
	}
	if !CheckDigest(append(good, 1), crc) {
		t.Error("what follows a digest matters")
	}
}

func BenchmarkDigestUpdate(b *testing.B) {
	data := make([]byte, 4096)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	var crc uint32
	for b.Loop() {
		crc = DigestUpdate(crc, data)
	}
}
