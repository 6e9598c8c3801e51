package tcp

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"iscsictl/transport"
)

// Stepper is a mover without a socket: whoever holds it takes what is to be
// sent and hands in what has come, in pieces of any size, so that a simulation
// can play any cut of the stream. Its methods are called by one goroutine,
// without the session's lock; those of transport.Mover as that says.
type Stepper struct {
	rules
	recv   receiver
	out    *batch
	rest   []unix.Iovec
	closed bool
	cause  error
}

// NewStepper makes a mover for a session with a task table of that size.
func NewStepper(p transport.Params, s transport.Session, tasks int) *Stepper {
	m := &Stepper{}
	m.rules.init(p, s, tasks)
	m.recv.init(p.HeaderDigest, p.DataDigest, p.MaxRecvDataSegmentLength)
	return m
}

// Offers are what login offers for this kind of datamover.
func (*Stepper) Offers() transport.Offers { return (*loginConn)(nil).Offers() }

// Start implements transport.Mover.
func (m *Stepper) Start() {}

// Flush implements transport.Mover: Output takes what is queued.
func (m *Stepper) Flush() {}

// Close implements transport.Mover. End follows, at the holder's time.
func (m *Stepper) Close(err error) {
	if !m.closed {
		m.closed, m.cause = true, err
	}
}

// Closed reports whether the connection is to be dropped.
func (m *Stepper) Closed() bool { return m.closed }

// Output appends up to n bytes of what is queued to b, as a write to a socket
// with so much room takes them.
func (m *Stepper) Output(b []byte, n int) []byte {
	for n > 0 && !m.closed {
		if m.out == nil {
			if m.out = m.send.take(); m.out == nil {
				break
			}
			m.rest = m.out.vector
		}
		for n > 0 && len(m.rest) > 0 {
			v := &m.rest[0]
			k := min(n, int(v.Len))
			b = append(b, unsafe.Slice(v.Base, k)...)
			n -= k
			if v.Len -= uint64(k); v.Len > 0 {
				v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), k))
				break
			}
			m.rest = m.rest[1:]
		}
		if len(m.rest) == 0 {
			m.wrote()
		}
	}
	return b
}

// wrote ends the writing of a batch, as a socket's writer does.
func (m *Stepper) wrote() {
	m.out = nil
	if ended := m.send.written(); len(ended) > 0 {
		m.session.Enter()
		var failed error
		for _, t := range ended {
			if err := m.released(t); err != nil {
				failed = err
			}
		}
		m.session.Leave()
		if failed != nil {
			m.Close(failed)
		}
	}
	m.send.done()
}

// Input takes in what has come, and returns how much of b one read has taken.
func (m *Stepper) Input(b []byte) int {
	if m.closed || len(b) == 0 {
		return 0
	}
	n := 0
	for _, v := range m.recv.vector() {
		n += copy(unsafe.Slice(v.Base, v.Len), b[n:])
	}
	m.recv.landed(n)
	m.session.Enter()
	err := m.recv.parse(&m.rules)
	if err == nil {
		err = m.failed
	}
	m.session.Leave()
	if err != nil {
		m.Close(err)
	}
	return n
}

// Refers reports whether anything queued, being written or being received lies
// within b.
func (m *Stepper) Refers(b []byte) bool {
	from := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	within := func(at uintptr, n int) bool { return n > 0 && at < from+uintptr(len(b)) && from < at+uintptr(n) }
	for _, list := range [][]unix.Iovec{m.rest, m.send.next.vector} {
		for _, v := range list {
			if within(uintptr(unsafe.Pointer(v.Base)), int(v.Len)) {
				return true
			}
		}
	}
	return within(uintptr(unsafe.Pointer(unsafe.SliceData(m.recv.place))), len(m.recv.place))
}

// End tells the session that the connection has ended: nothing refers to its
// extents any more.
func (m *Stepper) End() {
	if m.out != nil {
		m.out = nil
		m.send.done()
	}
	m.send.close()
	m.session.Down(m.cause)
}
