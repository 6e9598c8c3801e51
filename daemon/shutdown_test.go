package daemon

import (
	"syscall"
	"testing"
	"time"

	"iscsictl/device"
)

func TestGoingDown(t *testing.T) {
	w := newWorld(t, nil)
	c := w.conf(nameB)
	c.RecoveryTimeout = 0 // for ever
	id := w.add(c)
	w.until("a disk", w.shows(id, "d1-0"))
	dev := w.host.get("d1-0")
	w.d.GoingDown()
	if errno := dev.io(t, device.Read, 0, make([]byte, 512)); errno != 0 {
		t.Errorf("a request while the target is there: %v", errno)
	}
	w.target.Close()
	before := time.Now()
	errno := dev.io(t, device.Read, 0, make([]byte, 512))
	if took := time.Since(before); errno != syscall.EIO || took > 3*shutdownPatience {
		t.Errorf("%v after %v, want EIO after about %v", errno, took, shutdownPatience)
	}
}

// TestGoingDownLate has a session that has been away for long already.
func TestGoingDownLate(t *testing.T) {
	w := newWorld(t, nil)
	id := w.add(w.conf(nameB))
	w.until("a disk", w.shows(id, "d1-0"))
	dev := w.host.get("d1-0")
	w.target.Close()
	w.until("disconnection", func() bool { return !w.session(id).Connected })
	held := make(chan syscall.Errno, 1)
	go func() { held <- dev.io(t, device.Read, 0, make([]byte, 512)) }()
	e := w.d.all()[0]
	e.mu.Lock()
	e.lost = e.lost.Add(-time.Hour)
	e.mu.Unlock()
	before := time.Now()
	w.d.GoingDown()
	if errno := <-held; errno != syscall.EIO || time.Since(before) > shutdownPatience {
		t.Errorf("%v after %v, want EIO at once", errno, time.Since(before))
	}
}

// TestGoingDownWaits has the tunable say that requests wait even then.
func TestGoingDownWaits(t *testing.T) {
	w := newWorld(t, nil)
	w.add(w.conf(nameB))
	if err := w.d.SetTunable("kern.iscsi.fail_on_shutdown", "0"); err != nil {
		t.Fatal(err)
	}
	w.d.GoingDown()
	if e := w.d.all()[0]; e.patience() != 0 {
		t.Errorf("requests wait for %v, not for ever", e.patience())
	}
}

// TestRecoveryTimeoutSetLate counts from the loss of the connection.
func TestRecoveryTimeoutSetLate(t *testing.T) {
	w := newWorld(t, nil)
	id := w.add(w.conf(nameB))
	w.until("a disk", w.shows(id, "d1-0"))
	dev := w.host.get("d1-0")
	w.target.Close()
	w.until("disconnection", func() bool { return !w.session(id).Connected })
	e := w.d.all()[0]
	for _, limit := range []string{"1000", "1"} { // the second is sooner
		if err := w.d.SetTunable("kern.iscsi.recovery_timeout", limit); err != nil {
			t.Fatal(err)
		}
	}
	if errno := dev.io(t, device.Read, 0, make([]byte, 512)); errno != syscall.EIO {
		t.Errorf("%v, want EIO", errno)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.gaveUp {
		t.Error("it has not given up")
	}
}

func TestHealth(t *testing.T) {
	w := newWorld(t, nil)
	if got := w.d.Health().String(); got != "0 sessions, 0 connected; 0 disks" {
		t.Error(got)
	}
	id := w.add(w.conf(nameB))
	w.until("a disk", w.shows(id, "d1-0"))
	if got := w.d.Health().String(); got != "1 session, 1 connected; 1 disk" {
		t.Error(got)
	}
	// A part that hangs with its lock keeps the answer back.
	e := w.d.all()[0]
	for _, lock := range []struct{ hold, release func() }{
		{w.d.mu.Lock, w.d.mu.Unlock},
		{e.mu.Lock, e.mu.Unlock},
		{e.devs.mu.Lock, e.devs.mu.Unlock},
		{e.conn.Enter, e.conn.Leave},
	} {
		answer := make(chan Health, 1)
		lock.hold()
		go func() { answer <- w.d.Health() }()
		select {
		case <-answer:
			t.Error("an answer while a part hangs")
		case <-time.After(20 * time.Millisecond):
		}
		lock.release()
		<-answer
	}
}
