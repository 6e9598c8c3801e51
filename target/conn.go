package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"iscsictl/iscsi"
)

// conn is a connection, and once it is logged in, its session: there is one
// connection to a session.
//
// Its goroutine receives PDUs and carries them out. It holds mu except while
// it waits for one or for a pause to end, so whoever holds mu may send. How
// PDUs and data travel is the datamover's business.
type conn struct {
	server *Server
	mover  datamover
	iser   bool // mover moves data by RDMA
	number int  // of the server's connections, from 1
	tag    int  // portal group
	local  string
	remote string
	log    *slog.Logger

	stop     chan struct{} // closed by close
	stopOnce sync.Once
	done     chan struct{} // closed when the goroutine has ended

	mu    sync.Mutex
	ended bool // nothing may be done any more
	err   error

	h        iscsi.BHS        // the PDU that is being sent
	answered iscsi.ISERHeader // iSER: memory of the command that it answers, if it is a SCSI Response
	lent     iscsi.ISERHeader // iSER: memory of the PDU that has just come
	data     []byte           // data segment of a PDU that is not for the data path
	cmd      scsiCommand      // that has just come
	request  request          // scratch of judge
	params   []byte           // parameter data of a command
	firing   []*Fault         // scratch
	login    *login           // nil in full-feature phase
	session  *session         // nil until then

	statSN, expCmdSN uint32
	narrow           bool // iSER: one command until the first response after login opens the window
	windowClosed     bool // by a fault
	silent           bool // by a fault
}

// errDone ends a connection without a complaint.
var errDone = errors.New("done")

func newConn(s *Server, m datamover, number, tag int, local, remote string) *conn {
	return &conn{
		server: s, mover: m, number: number, tag: tag, local: local, remote: remote,
		log:  s.log.With("connection", number, "remote", remote),
		stop: make(chan struct{}), done: make(chan struct{}),
		login: newLogin(), statSN: 1,
	}
}

func (c *conn) targetName() string {
	if c.session != nil && c.session.node != nil {
		return c.session.node.Name
	}
	if c.login != nil && c.login.node != nil {
		return c.login.node.Name
	}
	return ""
}

// close ends the connection; done tells when it has ended. It may be called by
// anyone and waits for nothing.
func (c *conn) close() {
	c.stopOnce.Do(func() {
		close(c.stop)
		c.mover.close()
	})
}

// run serves the connection until it ends.
func (c *conn) run() {
	defer close(c.done)
	patience := time.AfterFunc(time.Duration(c.server.conf.LoginTimeout), c.notLoggedIn)
	defer patience.Stop()
	defer c.mover.end()
	err := c.mover.open()
	c.mu.Lock()
	if err == nil {
		err = c.serve()
	}
	if errors.Is(err, errDone) {
		c.mover.drain()
		err = nil
	}
	c.ended = true
	c.close()
	if c.session != nil {
		c.server.remove(c)
		c.session.end()
	}
	c.mu.Unlock()
	c.logEnd(err)
}

func (c *conn) notLoggedIn() {
	c.do(func() {
		if c.login != nil {
			c.log.Warn("not logged in in time, connection dropped")
			c.close()
		}
	})
}

