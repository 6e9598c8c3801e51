package session

import (
	"errors"
	"fmt"
	"time"

	"iscsictl/iscsi"
)

// pendingMax bounds what waits to be told to the handler or the log.
const pendingMax = 64

var (
	// errLoggedOut ends a connection that we have logged out of.
	errLoggedOut = errors.New("logged out")
	// errNoPingReply ends a connection on which nothing is heard any more.
	errNoPingReply = errors.New("no ping reply (NOP-In)")
)

// Control implements transport.Session: PDUs that are no part of a SCSI task.
func (n *nexus) Control(h *iscsi.BHS, data []byte) error {
	switch h.Opcode() {
	case iscsi.OpNOPIn:
		return n.nopIn(h, data)
	case iscsi.OpTaskManagementResponse:
		return n.taskManagementResponse(h)
	case iscsi.OpLogoutResponse:
		return n.logoutResponse(h)
	case iscsi.OpAsyncMessage:
		return n.asyncMessage(h, data)
	case iscsi.OpReject:
		return n.reject(h, data)
	}
	return fmt.Errorf("%v was not asked for", h.Opcode())
}

// nopIn takes in an answer to our ping, or answers the target's (§11.19).
func (n *nexus) nopIn(h *iscsi.BHS, data []byte) error {
	var p iscsi.NOPIn
	if err := p.Decode(h); err != nil {
		return err
	}
	ours := p.InitiatorTaskTag != iscsi.ReservedTag
	if err := n.Numbers(ours, p.StatSN, p.ExpCmdSN, p.MaxCmdSN); err != nil {
		return err
	}
	if ours {
		s := n.find(p.InitiatorTaskTag, kindPing)
		if s == nil {
			return fmt.Errorf("NOP-In for the unknown initiator task tag %#x", p.InitiatorTaskTag)
		}
		n.release(s)
		n.ping.outstanding--
	}
	if p.TargetTransferTag == iscsi.ReservedTag {
		return nil
	}
	if len(data) > n.params.MaxSendDataSegmentLength {
		data = data[:n.params.MaxSendDataSegmentLength]
	}
	n.control(&iscsi.NOPOut{
		Immediate: true, LUN: p.LUN, CmdSN: n.cmdSN,
		InitiatorTaskTag: iscsi.ReservedTag, TargetTransferTag: p.TargetTransferTag,
		DataSegmentLength: len(data),
	}, data)
	return nil
}

// control sends a PDU of ours.
func (n *nexus) control(p interface{ Encode(*iscsi.BHS) }, data []byte) {
	var h iscsi.BHS
	p.Encode(&h)
	n.mover.Control(&h, data)
}

// farewell is the state of a logout.
type farewell struct {
	sent     bool
	wait     time.Duration // that the target asked for before the next login
	tag      uint32
	answered bool
	late     time.Duration // when we close the connection, if the target has not
}

// logout closes the session (§11.14). No command is sent any more; those under
// way end with the connection.
func (n *nexus) logout() {
	if n.bye.sent {
		return
	}
	s := n.take(kindLogout)
	n.bye.sent, n.bye.tag = true, s.tag()
	n.control(&iscsi.LogoutRequest{
		Immediate: true, Reason: iscsi.LogoutCloseSession,
		InitiatorTaskTag: s.tag(), CmdSN: n.cmdSN,
	}, nil)
}

// logoutResponse takes in the answer, after which the target closes the
// connection (§11.15); it has a moment for that.
func (n *nexus) logoutResponse(h *iscsi.BHS) error {
	var p iscsi.LogoutResponse
	if err := p.Decode(h); err != nil {
		return err
	}
	if err := n.Numbers(true, p.StatSN, p.ExpCmdSN, p.MaxCmdSN); err != nil {
		return err
	}
	if !n.bye.sent || p.InitiatorTaskTag != n.bye.tag {
		return fmt.Errorf("Logout Response for the unknown initiator task tag %#x", p.InitiatorTaskTag)
	}
	n.bye.answered = true
	n.bye.wait = max(n.bye.wait, time.Duration(p.Time2Wait)*time.Second)
	n.bye.late = n.now + 2*tickEvery // the last tick may have been almost one ago
	return nil
}

