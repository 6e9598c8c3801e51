package simulation

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"iscsictl/arena"
	"iscsictl/conf"
	"iscsictl/disk"
	"iscsictl/scsi"
	"iscsictl/session"
	"iscsictl/transport"
	"iscsictl/transport/iser"
)

const (
	maxTags = 6
	// tasks is the size of a task table: what the session takes for itself
	// comes on top of maxTags.
	tasks = maxTags + 8

	faultySteps = 600
	// wellSteps is how long all may take to come to an end when the network is well.
	wellSteps = 60000
)

var isid = [6]byte{0x80, 1, 2, 3, 4, 5}

// faults say what may happen in a run, beyond what always may.
type faults struct {
	cuts   bool // the network
	drops  bool // the target ends sessions, or asks for it
	errors bool // commands fail in ways that the host may see
	resets bool // by others
	stalls bool // commands stay with the target for long
	lies   bool
	fails  bool // the recovery time-out passes
}

// world is one run.
type world struct {
	rng     *rand.Rand
	arena   *arena.Arena
	target  *target
	stepper *session.Stepper
	disk    *disk.Stepper
	link    link // nil: there is none

	now      time.Duration
	faults   faults
	calm     int // how seldom something goes wrong
	digests  [2]bool
	well     bool // no more faults
	vanished bool // the target does nothing

	looks      []disk.Look
	looked     uint64 // number of the nexus on which the disk was looked at
	requests   []*request
	asked      int
	area       int  // blocks that are used
	failedHeld bool // what was held has been failed once
	history    history
	steps      int    // until all is well
	bends      []byte // how PDUs of the target are changed: see bend
	bent       bool   // one was: the target may say anything
	failed     error
	count      counts

	log io.Writer // nil: none
}

type counts struct{ requests, errors, logins, cuts, steps int }

func (w *world) logf(format string, args ...any) {
	if w.log != nil {
		fmt.Fprintf(w.log, format+"\n", args...)
	}
}

var silent = slog.New(slog.DiscardHandler)

// run plays a seed.
func run(seed uint64, a *arena.Arena, log io.Writer) (counts, error) {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), arena: a, log: log, steps: faultySteps}
	w.logf("seed %d", seed)
	return w.run()
}

// run makes up what the run is like, and plays it.
func (w *world) run() (counts, error) {
	r := w.rng
	w.faults = faults{cuts: r.IntN(3) > 0, drops: r.IntN(3) == 0, errors: r.IntN(3) == 0, resets: r.IntN(3) == 0, lies: r.IntN(4) == 0, stalls: r.IntN(4) == 0, fails: r.IntN(6) == 0}
	w.digests = [2]bool{r.IntN(3) == 0, r.IntN(3) == 0}
	w.target = &target{w: w, blocks: make([]byte, blockCount*blockSize)}
	tunables := conf.NewTunables()
	set := func(name, value string) {
		if err := tunables.Set(name, value); err != nil {
			panic(err)
		}
	}
	set("kern.iscsi.maxtags", fmt.Sprint(maxTags))
	set("kern.iscsi.iscsid_timeout", "1000000")
	set("kern.iscsi.ping_timeout", "5")
	commandTimeout := 0
	if w.faults.resets || w.faults.stalls || r.IntN(3) == 0 {
		commandTimeout = 2 + r.IntN(20)
	}
	w.area, w.calm = blockCount, 1<<(2*r.IntN(4))
	if w.faults.stalls { // what comes late should meet what came after it
		w.area, commandTimeout = 16, 2
	}
	set("kern.iscsi.command_timeout", fmt.Sprint(commandTimeout))
	if commandTimeout > 0 || len(w.bends) > 0 {
		w.faults.errors = true // those that time out too often fail
	}
	if w.faults.lies {
		w.faults.errors = true // reads that stay short fail
	}
	c := conf.NewSession()
	c.InitiatorName, c.TargetName, c.TargetAddress = "iqn.2026-11.example:sim", "iqn.2026-11.example:target", "127.0.0.1:3260"
	c.HeaderDigest, c.DataDigest = w.digests[0], w.digests[1]
	c.ISER = r.IntN(3) == 0
	if c.ISER {
		w.faults.lies = false
	}
	w.logf("%+v iser %v digests %v command timeout %d", w.faults, c.ISER, w.digests, commandTimeout)
	err := w.play(c, tunables)
	if n := w.arena.InUse(); n != 0 && err == nil {
		err = fmt.Errorf("%d bytes of the arena were not given back", n)
	}
	return w.count, err
}

func (w *world) play(c conf.Session, tunables *conf.Tunables) error {
	var err error
	w.stepper = session.NewStepper(session.Config{
		ID: 1, ISID: isid, Target: c, Tunables: tunables, Arena: w.arena, Log: silent,
		Handler: handler{w},
		Dialer: func(conf.Session) transport.Dialer {
			if c.ISER {
				return iser.Dialer{Provider: provider{w}}
			}
			return dialStream{w}
		},
	}, func() time.Duration { return w.now })
	traits := disk.Traits{
		BlockLength: blockSize, Blocks: blockCount, MaxTransfer: uint32(3 + w.rng.IntN(16)),
		WriteCache: w.rng.IntN(2) == 0, FUA: w.rng.IntN(2) == 0, WriteSame: true, Unmap: true,
	}
	w.disk, err = disk.NewStepper(disk.Config{Log: silent, Random: w.rng.Float64}, w.stepper.Session(), 0, traits)
	if err != nil {
		return err
	}
	for range w.steps {
		w.step()
		if w.failed != nil {
			return w.failed
		}
	}
	return w.finish()
}

