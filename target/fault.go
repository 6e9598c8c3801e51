package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// Action is what goes wrong.
type Action string

// Actions at any PDU, received or sent.
const (
	ActionDrop        Action = "drop"         // close the connection instead of handling or sending the PDU
	ActionDropAfter   Action = "drop-after"   // close it after Bytes bytes of the PDU
	ActionDelay       Action = "delay"        // stop the whole connection for Delay
	ActionSilence     Action = "silence"      // read on, but send nothing more on this connection
	ActionSwallow     Action = "swallow"      // lose the PDU
	ActionPing        Action = "ping"         // a NOP-In that wants an answer first
	ActionAsync       Action = "async"        // an asynchronous message first: Event, Parameters, Sense
	ActionGarbage     Action = "garbage"      // Bytes bytes that are no PDU first
	ActionCloseWindow Action = "close-window" // MaxCmdSN = ExpCmdSN-1 for Delay, then a NOP-In opens it
)

// Actions at received PDUs.
const (
	ActionReject      Action = "reject"       // answer with a Reject: Reason
	ActionRedirect    Action = "redirect"     // login: Address, Permanent
	ActionLoginStatus Action = "login-status" // login: Status is class and detail, as in 0x0301
	ActionSplitText   Action = "split-text"   // login, text: answers in pieces of Bytes bytes from now on
	ActionEndlessText Action = "endless-text" // login, text: answers that never end from now on
)

// Actions at received SCSI commands.
const (
	ActionStatus      Action = "status"       // Status, such as 8: BUSY, 24: RESERVATION CONFLICT, 40: TASK SET FULL
	ActionCheck       Action = "check"        // CHECK CONDITION: Sense
	ActionHold        Action = "hold"         // carry the command out after Delay, or never if that is 0; others go on
	ActionR2T         Action = "r2t"          // R2Ts as in R2T
	ActionDataReverse Action = "data-reverse" // read: Data-In from the end to the beginning
	ActionDataGap     Action = "data-gap"     // read: a DataSN is left out
	ActionDataBeyond  Action = "data-beyond"  // read: data that begins where the buffer ends
	ActionDataShort   Action = "data-short"   // read: GOOD, no residual, but the last half of the data is missing
)

// Actions at sent PDUs.
const (
	ActionHeaderDigest Action = "header-digest" // a wrong header digest
	ActionDataDigest   Action = "data-digest"   // a wrong data digest
	ActionStatSN       Action = "stat-sn"       // add Delta to StatSN
	ActionExpCmdSN     Action = "exp-cmd-sn"    // add Delta to ExpCmdSN
	ActionMaxCmdSN     Action = "max-cmd-sn"    // add Delta to MaxCmdSN
	ActionUnknownITT   Action = "unknown-itt"   // an initiator task tag that nobody gave out
	ActionOversize     Action = "oversize"      // announce Bytes bytes of data, whatever was negotiated
	ActionResidual     Action = "residual"      // Data-In with status, SCSI Response: underflow of Delta bytes
)

// Actions for iSER; elsewhere they do nothing. Of those above, the ones about
// digests do nothing on iSER; data-reverse, data-beyond and data-short shape
// RDMA Writes and r2t RDMA Reads; garbage and drop-after are whole messages.
// Portal.IWARP has those of the layers below.
const (
	ActionBadSTag         Action = "bad-stag"         // command: RDMA with an STag that was never valid
	ActionStaleSTag       Action = "stale-stag"       // command: RDMA with the STag of an earlier command
	ActionLateRDMA        Action = "late-rdma"        // command: RDMA after the response
	ActionPlainData       Action = "plain-data"       // command: a Data-In or an R2T instead of RDMA
	ActionInvalidate      Action = "invalidate"       // response: invalidates the STag, whatever the initiator permits
	ActionInvalidateOther Action = "invalidate-other" // response: invalidates the STag of another command
	ActionOversizeSend    Action = "oversize-send"    // sent PDU: Bytes (default 16384) more bytes of data than it has
)

// ActionAnswer puts Text, as in RDMAExtensions=No, into the answers to a login
// request, in place of the true answer for that key if there is one.
const ActionAnswer Action = "answer"

