package disk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"iscsictl/arena"
	"iscsictl/scsi"
	"iscsictl/session"
)

// maxBusy is how often a command of the background is sent again to a logical
// unit that is busy, before the background goes on with others.
const maxBusy = 10

// errNoMemory says that there is no room for an answer.
var errNoMemory = errors.New("no memory for the answer")

// checkError is a command's failure as the target has it.
type checkError struct {
	cdb    scsi.CDB
	status scsi.Status
	sense  scsi.Sense // of CHECK CONDITION
}

func (e *checkError) Error() string {
	if e.status == scsi.CheckCondition {
		return fmt.Sprintf("%s: %s", &e.cdb, e.sense)
	}
	return fmt.Sprintf("%s: %s", &e.cdb, e.status)
}

// illegal reports whether a command failed because the logical unit does not
// know it.
func illegal(err error) bool {
	e, ok := errors.AsType[*checkError](err)
	return ok && e.status == scsi.CheckCondition && e.sense.Key == scsi.IllegalRequest && e.sense.Code != scsi.CodeLUNotSupported
}

// missing reports whether there is no logical unit.
func missing(err error) bool {
	e, ok := errors.AsType[*checkError](err)
	return ok && e.status == scsi.CheckCondition && e.sense.Key == scsi.IllegalRequest && e.sense.Code == scsi.CodeLUNotSupported ||
		errors.Is(err, errNotConnected)
}

// caller executes commands of the background, one at a time.
type caller struct {
	set     *Set
	cmd     session.Command
	done    chan struct{}
	buf     arena.Extent
	changed bool // the target said that its logical units have changed
}

func newCaller(s *Set, buf arena.Extent) *caller {
	c := &caller{set: s, done: make(chan struct{}, 1), buf: buf}
	c.cmd.Issuer = c
	return c
}

// Complete implements session.Issuer.
func (c *caller) Complete([]*session.Command) { c.done <- struct{}{} }

// call executes a command until it is answered for good, and returns the n bytes
// of its answer, or as many as came. They are valid until the next call. An
// attempt under way is waited for, whatever becomes of ctx: the memory is the
// session's until then.
func (c *caller) call(ctx context.Context, lun scsi.LUN, cdb scsi.CDB, n int) ([]byte, error) {
	if n > c.buf.Len() {
		return nil, errNoMemory
	}
	var tries tries
	for busy := 0; ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.cmd.LUN, c.cmd.CDB, c.cmd.Err = uint64(lun), cdb, nil
		c.cmd.In = c.buf.Slice(0, n)
		c.set.nexus.Submit([]*session.Command{&c.cmd})
		<-c.done
		again, err := c.judge(&tries, cdb)
		switch {
		case again == over && err == nil:
			return c.buf.Bytes()[:min(max(c.cmd.Received, 0), n)], nil
		case again == over:
			return nil, err
		case again == sendLater:
			if busy++; busy > maxBusy {
				return nil, err
			}
			if err := sleep(ctx, c.set.jitter(min(firstPause<<busy, lastPause))); err != nil {
				return nil, err
			}
		}
	}
}

// judge says what becomes of the command, and its error.
func (c *caller) judge(n *tries, cdb scsi.CDB) (action, error) {
	switch err := c.cmd.Err; {
	case errors.Is(err, session.ErrTimedOut):
		return again(&n.timeout, 1), fmt.Errorf("%s: %w", &cdb, err)
	case err != nil:
		return over, fmt.Errorf("%s: %w", &cdb, err)
	case c.cmd.Response != 0:
		return again(&n.aborted, maxAborted), fmt.Errorf("%s: the target failed (response %#02x)", &cdb, c.cmd.Response)
	}
	e := &checkError{cdb: cdb, status: scsi.Status(c.cmd.Status)}
	switch e.status {
	case scsi.Good, scsi.ConditionMet:
		return over, nil
	case scsi.CheckCondition:
		return c.judgeSense(n, e), e
	case scsi.Busy, scsi.TaskSetFull, scsi.ACAActive:
		return sendLater, e
	case scsi.ReservationConflict:
		return over, e
	}
	return again(&n.aborted, maxAborted), e
}

func (c *caller) judgeSense(n *tries, e *checkError) action {
	s, ok := scsi.ParseSense(c.cmd.Sense[:min(max(c.cmd.SenseLen, 0), len(c.cmd.Sense))])
	e.sense = s
	switch {
	case !ok || s.Deferred || s.Key == scsi.AbortedCommand:
		return again(&n.aborted, maxAborted)
	case s.Key == scsi.UnitAttention:
		c.changed = c.changed || s.Code == scsi.CodeLUNsChanged
		return again(&n.attention, maxAttentions)
	}
	return over
}

func again(count *uint16, most uint16) action {
	if *count >= most {
		return over
	}
	*count++
	return sendAgain
}

// sleep waits, in what may be fake time.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
