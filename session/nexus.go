package session

import (
	"errors"
	"fmt"
	"time"

	"iscsictl/iscsi"
	"iscsictl/transport"
)

// internalTasks is how many task tags are set aside for what is not a command
// of the issuers: pings, task management, logout.
const internalTasks = 8

// kind is what a task tag is in use for.
type kind uint8

const (
	kindFree kind = iota
	kindCommand
	kindPing
	kindTaskManagement
	kindLogout
)

// slot is a place in the task table. Its initiator task tag is made of its
// index and of a generation, so that an answer to an earlier user is noticed.
type slot struct {
	task       transport.Task
	cmd        *Command
	kind       kind
	generation uint16
	issued     time.Duration // of a command, when
	timedOut   bool          // task management has been tried for it
	rejected   bool          // the target has refused it
}

// limits are what the nexus reads of configuration and tunables, at each tick.
type limits struct {
	command time.Duration // a command's time; 0: no limit
	ping    time.Duration // silence after which the connection is dead; 0: no pings
}

// nexus is the full-feature phase of one connection: a state machine without
// I/O. Its methods are called under the session's lock.
type nexus struct {
	number uint64
	mover  transport.Mover
	params transport.Params

	cmdSN, maxCmdSN uint32 // RFC 7143 §4.2.2
	statuses
	slots             []slot
	free              []uint16
	active, maxActive int // commands on the wire, and their limit

	head, tail *Command // that wait for the window or a tag
	done       []*Command

	now      time.Duration // at the last tick
	heard    bool          // a PDU came since then
	limits   limits
	ping     pinger
	manage   management
	managing int // task management requests that are not answered
	bye      farewell

	failed error    // the connection is to be dropped
	async  []async  // to be told to the handler
	logs   []string // warnings, for the log
}

// async is sense data that the target sent by itself.
type async struct {
	lun   uint64
	sense []byte
}

// numbers are where login has left the counters.
type numbers struct {
	cmdSN, maxCmdSN, expStatSN uint32
}

func newNexus(number uint64, n numbers, p transport.Params, maxActive int, l limits, now time.Duration) *nexus {
	x := &nexus{
		number: number, params: p,
		cmdSN: n.cmdSN, maxCmdSN: n.maxCmdSN, statuses: statuses{expStatSN: n.expStatSN, loose: p.LooseStatSN},
		slots: make([]slot, maxActive+internalTasks), maxActive: maxActive,
		now: now, heard: true, limits: l,
	}
	x.ping.heardAt = now
	x.free = make([]uint16, 0, len(x.slots))
	for i := range x.slots {
		x.free = append(x.free, uint16(len(x.slots)-1-i))
	}
	return x
}

// submit queues commands, in order.
func (n *nexus) submit(batch []*Command) {
	for _, c := range batch {
		c.next, c.started = nil, n.now
		if n.tail == nil {
			n.head = c
		} else {
			n.tail.next = c
		}
		n.tail = c
	}
	n.pump()
}

// pump sends what waits, as far as the command window and the table allow.
func (n *nexus) pump() {
	for n.head != nil && n.active < n.maxActive && !n.manage.blocks() && !n.bye.sent &&
		iscsi.SerialLessEq(n.cmdSN, n.maxCmdSN) {
		c := n.head
		n.head = c.next
		if n.head == nil {
			n.tail = nil
		}
		c.next = nil
		n.issue(c)
	}
}

func (n *nexus) issue(c *Command) {
	s := n.take(kindCommand)
	s.cmd = c
	s.issued = n.now + tickEvery // the last tick may have been that long ago
	n.active++
	t := &s.task
	t.Out, t.In = c.Out, c.In
	attribute := c.Attribute
	if attribute == iscsi.Untagged {
		attribute = iscsi.Simple
	}
	t.Command = iscsi.SCSICommand{
		Read: c.In.Len() > 0, Write: c.Out.Len() > 0,
		Attribute:                  attribute,
		LUN:                        c.LUN,
		InitiatorTaskTag:           t.Command.InitiatorTaskTag,
		ExpectedDataTransferLength: uint32(max(c.In.Len(), c.Out.Len())),
		CmdSN:                      n.cmdSN,
		CDB:                        c.CDB,
	}
	n.cmdSN++
	n.mover.Command(t)
}

