package iscsi

import (
	"encoding/binary"
	"hash/crc32"
)

// DigestLen is the length of a header or data digest, in bytes.
const DigestLen = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// DigestUpdate adds p to the digest crc of what came before, which is 0 at the
// start: CRC32C (RFC 7143 §13.1). A header digest covers the BHS and all AHS, a
// data digest the data segment with its padding (§11.2.3), which is the caller's
// to add.
func DigestUpdate(crc uint32, p []byte) uint32 { return crc32.Update(crc, castagnoli, p) }

// PutDigest writes a digest to the first DigestLen bytes of b as it goes over the
// wire: least significant byte first.
func PutDigest(b []byte, crc uint32) { binary.LittleEndian.PutUint32(b, crc) }

// CheckDigest says that the first DigestLen bytes of b, as received, are the digest crc.
func CheckDigest(b []byte, crc uint32) bool {
	return len(b) >= DigestLen && binary.LittleEndian.Uint32(b) == crc
}