// handler passes a session's events on to the disk.
type handler struct{ w *world }

func (h handler) Up(nexus uint64) {
	h.w.count.logins++
	h.w.target.n.number = nexus
	h.w.disk.Up(nexus)
}
func (h handler) Down(err error)                 { h.w.disk.Down(err) }
func (h handler) Async(lun uint64, sense []byte) { h.w.disk.Async(lun, sense) }

// step lets one thing happen.
func (w *world) step() {
	r := w.rng
	w.count.steps++
	switch x := r.IntN(100); {
	case x < 12:
		w.ask()
	case x < 82:
		w.carry()
	case x < 86:
		w.look()
	case x < 88:
		w.disk.Resume()
	case x < 92:
		w.tick()
		for range 3 {
			if w.faults.stalls && !w.well {
				w.tick()
			}
		}
	case x < 95:
		if w.link != nil && !w.vanished && w.target.n != nil && !w.target.n.over {
			w.target.n.say()
		}
	case x < 100 && !w.well && r.IntN(w.calm) == 0:
		w.fault()
	}
	w.stepper.Settle()
}

// carry lets the connection do something, or makes one.
func (w *world) carry() {
	switch {
	case w.link == nil:
		if w.rng.IntN(8) == 0 || w.well {
			err := w.stepper.Connect()
			w.logf("initiator: connects: %v", err)
		}
	case w.link.closed():
		if w.rng.IntN(4) == 0 || w.well {
			w.end()
		} else {
			w.link.play()
		}
	default:
		for range 4 {
			if w.link.play() {
				break
			}
		}
	}
}

// end ends a connection that the initiator has given up.
func (w *world) end() {
	w.logf("initiator: the connection has ended")
	l := w.link
	w.link = nil
	l.end()
}

// look lets the disk be looked at, which takes its time.
func (w *world) look() {
	switch {
	case len(w.looks) > 0:
		l := w.looks[0]
		w.looks = w.looks[1:]
		w.looked = max(w.looked, l.Nexus())
		w.disk.End(l)
	case w.disk.Asked():
		w.looks = append(w.looks, w.disk.Begin())
	}
}

func (w *world) tick() {
	w.now += time.Second
	w.stepper.Tick()
}

// fault lets something go wrong.
func (w *world) fault() {
	r := w.rng
	n := w.target.n
	alive := w.link != nil && n != nil && !n.over
	switch r.IntN(10) {
	case 0, 1:
		if w.faults.cuts && w.link != nil {
			w.logf("network: cut")
			w.count.cuts++
			w.link.cut()
			if r.IntN(2) == 0 {
				w.link.drop(errCut)
			}
		}
	case 2:
		if w.faults.drops && w.link != nil {
			w.logf("target: drops the session")
			w.link.drop(errors.New("closed by the target"))
		}
	case 3:
		if w.faults.resets {
			w.target.reset([]scsi.Code{scsi.CodeClearedByOther, scsi.CodeDeviceReset, scsi.CodeBusReset}[r.IntN(3)])
		}
	case 4:
		if w.faults.lies && alive {
			w.link.lie()
		}
	case 5:
		if w.faults.fails && w.link == nil {
			w.logf("host: what is held fails")
			w.failedHeld = true
			w.disk.Fail()
		}
	case 6:
		if w.faults.cuts && r.IntN(4) == 0 {
			w.vanished = !w.vanished
			w.logf("target: vanished %v", w.vanished)
		}
	case 7:
		if r.IntN(4) == 0 {
			w.logf("initiator: logs out")
			w.stepper.Logout()
		}
	case 8:
		w.target.ua = append(w.target.ua, []scsi.Code{scsi.CodeReset, scsi.CodeCapacityChanged, scsi.CodeInquiryChanged, scsi.CodeLUNsChanged}[r.IntN(4)])
	case 9:
		w.vanished = false
	}
}

// finish makes the network well and sees all come to an end.
func (w *world) finish() error {
	w.logf("all is well from here on")
	w.well, w.vanished = true, false
	if w.bent && w.link != nil { // the target and the initiator may wait for each other
		w.link.drop(errCut)
	}
	for i := 0; ; i++ {
		w.step()
		if w.failed != nil {
			return w.failed
		}
		if len(w.requests) == 0 && w.asked >= requestCount {
			break
		}
		if i == wellSteps {
			return fmt.Errorf("no progress: %s", w.stuck())
		}
		if w.link != nil && i%400 == 399 {
			w.tick()
		}
	}
	w.verify()
	w.stepper.Drop(errCut)
	for w.link != nil {
		w.carry()
	}
	w.stepper.Settle()
	w.disk.Finish()
	return w.failed
}

// stuck says what is still to be done.
func (w *world) stuck() string {
	var b strings.Builder
	for _, r := range w.requests {
		fmt.Fprintf(&b, "%s of blocks %d+%d; ", opName(r.Op), r.from, r.n)
	}
	fmt.Fprintf(&b, "connected %v, asked for %d", w.link != nil, w.asked)
	if w.link != nil {
		fmt.Fprintf(&b, ", closed %v, %d tasks at the target", w.link.closed(), len(w.target.n.tasks))
	}
	return b.String()
}