// take gets a tag from the table; there is always one for internal use, since
// fewer than internalTasks of these are made.
func (n *nexus) take(k kind) *slot {
	i := n.free[len(n.free)-1]
	n.free = n.free[:len(n.free)-1]
	s := &n.slots[i]
	s.kind, s.timedOut, s.rejected = k, false, false
	s.generation++
	s.task.Index = int(i)
	s.task.Command.InitiatorTaskTag = uint32(s.generation)<<16 | uint32(i)
	return s
}

func (n *nexus) release(s *slot) {
	if s.kind == kindCommand {
		n.active--
	}
	s.kind, s.cmd = kindFree, nil
	n.free = append(n.free, uint16(s.task.Index))
}

func (s *slot) tag() uint32 { return s.task.Command.InitiatorTaskTag }

// find returns the slot of a tag that is in use for k, or nil.
func (n *nexus) find(itt uint32, k kind) *slot {
	i := int(itt & 0xffff)
	if i >= len(n.slots) {
		return nil
	}
	if s := &n.slots[i]; s.kind == k && s.tag() == itt {
		return s
	}
	return nil
}

// Numbers implements transport.Session (RFC 7143 §4.2.2).
func (n *nexus) Numbers(hasStatus bool, statSN, expCmdSN, maxCmdSN uint32) error {
	n.heard = true
	if hasStatus {
		if err := n.status(statSN); err != nil {
			return err
		}
	}
	// §4.2.2.1: MaxCmdSN below ExpCmdSN-1 is to be ignored, and so is one
	// that is older than what we have.
	if !iscsi.SerialLess(maxCmdSN, expCmdSN-1) && iscsi.SerialLess(n.maxCmdSN, maxCmdSN) {
		n.maxCmdSN = maxCmdSN
	}
	return nil
}

// ExpStatSN implements transport.Session.
func (n *nexus) ExpStatSN() uint32 { return n.expStatSN }

// Task implements transport.Session.
func (n *nexus) Task(itt uint32) *transport.Task {
	if s := n.find(itt, kindCommand); s != nil {
		return &s.task
	}
	return nil
}

var errAlienTask = errors.New("a task ended that is not in the table")

// Done implements transport.Session.
func (n *nexus) Done(t *transport.Task, r *transport.Result) error {
	s := &n.slots[t.Index]
	if s.kind != kindCommand || &s.task != t {
		return errAlienTask
	}
	c := s.cmd
	switch {
	case r.Aborted && s.rejected:
		c.Err = ErrRejected
	case r.Aborted:
		c.Err = ErrTimedOut
	default:
		c.Err = nil
		c.Response, c.Status = r.Response, r.Status
		c.Overflow, c.Residual = r.Overflow, 0
		if r.Overflow || r.Underflow {
			c.Residual = r.Residual
		}
		c.Received = r.Received
		c.SenseLen = copy(c.Sense[:], r.Sense)
	}
	n.release(s)
	n.finish(c)
	return nil
}

func (n *nexus) finish(c *Command) {
	c.Nexus = n.number
	n.done = append(n.done, c)
}

// lost ends all commands: the mover has stopped.
func (n *nexus) lost() {
	for i := range n.slots {
		s := &n.slots[i]
		if s.kind == kindCommand {
			c := s.cmd
			c.Err = ErrNexusLost
			n.release(s)
			n.finish(c)
		}
	}
	for n.head != nil {
		c := n.head
		n.head, c.next = c.next, nil
		c.Err = ErrNexusLost
		n.finish(c)
	}
	n.tail = nil
}

// fail notes why the connection is to be dropped; the first reason counts.
func (n *nexus) fail(err error) {
	if n.failed == nil {
		n.failed = err
	}
}

func (n *nexus) warnf(format string, args ...any) {
	if len(n.logs) < pendingMax {
		n.logs = append(n.logs, fmt.Sprintf(format, args...))
	}
}
