package disk

import (
	"time"

	"iscsictl/scsi"
	"iscsictl/session"
)

// Traits are what a stepped disk's logical unit has told of itself.
type Traits struct {
	BlockLength uint32 // bytes
	Blocks      uint64
	MaxTransfer uint32 // blocks of one READ or WRITE; 0: no limit
	WriteCache  bool
	FUA         bool
	WriteSame   bool
	Unmap       bool // and unmapped blocks read as zeroes
}

// Stepper is a Set with one disk that does nothing by itself: it has no
// goroutine and no timer, and does not ask the target what the disk is. Whoever
// holds it says when the disk has been looked at and when its pause is over, so
// that a simulation can play any order of events.
type Stepper struct {
	*Set
	disk  *Disk
	pause stepTimer
}

// stepTimer is a timer that is asked.
type stepTimer struct{ set bool }

func (t *stepTimer) Reset(time.Duration) bool { t.set = true; return true }
func (t *stepTimer) Stop() bool               { t.set = false; return true }

// NewStepper makes a Set with the disk of that LUN (0 to 255). It takes
// memory of the session's arena, as Bind does.
func NewStepper(cfg Config, n Nexus, lun uint8, t Traits) (*Stepper, error) {
	p := &Stepper{Set: New(cfg)}
	if err := p.Bind(n); err != nil {
		return nil, err
	}
	f := &facts{cached: true}
	f.inquiry.Vendor, f.inquiry.Product, f.serial = "SIM", "DISK", "1"
	f.capacity.LastLBA, f.capacity.BlockLength = t.Blocks-1, t.BlockLength
	f.capacity.LBPME, f.capacity.LBPRZ = t.Unmap, t.Unmap
	f.thin.LBPU = t.Unmap
	f.limits.MaxTransfer = t.MaxTransfer
	f.limits.MaxUnmapBlocks, f.limits.MaxUnmapExtents = 64, 1
	f.mode.DPOFUA, f.caching.WriteCache, f.same = t.FUA, t.WriteCache, t.WriteSame
	p.working = true // for ever: no worker is started
	p.disk = newDisk(p.Set, scsi.LUNOf(uint64(lun)), f, 0)
	p.disk.wait.timer = &p.pause
	p.disk.hold(0)
	p.disks[uint64(lun)] = p.disk
	return p, nil
}

// Disk returns the disk.
func (p *Stepper) Disk() *Disk { return p.disk }

// Pausing reports whether the disk has set a timer, which Resume ends.
func (p *Stepper) Pausing() bool { return p.pause.set }

// Resume is the end of the pause.
func (p *Stepper) Resume() {
	if p.pause.set {
		p.pause.set = false
		p.disk.unpause()
	}
}

// Look is a look at the disk that has begun.
type Look struct{ nexus, doubt uint64 }

// Nexus is the number of the nexus on which the disk is looked at.
func (l Look) Nexus() uint64 { return l.nexus }

// Asked reports whether the disk is to be looked at: a session has come up, or
// the target said something.
func (p *Stepper) Asked() bool { return p.up != 0 && (p.scan || len(p.checks) > 0) }

// Begin begins to look at the disk.
func (p *Stepper) Begin() Look {
	p.scan, p.checks, p.disk.asked = false, nil, false
	return Look{p.up, p.disk.doubt()}
}

// End ends the look: the disk was found to be itself.
func (p *Stepper) End(l Look) { p.disk.resume(l.nexus, l.doubt) }

// Fail fails what is held: the recovery time-out has passed.
func (p *Stepper) Fail() { p.Set.Fail(session.ErrNexusLost) }

// Finish fails all requests and gives the memory back. The session has ended.
func (p *Stepper) Finish() {
	p.mu.Lock()
	p.working = false
	p.mu.Unlock()
	p.Close()
}
