package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"iscsictl/scsi"
	"iscsictl/target"
)

// fault is one thing that goes wrong, and how it is undone.
type fault struct {
	name  string
	class string        // of which only one happens at a time
	hold  time.Duration // how long it lasts at least
	begin func()
	end   func()
}

const (
	classTarget  = "target"
	classDaemon  = "daemon"
	classState   = "state"
	classNetwork = "network"
	classAll     = "all" // with nothing beside it
)

// silence is longer than the ping time-out of a campaign's daemon, which is 2 seconds,
// and the second that it may take to be noticed.
const silence = 3500 * time.Millisecond

// campaignOptions are the tunables of a campaign's daemon.
var campaignOptions = []string{
	"-o", "kern.iscsi.ping_timeout=2", "-o", "kern.iscsi.login_timeout=4", "-o", "kern.iscsi.arena_size=16m",
}

// faults lists all that can be done here.
func (c *campaign) faults() []fault {
	list := c.targetFaults()
	if c.d.outlived() {
		list = append(list, c.daemonFaults()...)
	}
	if c.peer.own != nil {
		list = append(list, c.peer.own(c)...)
	}
	if c.net != nil {
		list = append(list, c.net.faults()...)
		list = append(list, c.halfOpen()...)
	}
	return list
}

// outlived tells whether a daemon's disks can do without it for a while: a loop device
// cannot.
func (d *daemon) outlived() bool { return !slices.Contains(d.args, "device=loop") }

func (c *campaign) targetFaults() []fault {
	list := []fault{
		{name: "target killed", class: classTarget, begin: c.peer.stop, end: c.peer.start},
		{name: "target away for long", class: classTarget, hold: silence, begin: c.peer.stop, end: c.peer.start},
		{
			name: "target away beyond recovery_timeout", class: classAll,
			begin: func() {
				c.tune("kern.iscsi.recovery_timeout", "1")
				c.d.connected(c.peer.target)
				failed := c.failures()
				c.failing.begin()
				begun := time.Now()
				c.peer.stop()
				if !within(patience, func() bool { return c.ended() || c.failedSince(failed) }) {
					c.broken("recovery_timeout is 1 s, and after %v there is a host whose requests have not failed", patience)
				}
				if took := time.Since(begun); took < time.Second {
					c.broken("requests have failed after %v, before recovery_timeout", took)
				}
			},
			end: func() {
				c.peer.start()
				// What fails, does so until the session is up.
				c.d.connected(c.peer.target)
				c.tune("kern.iscsi.recovery_timeout", "0")
				c.failing.end()
			},
		},
	}
	if c.peer.pid == nil {
		return list
	}
	signal := func(s syscall.Signal) func() { return func() { _ = syscall.Kill(c.peer.pid(), s) } }
	stutter := func() (begin, end func()) {
		var done chan struct{}
		var wait sync.WaitGroup
		begin = func() {
			done = make(chan struct{})
			wait.Go(func() {
				for on := true; ; on = !on {
					select {
					case <-done:
						signal(syscall.SIGCONT)()
						return
					case <-time.After(50 * time.Millisecond):
					}
					if on {
						signal(syscall.SIGSTOP)()
					} else {
						signal(syscall.SIGCONT)()
					}
				}
			})
		}
		return begin, func() { close(done); wait.Wait() }
	}
	begin, end := stutter()
	return append(list,
		fault{name: "target hangs", class: classTarget, hold: silence, begin: signal(syscall.SIGSTOP), end: signal(syscall.SIGCONT)},
		fault{name: "target pauses", class: classTarget, begin: signal(syscall.SIGSTOP), end: signal(syscall.SIGCONT)},
		fault{name: "target slow", class: classTarget, hold: time.Second, begin: begin, end: end},
	)
}

// failures counts the requests of each host that failed as they should.
func (c *campaign) failures() (list []int64) {
	for _, h := range c.hosts {
		list = append(list, h.failed.Load())
	}
	return list
}

func (c *campaign) failedSince(before []int64) bool {
	for i, n := range c.failures() {
		if n == before[i] {
			return false
		}
	}
	return true
}

// tune sets a tunable, where there is a daemon to set it.
func (c *campaign) tune(name, value string) {
	if r := c.d.ctl("--sysctl", name+"="+value); r.status != 0 {
		c.note("iscsictl --sysctl %s=%s: %s", name, value, strings.TrimSpace(r.stderr))
	}
}

// killDaemon ends the daemon as a crash does, and startDaemon starts the next.
func (c *campaign) killDaemon() {
	c.gone.begin()
	c.d.kill()
}

func (c *campaign) startDaemon() {
	c.d.launch()
	c.gone.end()
}

