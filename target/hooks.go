package target

import (
	"fmt"
	"io"
	"slices"

	"iscsictl/scsi"
)

// SessionInfo describes a session.
type SessionInfo struct {
	Connection int    // number of its connection, from 1
	Target     string // "" for a discovery session
	Initiator  string
	User       string // of CHAP
	ISID       [6]byte
	TSIH       uint16
	CID        uint16
	Tag        int // portal group
	Remote     string
	ISER       bool // data by RDMA
	Params     Params

	PDUsIn, PDUsOut uint64
	Commands        uint64
	R2Ts            uint64
	// AckAhead counts requests that acknowledge the StatSN of an R2T as if it
	// had been consumed: wrong, but done by initiators in use, so let through.
	AckAhead                uint64
	BytesRead, BytesWritten uint64
	// RDMAReads and RDMAWrites are how many were posted.
	RDMAReads, RDMAWrites uint64
}

// Sessions lists the sessions that are logged in, oldest first.
func (s *Server) Sessions() []SessionInfo {
	var list []SessionInfo
	for _, c := range s.connections(nil) {
		n := c.session
		info := SessionInfo{
			Connection: c.number, Initiator: n.initiator, User: n.user, ISID: n.isid, TSIH: n.tsih, CID: n.cid,
			Tag: c.tag, Remote: c.remote, ISER: c.iser, Params: n.params,
			PDUsIn: n.counters.pdusIn.Load(), PDUsOut: n.counters.pdusOut.Load(), Commands: n.counters.commands.Load(),
			R2Ts: n.counters.r2ts.Load(), AckAhead: n.counters.ackAhead.Load(),
			BytesRead: n.counters.bytesRead.Load(), BytesWritten: n.counters.bytesWritten.Load(),
			RDMAReads: n.counters.rdmaReads.Load(), RDMAWrites: n.counters.rdmaWrites.Load(),
		}
		if n.node != nil {
			info.Target = n.node.Name
		}
		list = append(list, info)
	}
	return list
}

// Accepted is the number of connections that were accepted so far.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// DropAll closes all connections without a word.
func (s *Server) DropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.close()
	}
}

// Async sends an asynchronous message to all sessions of a target.
func (s *Server) Async(target string, a AsyncEvent) error {
	return s.each(target, func(c *conn) { c.sendAsync(a) })
}

// Ping sends a NOP-In that wants an answer to all sessions of a target.
func (s *Server) Ping(target string) error {
	return s.each(target, (*conn).sendPing)
}

// AddFault adds a fault.
func (s *Server) AddFault(f Fault) error {
	state, err := newFault(f)
	if err != nil {
		return err
	}
	s.faults.add(state)
	return nil
}

// ClearFaults removes all faults. What they have already done stays.
func (s *Server) ClearFaults() { s.faults.clear() }

// Resize changes a unit's capacity to size bytes and tells all sessions with
// unit attention 2A/09. Bytes beyond a smaller size are kept.
func (s *Server) Resize(target string, lun int, size int64) error {
	u, err := s.unit(target, lun)
	if err != nil {
		return err
	}
	if err := u.resize(size); err != nil {
		return err
	}
	return s.each(target, func(c *conn) { c.session.attend(lun, scsi.CodeCapacityChanged) })
}

// AddLUN adds a logical unit and tells all sessions with unit attention 3F/0E.
func (s *Server) AddLUN(target string, l LUN) error {
	n := s.node(target)
	if n == nil {
		return fmt.Errorf("no target %s", target)
	}
	u, err := newUnit(target, l)
	if err != nil {
		return err
	}
	s.mu.Lock()
	old := n.units.Load()
	if s.closed || old.find(l.Number) != nil {
		s.mu.Unlock()
		_ = u.storage.close()
		return fmt.Errorf("LUN %d is there already, or the server is closed", l.Number)
	}
	n.units.Store(newUnitTable(append(slices.Clone(old.list), u)))
	s.mu.Unlock()
	return s.lunsChanged(target)
}

// RemoveLUN removes a logical unit and tells all sessions with unit attention
// 3F/0E. Its waiting tasks end without an answer.
func (s *Server) RemoveLUN(target string, lun int) error {
	n := s.node(target)
	u, err := s.unit(target, lun)
	if err != nil {
		return err
	}
	s.mu.Lock()
	list := slices.Clone(n.units.Load().list)
	n.units.Store(newUnitTable(slices.DeleteFunc(list, func(o *unit) bool { return o == u })))
	s.retired = append(s.retired, u)
	s.mu.Unlock()
	if err := s.each(target, func(c *conn) { c.session.abortTasks(lun) }); err != nil {
		return err
	}
	return s.lunsChanged(target)
}

func (s *Server) lunsChanged(target string) error {
	return s.each(target, func(c *conn) { c.session.attendAll(scsi.CodeLUNsChanged) })
}

// SetStatus makes a unit answer every command but INQUIRY, REPORT LUNS and
// REQUEST SENSE with a status, such as scsi.Busy, until it is set to scsi.Good.
func (s *Server) SetStatus(target string, lun int, status scsi.Status) error {
	u, err := s.unit(target, lun)
	if err != nil {
		return err
	}
	u.forced.Store(uint32(status))
	return nil
}

// SetBusy makes a unit answer BUSY, or stop doing so.
func (s *Server) SetBusy(target string, lun int, busy bool) error {
	if busy {
		return s.SetStatus(target, lun, scsi.Busy)
	}
	return s.SetStatus(target, lun, scsi.Good)
}

// Medium is the content of a logical unit.
type Medium interface {
	io.ReaderAt
	io.WriterAt
}

// Medium gives access to a unit's bytes beside the initiators. Offsets are not
// checked against its size.
func (s *Server) Medium(target string, lun int) (Medium, error) {
	u, err := s.unit(target, lun)
	if err != nil {
		return nil, err
	}
	return u.storage, nil
}

func (s *Server) unit(target string, lun int) (*unit, error) {
	if n := s.node(target); n != nil {
		if u := n.units.Load().find(lun); u != nil {
			return u, nil
		}
	}
	return nil, fmt.Errorf("no LUN %d at target %s", lun, target)
}

// each runs f for all sessions of a target.
func (s *Server) each(target string, f func(c *conn)) error {
	n := s.node(target)
	if n == nil {
		return fmt.Errorf("no target %s", target)
	}
	for _, c := range s.connections(n) {
		c.do(func() { f(c) })
	}
	return nil
}

// Describe lists the targets and their logical units, one a line, for people.
func (s *Server) Describe() []string {
	var lines []string
	for _, n := range s.nodes {
		line := "target " + n.Name
		if n.CHAP != nil {
			line += " (CHAP)"
		}
		lines = append(lines, line)
		for _, u := range n.units.Load().list {
			lines = append(lines, "  "+u.describe())
		}
	}
	return lines
}

func (u *unit) describe() string {
	kind := "memory"
	switch {
	case u.Null:
		kind = "null"
	case u.File != "":
		kind = u.File
	}
	line := fmt.Sprintf("LUN %d: %s, %v, blocks of %d bytes", u.Number, kind, Size(u.blocks.Load()<<u.shift), u.BlockSize)
	if u.Thin {
		line += ", thin"
	}
	if u.ReadOnly {
		line += ", read-only"
	}
	return line
}