// asyncMessage takes in an Asynchronous Message (§11.9).
func (n *nexus) asyncMessage(h *iscsi.BHS, data []byte) error {
	var p iscsi.AsyncMessage
	if err := p.Decode(h); err != nil {
		return err
	}
	if err := n.Numbers(true, p.StatSN, p.ExpCmdSN, p.MaxCmdSN); err != nil {
		return err
	}
	switch p.Event {
	case iscsi.AsyncSCSIEvent:
		sense, _, err := iscsi.ParseAsyncSense(data)
		if err != nil {
			return err
		}
		if len(n.async) < pendingMax {
			n.async = append(n.async, async{p.LUN, append([]byte(nil), sense...)})
		}
	case iscsi.AsyncLogoutRequest, iscsi.AsyncNegotiate:
		// Negotiation is asked for by logging in again: all our
		// parameters are declared or offered there.
		n.warnf("%v within %d seconds; logging out and in again", p.Event, p.Parameter3)
		n.logout()
	case iscsi.AsyncDropConnection, iscsi.AsyncDropSession:
		n.bye.wait = max(n.bye.wait, time.Duration(p.Parameter2)*time.Second)
		return fmt.Errorf("asynchronous message: %v", p.Event)
	default:
		n.warnf("asynchronous message ignored: %v (vendor code %d)", p.Event, p.VendorCode)
	}
	return nil
}

// reject takes in a Reject (§11.17), whose data is the header that it is about.
func (n *nexus) reject(h *iscsi.BHS, data []byte) error {
	var p iscsi.Reject
	if err := p.Decode(h); err != nil {
		return err
	}
	if err := n.Numbers(true, p.StatSN, p.ExpCmdSN, p.MaxCmdSN); err != nil {
		return err
	}
	if len(data) < iscsi.BHSLen {
		return fmt.Errorf("Reject (%v) with %d bytes of the rejected header", p.Reason, len(data))
	}
	bad := iscsi.BHS(data[:iscsi.BHSLen])
	itt := bad.InitiatorTaskTag()
	switch bad.Opcode() {
	case iscsi.OpSCSICommand:
		if s := n.find(itt, kindCommand); s != nil && p.Reason != iscsi.RejectDataDigestError {
			// With a digest error in immediate data the target goes on
			// to end the command with a status (§7.8).
			n.warnf("SCSI command rejected: %v", p.Reason)
			s.rejected = true
			n.mover.Abort(&s.task)
		}
		return nil
	case iscsi.OpDataOut:
		n.warnf("Data-Out rejected: %v", p.Reason)
		return nil
	case iscsi.OpNOPOut:
		if s := n.find(itt, kindPing); s != nil { // an answer all the same
			n.release(s)
			n.ping.outstanding--
		}
		return nil
	case iscsi.OpTaskManagementRequest:
		if s := n.find(itt, kindTaskManagement); s != nil {
			n.managed(s, iscsi.TaskFunctionRejected)
		}
		return nil
	}
	return fmt.Errorf("the target rejected our %v: %v", bad.Opcode(), p.Reason)
}

// pinger watches over the connection's silence.
type pinger struct {
	heardAt     time.Duration
	first       time.Duration // when the first ping of this silence went out; 0: none has
	outstanding int
}

// tick is to be called about once a second.
func (n *nexus) tick(now time.Duration, l limits) {
	n.now, n.limits = now, l
	if n.heard {
		n.heard, n.ping.heardAt, n.ping.first = false, now, 0
	}
	if n.bye.answered {
		if now >= n.bye.late {
			n.fail(errLoggedOut)
		}
		return
	}
	if err := n.watchStatus(now); err != nil {
		n.fail(err)
	}
	n.watchSilence()
	n.watchCommands()
}

// watchSilence sends a NOP-Out in each silent second, and gives the connection
// up when nothing at all has come for the ping timeout, though not before a
// ping had a second to be answered.
func (n *nexus) watchSilence() {
	silent := n.now - n.ping.heardAt
	if n.limits.ping <= 0 || silent < time.Second {
		return
	}
	if silent >= n.limits.ping && n.ping.first != 0 && n.now-n.ping.first >= time.Second {
		n.fail(fmt.Errorf("%w after %d seconds", errNoPingReply, silent/time.Second))
		return
	}
	if n.ping.outstanding < internalTasks/2 {
		s := n.take(kindPing)
		n.ping.outstanding++
		n.control(&iscsi.NOPOut{
			Immediate: true, InitiatorTaskTag: s.tag(),
			TargetTransferTag: iscsi.ReservedTag, CmdSN: n.cmdSN,
		}, nil)
	}
	if n.ping.first == 0 {
		n.ping.first = n.now
	}
}