func (c *conn) logEnd(err error) {
	level, msg := slog.LevelInfo, "connection closed"
	attrs := []slog.Attr{slog.String("target", c.targetName())}
	if c.session != nil {
		attrs = append(attrs, slog.String("initiator", c.session.initiator), slog.Int("tsih", int(c.session.tsih)))
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	c.log.LogAttrs(context.Background(), level, msg, attrs...)
}

// serve handles PDUs; it is called with mu held and returns with it held.
func (c *conn) serve() error {
	for {
		h, err := c.mover.receive()
		if err == nil {
			err = c.handle(h)
		}
		if err == nil {
			err = c.err
		}
		if err != nil {
			return err
		}
	}
}

// limit is the most bytes that a data segment of the initiator may have now.
func (c *conn) limit() int {
	if c.login != nil {
		return 8192
	}
	return c.session.params.MaxRecv
}

// handle carries out one PDU. Its header is h; what follows is still to read.
func (c *conn) handle(h *iscsi.BHS) error {
	if n := h.DataSegmentLength(); n > c.limit() {
		if c.login != nil {
			return fmt.Errorf("login PDU with %d bytes of data: more than %d", n, c.limit())
		}
		c.reject(h, iscsi.RejectProtocolError)
		return c.broken("%v with %d bytes of data: more than %d", h.Opcode(), n, c.limit())
	}
	if c.server.faults.some.Load() {
		handled, err := c.receivedFaults(h)
		if handled || err != nil {
			return err
		}
	}
	if c.login != nil {
		if h.Opcode() != iscsi.OpLoginRequest {
			return fmt.Errorf("%v before the end of login", h.Opcode())
		}
		return c.onLogin(h)
	}
	c.session.counters.pdusIn.Add(1)
	if h.Opcode() != iscsi.OpSCSICommand && (c.lent.HasRead || c.lent.HasWrite) {
		return c.broken("%v with an STag", h.Opcode())
	}
	if ahead := h.ExpStatSN(); iscsi.SerialLess(c.statSN, ahead) {
		// libiscsi counts the StatSN of an R2T, which is not consumed.
		if ahead != c.statSN+1 || c.session.counters.r2ts.Load() == 0 {
			return c.broken("%v acknowledges StatSN up to %d, but %d is next", h.Opcode(), ahead, c.statSN)
		}
		c.session.counters.ackAhead.Add(1)
	}
	if c.session.discovery() {
		switch h.Opcode() {
		case iscsi.OpTextRequest, iscsi.OpLogoutRequest, iscsi.OpNOPOut:
		default:
			return c.refuse(h, iscsi.RejectProtocolError)
		}
	}
	switch h.Opcode() {
	case iscsi.OpSCSICommand:
		return c.onCommand(h)
	case iscsi.OpDataOut:
		return c.onDataOut(h)
	case iscsi.OpNOPOut:
		return c.onNOPOut(h)
	case iscsi.OpTaskManagementRequest:
		return c.onTaskManagement(h)
	case iscsi.OpTextRequest:
		return c.onText(h)
	case iscsi.OpLogoutRequest:
		return c.onLogout(h)
	case iscsi.OpSNACKRequest: // error recovery level 0 has none
		return c.refuse(h, iscsi.RejectSNACK)
	case iscsi.OpLoginRequest:
		return c.broken("login request in full-feature phase")
	}
	return c.refuse(h, iscsi.RejectCommandNotSupported)
}

// broken sends what is pending and ends the connection because of what the
// initiator did.
func (c *conn) broken(format string, args ...any) error {
	_ = c.flush()
	return fmt.Errorf("protocol error of the initiator: "+format, args...)
}

// flush sends everything that is queued.
func (c *conn) flush() error { return c.mover.flush() }

// skip drops n bytes of a PDU's data.
func (c *conn) skip(n int) error {
	_, err := c.mover.segment(n, nil, 0)
	return err
}

// collect takes the data segment of the PDU h into c.data. ok is false where
// its digest is wrong; then h was rejected and is to be dropped
// (RFC 7143 §7.8).
func (c *conn) collect(h *iscsi.BHS) (ok bool, err error) {
	c.data = c.data[:0]
	intact, err := c.mover.collect(h.DataSegmentLength())
	if err != nil || intact {
		return err == nil, err
	}
	if c.login != nil {
		return false, fmt.Errorf("%v: data digest is wrong", h.Opcode())
	}
	c.reject(h, iscsi.RejectDataDigestError)
	return false, nil
}

// send queues the PDU whose header is in c.h, with its data. With ref, data is
// not copied: it must stay as it is until it was sent. Errors are kept for
// serve.
func (c *conn) send(data []byte, ref bool) {
	if c.silent {
		return
	}
	var as distortion
	if c.server.faults.some.Load() {
		var swallowed bool
		if swallowed, as = c.sentFaults(data); swallowed {
			return
		}
	}
	if c.login == nil {
		c.session.counters.pdusOut.Add(1)
	}
	c.mover.queue(data, ref, as)
}

// refuse drops a PDU's data and answers with a Reject.
func (c *conn) refuse(h *iscsi.BHS, reason iscsi.RejectReason) error {
	if err := c.skip(h.DataSegmentLength()); err != nil {
		return err
	}
	c.reject(h, reason)
	return nil
}

func (c *conn) reject(h *iscsi.BHS, reason iscsi.RejectReason) {
	r := iscsi.Reject{Reason: reason, StatSN: c.nextStatSN(), DataSegmentLength: iscsi.BHSLen}
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Encode(&c.h)
	c.send(h[:], false)
}

func (c *conn) nextStatSN() uint32 {
	c.statSN++
	return c.statSN - 1
}

// window is ExpCmdSN and MaxCmdSN as they are told.
func (c *conn) window() (exp, maximum uint32) {
	if c.login == nil {
		c.narrow = false
	}
	if c.windowClosed { // what was promised before still holds
		return c.expCmdSN, c.expCmdSN - 1
	}
	return c.trueWindow()
}

// trueWindow is the window without faults. Tasks that wait take room, so
// MaxCmdSN stays where it is when a command is taken, and moves on when one
// ends.
func (c *conn) trueWindow() (exp, maximum uint32) {
	size := defaultWindow
	if s := c.session; s != nil && s.node != nil {
		size = s.node.Window
		if c.iser {
			size = min(size, iserWindow)
		}
		size = max(size-len(s.tasks), 0)
	}
	if c.narrow {
		size = min(size, 1)
	}
	return c.expCmdSN, c.expCmdSN + uint32(size) - 1
}

// takeCmdSN checks the place of a request in the order of commands
// (RFC 7143 §4.2.2.1). What is outside of the window is to be ignored; on the
// only connection of a session, a gap is a mistake.
func (c *conn) takeCmdSN(sn uint32, immediate bool) (ok bool, err error) {
	exp, maximum := c.trueWindow()
	switch {
	case immediate:
		if sn != exp {
			return false, c.broken("immediate request with CmdSN %d instead of %d", sn, exp)
		}
		return true, nil
	case iscsi.SerialLess(sn, exp), iscsi.SerialLess(maximum, sn):
		c.log.Warn("request outside of the command window ignored", "CmdSN", sn, "ExpCmdSN", exp, "MaxCmdSN", maximum)
		return false, nil
	case sn != exp:
		return false, c.broken("CmdSN %d instead of %d", sn, exp)
	}
	c.expCmdSN++
	return true, nil
}

// pause lets time pass; nil means that the connection goes on.
func (c *conn) pause(d time.Duration) error {
	_ = c.flush()
	c.mu.Unlock()
	defer c.mu.Lock()
	c.mover.suspend()
	defer c.mover.resume()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.stop:
		return net.ErrClosed
	}
}

// do runs f with the connection locked and sends what f queued, unless the
// connection has ended.
func (c *conn) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	f()
	if c.flush() != nil {
		c.close()
	}
}
