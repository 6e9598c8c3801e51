package disk

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"iscsictl/device"
	"iscsictl/scsi"
	"iscsictl/session"
)

// rule is what a target answers, again and again, and what comes of it.
type rule struct {
	name    string
	answer  outcome
	times   int // that it answers so
	op      device.Op
	errno   syscall.Errno
	sent    int // commands
	atLeast time.Duration
}

func TestRules(t *testing.T) {
	const always = 1000
	attention := func(c scsi.Code) outcome { return check(scsi.UnitAttention, c) }
	for _, tt := range []rule{
		{"busy", outcome{status: scsi.Busy}, 3, device.Read, 0, 4, 600 * time.Millisecond},
		{"busy for long", outcome{status: scsi.Busy}, 100, device.Write, 0, 101, 3 * time.Minute},
		{"full", outcome{status: scsi.TaskSetFull}, 2, device.Read, 0, 3, 250 * time.Millisecond},
		{"reset", attention(scsi.CodeReset), 20, device.Write, 0, 21, 0},
		{"attentions for ever", attention(scsi.CodeReset), always, device.Write, syscall.EIO, 21, 0},
		{"inquiry changed", attention(scsi.CodeInquiryChanged), 3, device.Write, 0, 4, 0},
		{"mode changed", attention(scsi.CodeModeParametersChanged), 1, device.Write, 0, 2, 0},
		{"becoming ready", check(scsi.NotReady, scsi.CodeBecomingReady), 3, device.Read, 0, 4, 600 * time.Millisecond},
		{"never ready", check(scsi.NotReady, scsi.CodeBecomingReady), always, device.Read, syscall.EIO, maxNotReady + 1, time.Minute},
		{"stopped", check(scsi.NotReady, scsi.CodeStartNeeded), always, device.Read, syscall.EIO, 1, 0},
		{"medium", check(scsi.MediumError, scsi.CodeReadError), always, device.Read, syscall.EIO, 1, 0},
		{"hardware", check(scsi.HardwareError, scsi.CodeInternalFailure), always, device.Write, syscall.EIO, 1, 0},
		{"protected", check(scsi.DataProtect, scsi.CodeWriteProtected), always, device.Write, syscall.EROFS, 1, 0},
		{"full pool", check(scsi.DataProtect, scsi.CodeSpaceAllocationFailed), always, device.Write, syscall.ENOSPC, 1, 0},
		{"protected from reading", check(scsi.DataProtect, 0x2002), always, device.Read, syscall.EIO, 1, 0},
		{"out of range", check(scsi.IllegalRequest, scsi.CodeLBAOutOfRange), always, device.Read, syscall.EIO, 1, 0},
		{"refused", check(scsi.IllegalRequest, scsi.CodeInvalidFieldInCDB), always, device.Read, syscall.EIO, 1, 0},
		{"not supported", check(scsi.IllegalRequest, scsi.CodeLUNotSupported), 2, device.Read, 0, 3, 0},
		{"not supported for ever", check(scsi.IllegalRequest, scsi.CodeLUNotSupported), always, device.Read, syscall.EIO, maxMissing + 1, 0},
		{"aborted", check(scsi.AbortedCommand, scsi.CodeDataPhaseError), 5, device.Write, 0, 6, 0},
		{"aborted for ever", check(scsi.AbortedCommand, scsi.CodeDataPhaseError), always, device.Write, syscall.EIO, 6, 0},
		{"task aborted", outcome{status: scsi.TaskAborted}, 1, device.Write, 0, 2, 0},
		{"recovered", check(scsi.RecoveredError, 0x1800), always, device.Write, 0, 1, 0},
		{"recovered without data", check(scsi.RecoveredError, 0x1800), always, device.Read, syscall.EIO, 2, 0},
		{"reserved", outcome{status: scsi.ReservationConflict}, always, device.Write, syscall.EBADE, 1, 0},
		{"timed out", outcome{err: session.ErrTimedOut}, 5, device.Write, 0, 6, 0},
		{"timed out for ever", outcome{err: session.ErrTimedOut}, always, device.Write, syscall.ETIMEDOUT, 6, 0},
		{"rejected", outcome{err: session.ErrRejected}, always, device.Write, syscall.EIO, 6, 0},
		{"short", outcome{short: 1}, 1, device.Read, 0, 2, 0},
		{"always short", outcome{short: 512}, always, device.Read, syscall.EIO, 2, 0},
		{"deferred", outcome{status: scsi.CheckCondition, sense: scsi.Sense{Key: scsi.MediumError, Deferred: true}}, 1, device.Write, 0, 2, 0},
		{"flush aborted", check(scsi.AbortedCommand, 0), 2, device.Flush, 0, 3, 0},
		{"flush unknown", invalidOpcode, always, device.Flush, syscall.EOPNOTSUPP, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { tt.try(t) })
		})
	}
}

