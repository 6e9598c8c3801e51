package iser

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"iscsictl/iscsi"
	"iscsictl/transport"
	"iscsictl/transport/rdma"
)

const (
	// segmentLength is InitiatorRecvDataSegmentLength and
	// TargetRecvDataSegmentLength as we offer them (RFC 7145 §6.4, §6.5), and
	// the most data of a login PDU.
	segmentLength = 8192
	headersLength = iscsi.ISERHeaderLen + iscsi.BHSLen
	slotSize      = headersLength + segmentLength

	// outstandingMax bounds the commands that are with the target: targets
	// post 128 receives, and PDUs outside of the window need some.
	outstandingMax = 120
	// spareSlots are for PDUs that are not commands, in each direction.
	spareSlots = 16
	// inboundReads is how many RDMA Reads of the target we serve at a time;
	// with none it could not write.
	inboundReads = 16

	// maxTransfer is the most data of a command. RFC 7145 has no limit of its own,
	// but tgtd has: it closes the connection for more than its buffers, which have
	// 512 KiB unless it was told otherwise. Linux's initiator, which targets were
	// tried with, asks for no more by default.
	maxTransfer = 512 << 10

	maxBurstLength    = 1 << 20
	maxOutstandingR2T = 1

	// nudgeAfter is how long a login PDU may go unanswered before we make the
	// target look at its socket again: a kernel target on software iWARP can
	// miss the arrival of the first message.
	nudgeAfter = time.Second
)

// Flags in the first of the four bytes of private data that go with a connection
// request, as Linux has them (include/scsi/iser.h).
const (
	zeroBasedNotSupported      = 0x80
	sendInvalidateNotSupported = 0x40
)

// Dialer opens connections by a provider's verbs.
type Dialer struct {
	Provider rdma.Provider
}

// Dial implements transport.Dialer.
func (d Dialer) Dial(ctx context.Context, addr, local netip.AddrPort, opts transport.DialOptions) (transport.Conn, error) {
	flags := byte(zeroBasedNotSupported | sendInvalidateNotSupported)
	if d.Provider.RemoteInvalidate() {
		flags &^= sendInvalidateNotSupported
	}
	commands := min(opts.Tasks, outstandingMax)
	c, err := d.Provider.Dial(ctx, addr, local, rdma.Options{
		PrivateData:   []byte{flags, 0, 0, 0},
		Arena:         opts.Arena,
		SendDepth:     2*(commands+spareSlots) + 8,
		SendSlots:     commands + spareSlots,
		SendSlotSize:  slotSize,
		Receives:      commands + spareSlots,
		ReceiveSize:   slotSize,
		Regions:       opts.Tasks,
		InboundReads:  inboundReads,
		OutboundReads: 1,
		DSCP:          opts.DSCP, PCP: opts.PCP,
	})
	if err != nil {
		return nil, err
	}
	l := &loginConn{conn: c, opts: opts, commands: commands, invalidates: flags&sendInvalidateNotSupported == 0, arrived: make(chan struct{}, 1), ended: make(chan struct{})}
	c.Start(l)
	return l, nil
}

// loginConn is a connection in the login phase. It implements transport.Conn and
// rdma.Handler.
type loginConn struct {
	conn        rdma.Conn
	opts        transport.DialOptions
	commands    int
	invalidates bool

	mu       sync.Mutex
	deadline time.Time
	messages [][]byte // that have come and were not received yet
	failed   error
	nudged   bool
	arrived  chan struct{} // messages is not empty any more
	ended    chan struct{} // closed when the connection has ended
	moved    *mover        // once enabled
}

func (l *loginConn) LocalAddr() netip.AddrPort  { return l.conn.Info().Local }
func (l *loginConn) RemoteAddr() netip.AddrPort { return l.conn.Info().Remote }

func (l *loginConn) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	return nil
}

// Enter implements rdma.Handler.
func (l *loginConn) Enter() { l.mu.Lock() }

// Leave implements rdma.Handler.
func (l *loginConn) Leave() {
	l.mu.Unlock()
	l.conn.Flush()
}

