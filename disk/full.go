package disk

import "iscsictl/scsi"

// growEvery is for how many commands that go well, for each that may be in
// flight, one more may be in flight after TASK SET FULL.
const growEvery = 8

// fullness is what TASK SET FULL has taught (SAM-5 §5.3.1).
type fullness struct {
	sent  uint64 // commands sent
	round uint64 // commands sent when the limit began to be lowered
	floor int    // of the limit, for what was sent before that
	good  int    // commands that went well since the limit was changed
	moves bool   // one went well since it was last found that none was under way
}

// judgeFull takes in TASK SET FULL: no more commands at once than the logical
// unit has now, and no pause where the end of one of them makes room, or the end
// of others has made it meanwhile. Commands that were sent together fail
// together, and lower the limit to half at most.
func (d *Disk) judgeFull(b *batch, t *task) verdict {
	f := &d.full
	if t.sent > f.round {
		f.round = f.sent
		f.floor = max(min(d.limit, d.inFlight+1)/2, 1)
	}
	d.limit, f.good = max(min(d.limit, d.inFlight), f.floor), 0
	if d.inFlight > 0 || f.moves {
		f.moves = f.moves && d.inFlight > 0
		return verdict{act: sendAgain}
	}
	d.tellBusy(b, scsi.TaskSetFull)
	return verdict{act: sendLater}
}

// grow takes in a command that went well.
func (d *Disk) grow() {
	d.full.moves = true
	if d.limit >= maxInFlight {
		return
	}
	if d.full.good++; d.full.good >= growEvery*d.limit {
		d.limit, d.full.good = d.limit+1, 0
	}
}