// Fault is one thing that goes wrong: at which PDU, and what. Of the fields
// that match, those with their zero value match everything.
type Fault struct {
	Target     string `json:"target,omitempty"`     // name
	Connection int    `json:"connection,omitempty"` // n-th connection that the server accepted, from 1
	// PDU is the kind of PDU, such as scsi-command, data-out or r2t (see
	// PDUNames). It gives the direction.
	PDU string `json:"pdu,omitempty"`
	// Sent matches PDUs of the target where PDU is empty.
	Sent bool `json:"sent,omitempty"`
	// Command is the SCSI command in a scsi-command: read, write, or an
	// operation code such as 0x35.
	Command string `json:"command,omitempty"`
	// Over matches a scsi-command that is to move more than so many bytes.
	Over  int    `json:"over,omitempty"`
	LUN   *int   `json:"lun,omitempty"`
	Phase string `json:"phase,omitempty"` // login or full-feature
	Nth   int    `json:"nth,omitempty"`   // skip n-1 PDUs that match
	Times int    `json:"times,omitempty"` // 0: once; negative: always

	Action     Action    `json:"action"`
	Bytes      int       `json:"bytes,omitempty"`
	Delay      Duration  `json:"delay,omitempty"`
	Delta      int       `json:"delta,omitempty"`
	Status     int       `json:"status,omitempty"`
	Sense      Sense     `json:"sense,omitzero"`
	Reason     int       `json:"reason,omitempty"` // RFC 7143 §11.17.1
	Address    string    `json:"address,omitempty"`
	Permanent  bool      `json:"permanent,omitempty"`
	Event      int       `json:"event,omitempty"` // RFC 7143 §11.9.1
	Parameters [3]uint16 `json:"parameters,omitzero"`
	R2T        R2TShape  `json:"r2t,omitzero"`
	Text       string    `json:"text,omitempty"`
}

// Sense is sense data of a fault.
type Sense struct {
	Key  scsi.SenseKey `json:"key"`
	Code scsi.Code     `json:"code"` // ASC<<8 | ASCQ
	Info uint64        `json:"info,omitempty"`
}

// R2TShape is how the data of a write is asked for.
type R2TShape struct {
	Burst       int  `json:"burst,omitempty"`       // bytes in one R2T; 0: as negotiated
	Outstanding int  `json:"outstanding,omitempty"` // R2Ts at a time, whatever was negotiated
	Reverse     bool `json:"reverse,omitempty"`     // from the end to the beginning
	Overlap     int  `json:"overlap,omitempty"`     // each R2T asks again for that many bytes of the one before
	Beyond      int  `json:"beyond,omitempty"`      // the last R2T asks for that many bytes after the buffer
	ForRead     bool `json:"for_read,omitempty"`    // a read gets an R2T of Burst bytes (default 512) first
}

var pduNames = map[string]iscsi.Opcode{
	"nop-out": iscsi.OpNOPOut, "scsi-command": iscsi.OpSCSICommand,
	"task-management-request": iscsi.OpTaskManagementRequest, "login-request": iscsi.OpLoginRequest,
	"text-request": iscsi.OpTextRequest, "data-out": iscsi.OpDataOut, "logout-request": iscsi.OpLogoutRequest,
	"snack-request": iscsi.OpSNACKRequest, "nop-in": iscsi.OpNOPIn, "scsi-response": iscsi.OpSCSIResponse,
	"task-management-response": iscsi.OpTaskManagementResponse, "login-response": iscsi.OpLoginResponse,
	"text-response": iscsi.OpTextResponse, "data-in": iscsi.OpDataIn, "logout-response": iscsi.OpLogoutResponse,
	"r2t": iscsi.OpR2T, "async-message": iscsi.OpAsyncMessage, "reject": iscsi.OpReject,
}

// PDUNames returns the names that Fault.PDU may have, in no order.
func PDUNames() []string {
	var names []string
	for name := range pduNames {
		names = append(names, name)
	}
	return names
}

const anyOpcode = -1

// faultPlace says at which PDUs an action makes sense.
type faultPlace struct {
	sent, received bool
	pdus           []string // the first is the default; none: all
}

var faultPlaces = map[Action]faultPlace{
	ActionDrop: {sent: true, received: true}, ActionDropAfter: {sent: true, received: true},
	ActionDelay: {sent: true, received: true}, ActionSilence: {sent: true, received: true},
	ActionSwallow: {sent: true, received: true}, ActionPing: {sent: true, received: true},
	ActionAsync: {sent: true, received: true}, ActionGarbage: {sent: true, received: true},
	ActionCloseWindow: {sent: true, received: true},

	ActionReject:      {received: true},
	ActionRedirect:    {received: true, pdus: []string{"login-request"}},
	ActionLoginStatus: {received: true, pdus: []string{"login-request"}},
	ActionSplitText:   {received: true, pdus: []string{"login-request", "text-request"}},
	ActionEndlessText: {received: true, pdus: []string{"login-request", "text-request"}},

	ActionAnswer: {received: true, pdus: []string{"login-request"}},

	ActionBadSTag: atCommand, ActionStaleSTag: atCommand, ActionLateRDMA: atCommand, ActionPlainData: atCommand,
	ActionInvalidate:      {sent: true, pdus: []string{"scsi-response"}},
	ActionInvalidateOther: {sent: true, pdus: []string{"scsi-response"}},
	ActionOversizeSend:    {sent: true},

	ActionStatus: atCommand, ActionCheck: atCommand, ActionHold: atCommand, ActionR2T: atCommand,
	ActionDataReverse: atCommand, ActionDataGap: atCommand, ActionDataBeyond: atCommand, ActionDataShort: atCommand,

	ActionHeaderDigest: {sent: true}, ActionDataDigest: {sent: true}, ActionStatSN: {sent: true},
	ActionExpCmdSN: {sent: true}, ActionMaxCmdSN: {sent: true}, ActionUnknownITT: {sent: true},
	ActionOversize: {sent: true}, ActionResidual: {sent: true, pdus: []string{"scsi-response", "data-in"}},
}

