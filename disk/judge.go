package disk

import (
	"errors"
	"syscall"

	"iscsictl/device"
	"iscsictl/scsi"
	"iscsictl/session"
)

// How often a task is sent again, by reason. Lost nexuses and BUSY are not
// counted: what bounds them is the recovery time-out, or the target.
const (
	maxAttentions = 20
	maxAborted    = 5
	maxTimeouts   = 5
	maxShort      = 1
	maxNotReady   = 64 // with up to 2 s between: two minutes
	maxMissing    = 3
)

// action is what becomes of a task.
type action uint8

const (
	over      action = iota // with an errno, or 0
	sendAgain               // at once
	sendLater               // after a pause of the disk
	holdAll                 // once the disk has been looked at
)

type verdict struct {
	act   action
	errno syscall.Errno
	want  want
}

func failed(errno syscall.Errno) verdict { return verdict{errno: errno} }

// within counts a reason to send again, and fails the task when it was too often.
func within(count *uint16, most uint16, errno syscall.Errno) verdict {
	if *count >= most {
		return failed(errno)
	}
	*count++
	return verdict{act: sendAgain}
}

// judge decides what a command's outcome means. The lock is held.
func (d *Disk) judge(b *batch, t *task) verdict {
	c := &t.cmd
	if c.Err != nil {
		return d.judgeError(b, t)
	}
	if c.Response != 0 { // the target failed before the logical unit saw it, or after
		d.errorf(b, "%s failed in the target (response %#02x)", name(t), c.Response)
		return within(&t.tries.aborted, maxAborted, syscall.EIO)
	}
	switch scsi.Status(c.Status) {
	case scsi.Good, scsi.ConditionMet:
		return d.judgeGood(b, t)
	case scsi.CheckCondition:
		s, ok := scsi.ParseSense(c.Sense[:min(max(c.SenseLen, 0), len(c.Sense))])
		if !ok {
			return within(&t.tries.aborted, maxAborted, syscall.EIO)
		}
		return d.judgeSense(b, t, s)
	case scsi.TaskSetFull:
		return d.judgeFull(b, t)
	case scsi.Busy, scsi.ACAActive:
		d.tellBusy(b, scsi.Status(c.Status))
		return verdict{act: sendLater}
	case scsi.ReservationConflict:
		d.errorf(b, "%s: reserved by another initiator", name(t))
		return failed(syscall.EBADE)
	}
	return within(&t.tries.aborted, maxAborted, syscall.EIO) // TASK ABORTED and reserved ones
}

func (d *Disk) judgeError(b *batch, t *task) verdict {
	switch err := t.cmd.Err; {
	case errors.Is(err, session.ErrNexusLost):
		// One that is lost late, from a nexus before the present one, may
		// go at once: this nexus is looked at already.
		if t.cmd.Nexus < d.nexus {
			return verdict{act: sendAgain}
		}
		return verdict{act: holdAll}
	case errors.Is(err, session.ErrTimedOut):
		v := within(&t.tries.timeout, maxTimeouts, syscall.ETIMEDOUT)
		d.errorf(b, "%s timed out (%d)", name(t), t.tries.timeout)
		return v
	default:
		d.errorf(b, "%s: %v", name(t), err)
		return within(&t.tries.aborted, maxAborted, syscall.EIO)
	}
}

func (d *Disk) judgeGood(b *batch, t *task) verdict {
	c := &t.cmd
	short := t.kind == taskRead && int64(c.Received) < t.n || t.kind == taskWrite && c.Residual > 0 && !c.Overflow
	if short {
		// Memory that was not filled must not reach the host.
		d.errorf(b, "%s of %d bytes moved less than that", name(t), t.n)
		return within(&t.tries.short, maxShort, syscall.EIO)
	}
	d.wait.told, d.wait.next = false, 0
	d.grow()
	return verdict{}
}

func (d *Disk) tellBusy(b *batch, s scsi.Status) {
	if !d.wait.told {
		d.wait.told = true
		d.errorf(b, "%s: waiting for the target", s)
	}
}

// judgeSense takes in a CHECK CONDITION (SPC-4 §4.5.6).
func (d *Disk) judgeSense(b *batch, t *task, s scsi.Sense) verdict {
	if s.Deferred { // of an earlier command: this one was not executed
		d.errorf(b, "an earlier command has failed after all: %s", s)
		return within(&t.tries.aborted, maxAborted, syscall.EIO)
	}
	switch s.Key {
	case scsi.RecoveredError, scsi.Completed:
		return d.judgeGood(b, t)
	case scsi.UnitAttention:
		v := within(&t.tries.attention, maxAttentions, syscall.EIO)
		return attend(v, s.Code)
	case scsi.NotReady:
		return d.judgeNotReady(b, t, s)
	case scsi.IllegalRequest:
		return d.judgeIllegal(b, t, s)
	case scsi.DataProtect:
		d.errorf(b, "%s: %s", name(t), s)
		return protected(t, s)
	case scsi.AbortedCommand, scsi.NoSense:
		return within(&t.tries.aborted, maxAborted, syscall.EIO)
	}
	d.errorf(b, "%s at byte %d: %s", name(t), t.off, s)
	return failed(syscall.EIO)
}