func (c *campaign) daemonFaults() []fault {
	signal := func(s os.Signal) func() { return func() { c.d.signal(s) } }
	list := []fault{
		{name: "iscsid killed", class: classDaemon, begin: c.killDaemon, end: c.startDaemon},
		{name: "iscsid stands still", class: classDaemon, hold: 100 * time.Millisecond, begin: signal(syscall.SIGSTOP), end: signal(syscall.SIGCONT)},
		{name: "iscsid stands still for long", class: classDaemon, hold: silence, begin: signal(syscall.SIGSTOP), end: signal(syscall.SIGCONT)},
		{
			name: "target and iscsid killed", class: classAll,
			begin: func() { c.peer.stop(); c.killDaemon() },
			end: func() {
				if c.rng.IntN(2) == 0 {
					c.peer.start()
					c.startDaemon()
				} else {
					c.startDaemon()
					c.peer.start()
				}
			},
		},
		c.memoryShort(), c.descriptorsShort(),
	}
	if f, ok := c.memoryGroup(); ok {
		list = append(list, f)
	}
	if f, ok := c.stateFull(); ok {
		list = append(list, f)
	}
	if f, ok := c.clockJump(); ok {
		list = append(list, f)
	}
	return list
}

// clockJump starts the daemon anew with clocks that count from elsewhere: those of a
// process that do not follow the calendar can be set, in a time namespace. The next
// start is back in ours. A clock that follows the calendar is the machine's alone.
func (c *campaign) clockJump() (fault, bool) {
	if out, err := attempt("unshare", "-T", "--monotonic=1", "--boottime=1", "true"); err != nil {
		c.note("no other clock: %v: %s", err, out)
		return fault{}, false
	}
	return fault{
		name: "iscsid killed, another clock", class: classDaemon,
		begin: c.killDaemon,
		end: func() {
			jump := strconv.Itoa([]int{3600, 86400, 400 * 86400}[c.rng.IntN(3)])
			before := c.d.before
			c.d.before = append([]string{"unshare", "-T", "--monotonic=" + jump, "--boottime=" + jump}, before...)
			c.startDaemon()
			c.d.before = before
		},
	}, true
}

// halfOpen has one side start anew while the other cannot hear of it.
func (c *campaign) halfOpen() []fault {
	var undo func()
	cut := func(then func()) func() {
		return func() {
			for _, f := range c.net.faults() {
				if f.name == "network cut" {
					f.begin()
					undo = f.end
				}
			}
			then()
		}
	}
	list := []fault{{
		name: "half open at iscsid", class: classAll,
		begin: cut(func() { c.peer.stop(); c.peer.start() }),
		end:   func() { undo() },
	}}
	if c.d.outlived() {
		list = append(list, fault{
			name: "half open at the target", class: classAll,
			begin: cut(func() { c.killDaemon(); c.startDaemon() }),
			end:   func() { undo() },
		})
	}
	return list
}

// faults implements network.
func (w *cable) faults() []fault {
	simple := func(name string, hold time.Duration, f func() wireFault) fault {
		return fault{
			name: name, class: classNetwork, hold: hold,
			begin: func() { w.set(f()) },
			end:   func() { w.set(wireFault{}) },
		}
	}
	always := func(f wireFault) func() wireFault { return func() wireFault { return f } }
	down := simple("interface down", 500*time.Millisecond, nil)
	link := func(state string) func() {
		return func() { _, _ = attempt("ip", "-n", w.near, "link", "set", "cable", state) }
	}
	down.begin, down.end = link("down"), link("up")
	return []fault{
		simple("network cut", 0, always(wireFault{drop: [2]float64{1, 1}})),
		simple("network cut for long", silence, always(wireFault{drop: [2]float64{1, 1}})),
		simple("nothing comes back", silence, always(wireFault{drop: [2]float64{0, 1}})),
		simple("nothing gets there", silence, always(wireFault{drop: [2]float64{1, 0}})),
		simple("loss", 2*time.Second, always(wireFault{drop: [2]float64{0.1, 0.1}})),
		simple("delay", 2*time.Second, always(wireFault{delay: 50 * time.Millisecond, jitter: 100 * time.Millisecond})),
		simple("reordering", 2*time.Second, always(wireFault{reorder: 0.3, double: 0.1})),
		simple("corruption", 2*time.Second, always(wireFault{corrupt: 0.02})),
		simple("port closed", 500*time.Millisecond, always(wireFault{reset: true})),
		down,
	}
}

// note implements network.
func (w *cable) note() string {
	n := w.counts()
	return fmt.Sprintf("%d packets, %d dropped, %d late, %d doubled, %d corrupted, %d resets", n.packets, n.dropped, n.late, n.doubled, n.corrupted, n.resets)
}