var atCommand = faultPlace{received: true, pdus: []string{"scsi-command"}}

// fault is a Fault at work.
type fault struct {
	Fault
	opcode      int // anyOpcode: all of the direction
	sent        bool
	command     func(op scsi.Opcode) bool
	seen, fired int // PDUs
}

func newFault(f Fault) (*fault, error) {
	place, ok := faultPlaces[f.Action]
	if !ok {
		return nil, fmt.Errorf("fault: action %q is not known", f.Action)
	}
	s := &fault{Fault: f, opcode: anyOpcode}
	if s.PDU == "" && len(place.pdus) > 0 {
		s.PDU = place.pdus[0]
	}
	if s.PDU == "" && s.Command != "" {
		s.PDU = "scsi-command"
	}
	s.sent = f.Sent || !place.received
	if s.PDU != "" {
		op, ok := pduNames[s.PDU]
		if !ok {
			return nil, fmt.Errorf("fault %s: PDU %q is not known", f.Action, s.PDU)
		}
		s.opcode, s.sent = int(op), op >= iscsi.OpNOPIn
	}
	if err := s.check(place); err != nil {
		return nil, fmt.Errorf("fault %s: %w", f.Action, err)
	}
	return s, nil
}

func (s *fault) check(place faultPlace) error {
	fits := len(place.pdus) == 0
	for _, name := range place.pdus {
		fits = fits || name == s.PDU
	}
	switch {
	case !fits, s.sent && !place.sent, !s.sent && !place.received:
		return fmt.Errorf("cannot happen at PDU %q", s.PDU)
	case s.Phase != "" && s.Phase != "login" && s.Phase != "full-feature":
		return fmt.Errorf("phase %q: want login or full-feature", s.Phase)
	case s.Nth < 0, s.Connection < 0, s.Bytes < 0, s.Bytes > maxSegment, s.Delay < 0:
		return errors.New("a number is out of range")
	case s.R2T.Burst < 0, s.R2T.Overlap < 0, s.R2T.Beyond < 0, s.R2T.Outstanding < 0,
		s.R2T.Overlap > 0 && s.R2T.Overlap >= s.R2T.Burst:
		return errors.New("R2T shape: sizes are not negative, and overlap is less than burst")
	case s.Action == ActionSplitText && s.Bytes == 0:
		return errors.New("bytes is missing")
	case s.Action == ActionAnswer && !strings.Contains(s.Text, "="):
		return errors.New("text: want key=value")
	}
	return s.parseCommand()
}

func (s *fault) parseCommand() error {
	switch s.Command {
	case "":
	case "read":
		s.command = func(op scsi.Opcode) bool {
			return op == scsi.OpRead6 || op == scsi.OpRead10 || op == scsi.OpRead12 || op == scsi.OpRead16
		}
	case "write":
		s.command = func(op scsi.Opcode) bool {
			return op == scsi.OpWrite6 || op == scsi.OpWrite10 || op == scsi.OpWrite12 || op == scsi.OpWrite16
		}
	default:
		n, err := strconv.ParseUint(s.Command, 0, 8)
		if err != nil {
			return fmt.Errorf("command %q: want read, write or an operation code such as 0x35", s.Command)
		}
		s.command = func(op scsi.Opcode) bool { return uint64(op) == n }
	}
	if (s.command != nil || s.Over != 0) && s.PDU != "scsi-command" {
		return errors.New("command and over need PDU scsi-command")
	}
	return nil
}

// faults are all faults of a server.
type faults struct {
	some atomic.Bool // spares the data path the lock
	mu   sync.Mutex
	list []*fault
}

func (f *faults) add(s *fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, s)
	f.some.Store(true)
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = nil
	f.some.Store(false)
}

// fire counts a PDU and returns the faults that it sets off, appended to list.
func (f *faults) fire(list []*Fault, c *conn, h *iscsi.BHS, sent bool) []*Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.list {
		if s.sent != sent || !s.matches(c, h) {
			continue
		}
		s.seen++
		if s.seen < s.Nth || s.Times >= 0 && s.fired >= max(s.Times, 1) {
			continue
		}
		s.fired++
		list = append(list, &s.Fault)
	}
	return list
}

func (s *fault) matches(c *conn, h *iscsi.BHS) bool {
	switch {
	case s.opcode != anyOpcode && s.opcode != int(h.Opcode()),
		s.Connection != 0 && s.Connection != c.number,
		s.Target != "" && s.Target != c.targetName(),
		s.Phase == "login" && c.login == nil,
		s.Phase == "full-feature" && c.login != nil,
		s.command != nil && !s.command(scsi.Opcode(h[32])),
		s.Over != 0 && int64(binary.BigEndian.Uint32(h[20:])) <= int64(s.Over):
		return false
	}
	if s.LUN != nil {
		n, ok := lunNumber(h.LUN())
		return ok && n == *s.LUN
	}
	return true
}
