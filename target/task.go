package target

import (
	"time"

	"iscsictl/scsi"
)

// task is a command that waits: for its data, or because a fault holds it.
type task struct {
	cmd  scsiCommand
	unit *unit
	next *task // free list

	kind verdictKind // of what happens with its data; verdictStatus: it is dropped
	end  verdict     // with verdictStatus, the outcome after the data has come
	off  int64       // verdictWrite: byte of the medium where the data goes
	full int64       // bytes that the CDB asks for
	want uint32      // bytes to be had from the initiator: no more than it announced
	buf  []byte      // collects the data where it cannot go to the medium at once

	unsolicited bool   // unsolicited Data-Out is to come
	given       uint32 // bytes that came without an R2T
	dataSN      uint32 // of the next unsolicited Data-Out
	begun       bool   // the unsolicited data is there
	asked       uint32 // R2Ts or RDMA Reads cover the data up to here
	r2tSN       uint32 // of the next R2T
	bursts      []burst
	plan        []span // by a fault: R2Ts to come, instead of those that follow from asked
	shape       *Fault // by a fault

	held    bool // by a fault
	delay   time.Duration
	aborted bool
	queued  bool // iSER: waits for room to read into
}

// burst is an R2T that is being answered, or an RDMA Read.
type burst struct {
	ttt          uint32
	offset, size uint32 // bytes
	got          uint32 // bytes
	dataSN       uint32
}

type span struct{ offset, size uint32 }

// place puts data where it goes. What lies beyond the data that is wanted is
// dropped.
func (t *task) place(off uint32, p []byte) {
	if t.aborted || off >= t.want || t.kind == verdictStatus {
		return
	}
	p = p[:min(len(p), int(t.want-off))]
	if t.buf != nil {
		copy(t.buf[off:], p)
		return
	}
	if _, err := t.unit.storage.WriteAt(p, t.off+int64(off)); err != nil {
		t.fail(check(scsi.MediumError, scsi.CodeWriteError))
	}
}

// fail drops what is still to come and sets the outcome.
func (t *task) fail(v verdict) {
	t.kind, t.end = verdictStatus, v
}

func (t *task) abort() { t.aborted = true }

func (s *session) newTask(cmd *scsiCommand) *task {
	t := s.free
	if t == nil {
		t = &task{}
	} else {
		s.free = t.next
		*t = task{bursts: t.bursts[:0]}
	}
	t.cmd = *cmd
	return t
}

// release forgets a task that has ended. One that was aborted may still be in
// use by the connection and is left to the garbage collector.
func (s *session) release(t *task) {
	delete(s.tasks, t.cmd.InitiatorTaskTag)
	if !t.aborted {
		t.unit, t.buf, t.plan, t.shape = nil, nil, nil, nil
		t.next, s.free = s.free, t
	}
}

// abortTasks aborts the tasks of one LUN, or all of them if lun is negative.
func (s *session) abortTasks(lun int) {
	for tag, t := range s.tasks {
		if n, ok := lunNumber(t.cmd.LUN); lun < 0 || ok && n == lun {
			t.abort()
			delete(s.tasks, tag)
		}
	}
}
