package target

import "encoding/binary"

// cdbOf builds a 16-byte CDB from its bytes.
func cdbOf(b ...byte) (cdb [16]byte) {
	copy(cdb[:], b)
	return cdb
}

func cdb10(op byte, lba uint32, blocks uint16) [16]byte {
	cdb := cdbOf(op)
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint16(cdb[7:], blocks)
	return cdb
}

func cdb16(op byte, lba uint64, blocks uint32) [16]byte {
	cdb := cdbOf(op)
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], blocks)
	return cdb
}

func testUnitReady() [16]byte { return [16]byte{} }