func (tt *rule) try(t *testing.T) {
	lu := newLU("a")
	g, d := one(t, lu)
	defer g.close()
	for range tt.times {
		lu.script = append(lu.script, tt.answer)
	}
	n := int64(512)
	if tt.op == device.Flush {
		n = 0
	}
	r := g.request(tt.op, 0, n)
	begin := time.Now()
	d.Submit([]*device.Request{r})
	for i := 0; !g.isDone(r); i++ {
		if i == 100000 {
			t.Fatal("the request does not end")
		}
		if g.n.run(); !g.isDone(r) {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if r.Errno != tt.errno || len(lu.seen) != tt.sent {
		t.Errorf("%v after %d commands, want %v after %d", r.Errno, len(lu.seen), tt.errno, tt.sent)
	}
	if took := time.Since(begin); took < tt.atLeast || tt.atLeast == 0 && took > 20*time.Millisecond {
		t.Errorf("it took %v, want %v", took, tt.atLeast)
	}
	if s := d.Stats(); int(s.Retries) != tt.sent-1 || s.Requests != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		g, d := one(t, lu)
		defer g.close()
		for range 8 {
			lu.script = append(lu.script, outcome{status: scsi.Busy})
		}
		r := g.request(device.Read, 0, 512)
		d.Submit([]*device.Request{r})
		g.n.run()
		for i, want := range []time.Duration{100, 200, 400, 800, 1600, 2000, 2000, 2000} {
			time.Sleep(want*time.Millisecond - time.Nanosecond)
			if g.n.run(); len(lu.seen) != i+1 {
				t.Fatalf("retry %d came before %d ms", i+1, want)
			}
			time.Sleep(time.Nanosecond)
			if g.n.run(); len(lu.seen) != i+2 {
				t.Fatalf("retry %d did not come after %d ms", i+1, want)
			}
		}
		if !g.isDone(r) || r.Errno != 0 {
			t.Errorf("%v, %v", g.isDone(r), r.Errno)
		}
		// The next begins anew, and its pause ends with the nexus.
		lu.script = []outcome{{status: scsi.Busy}}
		r = g.request(device.Read, 0, 512)
		d.Submit([]*device.Request{r})
		g.n.run()
		g.down()
		g.up()
		g.n.run()
		if !g.isDone(r) {
			t.Error("a pause has outlived its nexus")
		}
	})
}

func TestTaskSetFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		g, d := one(t, lu)
		defer g.close()
		var batch []*device.Request
		for i := range int64(64) {
			batch = append(batch, g.request(device.Read, i*512, 512))
		}
		// The logical unit takes 32 commands.
		d.Submit(batch)
		lu.script = make([]outcome, 32)
		for range 32 {
			lu.script = append(lu.script, outcome{status: scsi.TaskSetFull})
		}
		begin := time.Now()
		g.n.step(-1)
		if len(g.n.pending) == 0 || len(g.n.pending) > 32 {
			t.Errorf("%d commands are sent again at once", len(g.n.pending))
		}
		g.n.run()
		for _, r := range batch {
			if !g.isDone(r) || r.Errno != 0 {
				t.Fatalf("%v, %v", g.isDone(r), r.Errno)
			}
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("there was a pause of %v with commands under way", took)
		}
		low := d.limit
		if low > 32 {
			t.Errorf("the limit is %d", low)
		}
		r := g.request(device.Read, 0, 512)
		for range 2 * growEvery * low {
			g.done = nil
			g.do(d, r)
		}
		if d.limit <= low || d.limit > low+2 {
			t.Errorf("the limit went from %d to %d", low, d.limit)
		}
		g.done = append(batch, r)
	})
}

func TestCapacityChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lu := newLU("a")
		lu.blocks = 4096
		g, d := one(t, lu)
		defer g.close()
		lu.blocks = 8192
		lu.script = []outcome{check(scsi.UnitAttention, scsi.CodeCapacityChanged)}
		r := g.request(device.Read, 0, 512)
		g.do(d, r)
		equal(t, g.takeEvents(), []string{"changed to 4194304 0"})
		if r.Errno != 0 || d.Geometry().Size != 4<<20 {
			t.Errorf("%v, %+v", r.Errno, d.Geometry())
		}
		r = g.request(device.Read, 4<<20-512, 512)
		if g.do(d, r); r.Errno != 0 {
			t.Errorf("beyond the old end: %v", r.Errno)
		}
		lu.blocks = 1024 // and nothing is said
		r = g.request(device.Read, 4<<20-512, 512)
		if g.do(d, r); r.Errno != syscall.EIO {
			t.Errorf("beyond the new end: %v", r.Errno)
		}
		equal(t, g.takeEvents(), []string{"changed to 524288 0"})
		r = g.request(device.Read, 4<<20-512, 512)
		if g.do(d, r); r.Errno != syscall.ENOSPC {
			t.Errorf("beyond the new end: %v", r.Errno)
		}
	})
}
