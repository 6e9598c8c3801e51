// Package disk makes disks of the logical units behind a session: it finds them,
// learns what they can do, turns block requests into SCSI commands, splits and
// repeats these, and holds requests while no session is up.
//
// A Set is all logical units of one session. It is told of the session's coming
// and going (session.Handler), finds the logical units in the background and
// tells the daemon of disks that come, change and go (Events). A Disk is one of
// them (device.Disk).
//
// A request becomes one task or several, each of them a SCSI command on its way.
// A task that fails in a way that passes (SAM-5 §5.3, SPC-4 §4.5) is sent again
// and not told to the host: busy targets, unit attentions, aborted commands, lost
// nexuses. After a lost nexus nothing is sent to a logical unit before it has
// been asked who it is, so that a disk that has taken the number of another
// never gets its writes.
//
// Reading and writing allocate nothing, and start no goroutine: tasks come from
// a list of spares, and what is to be done without a lock is collected in a
// batch that is one too.
package disk