// Received implements rdma.Handler.
func (l *loginConn) Received(slot int, data []byte, _ rdma.Key) error {
	if len(l.messages) == spareSlots {
		return errors.New("the target sends PDUs that were not asked for")
	}
	l.messages = append(l.messages, bytes.Clone(data))
	l.conn.Repost(slot)
	select {
	case l.arrived <- struct{}{}:
	default:
	}
	return nil
}

// Done implements rdma.Handler. A login PDU was answered by the time that the
// slot is used again.
func (l *loginConn) Done(uint64) error { return nil }

// Revoked implements rdma.Handler. Nothing is granted before the full-feature phase.
func (l *loginConn) Revoked(uint64) error { return nil }

// Closed implements rdma.Handler.
func (l *loginConn) Closed(err error) {
	l.mu.Lock()
	l.failed = err
	moved := l.moved
	l.mu.Unlock()
	close(l.ended)
	if moved != nil { // it came to us while we handed over
		moved.Closed(err)
	}
}

func (l *loginConn) Send(h *iscsi.BHS, data []byte) error {
	if len(data) > segmentLength {
		return fmt.Errorf("%v with %d bytes of data, over %d", h.Opcode(), len(data), segmentLength)
	}
	l.mu.Lock()
	if l.failed != nil {
		defer l.mu.Unlock()
		return l.failed
	}
	slot := l.conn.SendSlot(0)
	n := put(slot, &iscsi.ISERHeader{}, h)
	n += copy(slot[n:], data)
	n += copy(slot[n:], []byte{0, 0, 0}[:iscsi.Pad(len(data))])
	l.nudged = false
	err := l.conn.Post(rdma.WorkRequest{Op: rdma.OpSend, Signal: true, Head: n})
	l.mu.Unlock()
	l.conn.Flush()
	return err
}

// put writes the headers of a PDU.
func put(slot []byte, r *iscsi.ISERHeader, h *iscsi.BHS) int {
	r.Encode((*[iscsi.ISERHeaderLen]byte)(slot))
	return iscsi.ISERHeaderLen + copy(slot[iscsi.ISERHeaderLen:], h[:])
}

func (l *loginConn) Receive() (h iscsi.BHS, data []byte, err error) {
	l.mu.Lock()
	deadline := l.deadline
	l.mu.Unlock()
	var late <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		late = t.C
	}
	nudge := time.NewTimer(nudgeAfter)
	defer nudge.Stop()
	for {
		l.mu.Lock()
		if len(l.messages) > 0 {
			m := l.messages[0]
			l.messages = l.messages[1:]
			l.mu.Unlock()
			return split(m)
		}
		failed := l.failed
		l.mu.Unlock()
		if failed != nil {
			return h, nil, failed
		}
		select {
		case <-l.arrived:
		case <-l.ended:
		case <-late:
			return h, nil, os.ErrDeadlineExceeded
		case <-nudge.C:
			l.nudge()
		}
	}
}

// nudge has the target's provider look at what has come, by an RDMA Write of no bytes.
func (l *loginConn) nudge() {
	l.mu.Lock()
	if l.nudged || l.failed != nil {
		l.mu.Unlock()
		return
	}
	l.nudged = true
	_ = l.conn.Post(rdma.WorkRequest{Op: rdma.OpWrite}) // it matters to nobody else
	l.mu.Unlock()
	l.conn.Flush()
}

// split takes a message apart: the iSER header, the basic header segment, and
// the data segment, which must be all there (RFC 7145 §9).
func split(message []byte) (h iscsi.BHS, data []byte, err error) {
	if len(message) < headersLength {
		return h, nil, fmt.Errorf("a message of %d bytes is shorter than the headers", len(message))
	}
	var r iscsi.ISERHeader
	if err := r.Decode((*[iscsi.ISERHeaderLen]byte)(message)); err != nil {
		return h, nil, err
	}
	h = iscsi.BHS(message[iscsi.ISERHeaderLen:headersLength])
	rest := message[headersLength:]
	n, ahs := h.DataSegmentLength(), h.TotalAHSLength()
	if ahs > len(rest) || n > len(rest)-ahs {
		return h, nil, fmt.Errorf("%v with %d bytes of data in a message of %d bytes", h.Opcode(), n, len(message))
	}
	return h, rest[ahs : ahs+n], nil
}