// misbehaves is what the embedded target does wrong of itself, without a request that
// may fail by it.
func misbehaves(iser bool) []target.Fault {
	at := func(pdu string, nth int, a target.Action) target.Fault {
		return target.Fault{PDU: pdu, Nth: nth, Phase: "full-feature", Action: a}
	}
	list := []target.Fault{
		at("scsi-command", 40, target.ActionDrop), at("scsi-response", 20, target.ActionSwallow), at("scsi-command", 30, target.ActionReject),
		at("scsi-command", 25, target.ActionPing), at("scsi-response", 20, target.ActionStatSN), at("scsi-response", 35, target.ActionUnknownITT),
		at("scsi-command", 40, target.ActionSilence),
		{Command: "write", Nth: 5, Times: 4, Action: target.ActionStatus, Status: int(scsi.Busy)},
		{Command: "read", Nth: 5, Times: 4, Action: target.ActionStatus, Status: int(scsi.TaskSetFull)},
		{Command: "write", Nth: 7, Action: target.ActionCheck, Sense: target.Sense{Key: scsi.UnitAttention, Code: 0x2900}},
		{Command: "read", Nth: 7, Action: target.ActionCheck, Sense: target.Sense{Key: scsi.NotReady, Code: 0x0401}},
	}
	if iser {
		return append(list,
			target.Fault{Command: "write", Nth: 6, Action: target.ActionBadSTag}, target.Fault{Command: "read", Nth: 6, Action: target.ActionStaleSTag},
			target.Fault{Command: "read", Nth: 9, Action: target.ActionDataShort})
	}
	return append(list,
		at("data-in", 30, target.ActionDropAfter), at("data-out", 5, target.ActionDropAfter), at("data-in", 30, target.ActionDataDigest),
		at("data-in", 30, target.ActionHeaderDigest), at("data-in", 30, target.ActionSwallow),
		target.Fault{Command: "read", Nth: 9, Action: target.ActionDataShort}, target.Fault{Command: "write", Nth: 9, Action: target.ActionR2T, R2T: target.R2TShape{Burst: 4096}})
}

// embeddedFaults are what only the embedded target does. It does them from its next
// start on.
func (c *campaign) embeddedFaults(e *embedded, good target.Config) []fault {
	again := func(list ...target.Fault) {
		conf := good
		conf.Faults = list
		e.configure(conf)
		c.peer.stop()
		c.peer.start()
	}
	fails := func(command string) target.Fault {
		code := scsi.Code(0x1100) // unrecovered read error
		if command == "write" {
			code = scsi.CodeWriteError
		}
		return target.Fault{Command: command, Nth: 3, Times: 6, Action: target.ActionCheck, Sense: target.Sense{Key: scsi.MediumError, Code: code}}
	}
	return []fault{
		{
			name: "target misbehaves", class: classTarget, hold: time.Second,
			begin: func() {
				bad := misbehaves(c.peer.iser)
				c.rng.Shuffle(len(bad), func(i, k int) { bad[i], bad[k] = bad[k], bad[i] })
				again(bad[:4]...)
				for _, f := range bad[:4] {
					c.note("   %s at %s %s", f.Action, f.PDU, f.Command)
				}
			},
			end: func() { again() },
		},
		{
			name: "target's disk slow", class: classTarget, hold: time.Second,
			begin: func() {
				again(target.Fault{Command: "write", Nth: 3, Times: 20, Action: target.ActionHold, Delay: seconds(0.7)},
					target.Fault{Command: "read", Nth: 3, Times: 20, Action: target.ActionHold, Delay: seconds(0.3)})
			},
			end: func() { again() },
		},
		{
			name: "target's disk fails", class: classTarget, hold: time.Second,
			begin: func() { c.failing.begin(); again(fails("write"), fails("read")) },
			end:   func() { again(); c.failing.end() },
		},
		{
			// After the command time-out each is aborted, and sent again: its host sees nothing.
			name: "commands beyond command_timeout", class: classAll, hold: 3 * time.Second,
			begin: func() {
				c.tune("kern.iscsi.command_timeout", "1")
				again(target.Fault{Command: "write", Nth: 5, Times: 2, Action: target.ActionHold}, target.Fault{Command: "read", Nth: 5, Action: target.ActionHold})
				if !within(patience, func() bool { return c.ended() || c.d.says("was not answered in time; aborting it") }) {
					c.broken("command_timeout is 1 s, and after %v no command was aborted", patience)
				}
			},
			end: func() { again(); c.tune("kern.iscsi.command_timeout", "60") },
		},
	}
}
