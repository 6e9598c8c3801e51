package target

import "net"

// stream moves data on a TCP connection, as RFC 7143 has it: in the data
// segments of PDUs. It implements datamover.
type stream struct {
	c   *conn
	nc  net.Conn
	in  input
	out output
}

func newStream(s *Server, nc net.Conn, number, tag int) *conn {
	m := &stream{nc: nc, in: newInput(), out: newOutput()}
	m.c = newConn(s, m, number, tag, nc.LocalAddr().String(), nc.RemoteAddr().String())
	return m.c
}

// Digests are in force from full-feature phase on (RFC 7143 §13.1).
func (m *stream) headerDigest() bool {
	return m.c.login == nil && m.c.session.params.HeaderDigest
}

func (m *stream) dataDigest() bool {
	return m.c.login == nil && m.c.session.params.DataDigest
}

// open implements datamover.
func (m *stream) open() error { return nil }

// drain implements datamover: flush has waited.
func (m *stream) drain() { _ = m.flush() }

// settle implements datamover: data that comes late is dropped.
func (m *stream) settle() {}

// suspend implements datamover: the conn's goroutine is all that reads.
func (m *stream) suspend() {}

// resume implements datamover.
func (m *stream) resume() {}

// close implements datamover.
func (m *stream) close() { _ = m.nc.Close() }

// end implements datamover.
func (m *stream) end() {}

// burstLimit implements datamover.
func (m *stream) burstLimit() (size uint32, outstanding int) {
	p := &m.c.session.params
	return uint32(p.MaxBurstLength), p.MaxOutstandingR2T
}