// Offers implements transport.LoginConn. StatSN finds PDUs that the transport has
// lost, and a reliable connection loses none; but Linux's target gives the number
// in whichever of its threads has ended a command, and sends in another order or
// gives one twice.
func (l *loginConn) Offers() transport.Offers {
	length := strconv.Itoa(segmentLength)
	return transport.Offers{
		MaxBurstLength:    maxBurstLength,
		FirstBurstLength:  segmentLength,
		ImmediateData:     true,
		InitialR2T:        true,
		MaxOutstandingR2T: maxOutstandingR2T,
		MaxTransfer:       maxTransfer,
		LooseStatSN:       true,
		Extra: []iscsi.KeyValue{
			{Key: iscsi.KeyRDMAExtensions, Value: iscsi.ValueYes},
			{Key: iscsi.KeyInitiatorRecvDataSegmentLength, Value: length},
			{Key: iscsi.KeyTargetRecvDataSegmentLength, Value: length},
		},
		Check: func(answers []iscsi.KeyValue) error {
			_, err := negotiated(answers)
			return err
		},
	}
}

// negotiated returns the data segment that the target takes, in bytes, and
// checks the answers to our keys (RFC 7145 §6).
func negotiated(answers []iscsi.KeyValue) (targetRecv int, err error) {
	targetRecv = segmentLength
	extended := false
	for _, kv := range answers {
		switch kv.Key {
		case iscsi.KeyRDMAExtensions:
			if extended = kv.Value == iscsi.ValueYes; !extended {
				return 0, fmt.Errorf("the target does not do iSER here: RDMAExtensions=%q", kv.Value)
			}
		case iscsi.KeyTargetRecvDataSegmentLength, iscsi.KeyInitiatorRecvDataSegmentLength:
			n, err := iscsi.ParseNumber(kv.Value, 512, segmentLength)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", kv.Key, err)
			}
			if kv.Key == iscsi.KeyTargetRecvDataSegmentLength {
				targetRecv = n
			}
		}
	}
	if !extended {
		return 0, errors.New("the target does not do iSER here: no answer to RDMAExtensions")
	}
	return targetRecv, nil
}

// Facts implements transport.Conn.
func (l *loginConn) Facts() []transport.Fact {
	i := l.conn.Info()
	facts := []transport.Fact{{Name: "rdmaProvider", Label: "RDMA provider", Value: i.Provider}}
	add := func(name, label, value string) {
		if value != "" {
			facts = append(facts, transport.Fact{Name: name, Label: label, Value: value})
		}
	}
	add("rdmaDevice", "RDMA device", i.Device)
	add("rdmaGID", "RDMA GID", i.GID)
	add("rdmaDetail", "RDMA connection", i.Detail)
	add("queueDepth", "Queue depth", fmt.Sprintf("%d sends, %d receives", i.SendDepth, i.Receives))
	add("readDepth", "RDMA Read depth", fmt.Sprintf("%d in, %d out", i.InboundReads, i.OutboundReads))
	add("remoteInvalidate", "Remote invalidate", map[bool]string{true: "Yes", false: "No"}[l.remoteInvalidate()])
	return facts
}

// remoteInvalidate reports whether both sides can do it. A target that says
// nothing of itself is not taken to.
func (l *loginConn) remoteInvalidate() bool {
	theirs := l.conn.Info().PrivateData
	return l.invalidates && len(theirs) >= 4 && theirs[0]&sendInvalidateNotSupported == 0
}

func (l *loginConn) Enable(p transport.Params, s transport.Session) transport.Mover {
	if n, err := negotiated(p.Extra); err == nil { // Check has seen to the rest
		p.MaxSendDataSegmentLength = n
	}
	p.MaxRecvDataSegmentLength = segmentLength
	m := newMover(l.conn, p, s, l.opts.Tasks, l.commands)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved = m
	m.early = l.failed
	l.conn.Handover(m)
	return m
}

func (l *loginConn) Close() error {
	if l.moved != nil {
		l.moved.Close(rdma.ErrClosed)
		return nil
	}
	l.conn.Close(rdma.ErrClosed)
	return nil
}
