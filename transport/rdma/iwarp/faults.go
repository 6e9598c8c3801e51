package iwarp

// Faults are mistakes that a connection makes on purpose, so that a peer's
// defences can be shown to work. The zero value has none.
type Faults struct {
	Markers     bool // demand markers in the startup frame
	CorruptCRC  int  // the CRC of this FPDU that is sent is wrong; counted from 1
	SkipMSN     int  // a message sequence number is left out before this Send; counted from 1
	ExceedReads bool // twice as many RDMA Reads as negotiated are under way at a time
}
