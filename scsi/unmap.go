package scsi

import "encoding/binary"

// Extent is a range of blocks.
type Extent struct {
	LBA    uint64
	Blocks uint32
}

// Sizes of an UNMAP parameter list, in bytes (SBC-3 §5.28.2).
const (
	UnmapHeader     = 8
	UnmapDescriptor = 16
)

// AppendUnmap appends an UNMAP parameter list (SBC-3 §5.28.2). Up to 4095
// extents fit what the CDB can say.
func AppendUnmap(b []byte, list ...Extent) []byte {
	n := UnmapDescriptor * len(list)
	b = binary.BigEndian.AppendUint16(b, uint16(n+UnmapHeader-2))
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, 0, 0, 0, 0)
	for _, e := range list {
		b = binary.BigEndian.AppendUint64(b, e.LBA)
		b = binary.BigEndian.AppendUint32(b, e.Blocks)
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

// ParseUnmap parses an UNMAP parameter list. A list that says that it is
// longer than it is gives what is there; a partial descriptor is ignored.
func ParseUnmap(b []byte) ([]Extent, error) {
	if len(b) < UnmapHeader {
		return nil, short("UNMAP parameter list", len(b), UnmapHeader)
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	b = b[UnmapHeader:]
	if n < len(b) {
		b = b[:n]
	}
	var list []Extent
	for ; len(b) >= UnmapDescriptor; b = b[UnmapDescriptor:] {
		list = append(list, Extent{LBA: binary.BigEndian.Uint64(b), Blocks: binary.BigEndian.Uint32(b[8:])})
	}
	return list, nil
}