// attend adds to a verdict what a unit attention asks for (SPC-4 annex F).
// Nothing more is sent to a logical unit that may have become another one.
func attend(v verdict, c scsi.Code) verdict {
	switch c {
	case scsi.CodeLUNsChanged:
		v.want = wantCheck | wantScan
	case scsi.CodeInquiryChanged, scsi.CodeIdentifierChanged, scsi.CodeMediumChanged:
		v.want = wantCheck
	case scsi.CodeCapacityChanged, scsi.CodeModeParametersChanged, scsi.CodeOperatingChanged:
		v.want = wantCheck
		return v
	default:
		return v
	}
	if v.act == sendAgain {
		v.act = holdAll
	}
	return v
}

func (d *Disk) judgeNotReady(b *batch, t *task, s scsi.Sense) verdict {
	if !passes(s.Code) {
		d.errorf(b, "%s: %s", name(t), s)
		return failed(syscall.EIO)
	}
	v := within(&t.tries.notReady, maxNotReady, syscall.EIO)
	if v.act == sendAgain {
		v.act = sendLater
	}
	if !d.wait.told || v.act == over {
		d.wait.told = true
		d.errorf(b, "%s: %s", name(t), s)
	}
	return v
}

// passes reports whether a logical unit that is not ready will be by itself.
func passes(c scsi.Code) bool {
	switch c {
	case scsi.CodeBecomingReady, scsi.CodeOperationInProgress, scsi.CodeSpaceInitializing,
		scsi.CodeStateTransition, scsi.CodeTargetPortStandby, scsi.CodeTargetPortUnavailable, scsi.CodeNotReadyUnknown:
		return true
	}
	return false
}

func protected(t *task, s scsi.Sense) verdict {
	switch {
	case s.Code == scsi.CodeSpaceAllocationFailed:
		return failed(syscall.ENOSPC)
	case t.kind == taskRead:
		return failed(syscall.EIO)
	}
	return verdict{errno: syscall.EROFS, want: wantCheck}
}

func (d *Disk) judgeIllegal(b *batch, t *task, s scsi.Sense) verdict {
	switch s.Code {
	case scsi.CodeLBAOutOfRange:
		d.errorf(b, "%s at byte %d: %s", name(t), t.off, s)
		return verdict{errno: syscall.EIO, want: wantCheck}
	case scsi.CodeLUNotSupported:
		v := within(&t.tries.missing, maxMissing, syscall.EIO)
		v.want = wantCheck | wantScan
		if v.act == sendAgain {
			v.act = holdAll
		}
		return v
	case scsi.CodeInvalidOpcode, scsi.CodeInvalidFieldInCDB, scsi.CodeInvalidFieldInList, scsi.CodeParameterListLength:
		if v, ok := d.learn(t); ok {
			return v
		}
	}
	d.errorf(b, "%s at byte %d: %s", name(t), t.off, s)
	return failed(syscall.EIO)
}

// learn takes in that the logical unit does not know a command, or a part of it
// that can be done without.
func (d *Disk) learn(t *task) (verdict, bool) {
	k := &d.learned
	// Only what is not known yet may be sent again, in another way.
	sent := scsi.CDB(t.cmd.CDB)
	switch {
	case t.kind == taskSync:
		k.noSync = true
		if !d.flushes() {
			return verdict{}, true
		}
		return failed(syscall.EOPNOTSUPP), true
	case t.kind == taskUnmap:
		k.noUnmap = true
	case t.kind == taskSame && t.unmap && t.req.Op == device.WriteZeroes:
		k.noSameUnmap, t.unmap = true, false
		return verdict{act: sendAgain, want: wantCheck}, true
	case t.kind == taskSame && t.unmap:
		k.noSameUnmap = true
	case t.kind == taskSame:
		k.noSame = true
	case t.kind == taskWrite:
		if r, _ := sent.Range(); !r.FUA {
			return verdict{}, false
		}
		k.noFUA, d.limits.fua = true, false
		return verdict{act: sendAgain}, true
	default:
		return verdict{}, false
	}
	// What the host is offered changes with the check.
	return verdict{errno: syscall.EOPNOTSUPP, want: wantCheck}, true
}

// name is a task's command as the log has it.
func name(t *task) string {
	c := scsi.CDB(t.cmd.CDB)
	return c.String()
}
