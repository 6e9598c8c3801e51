package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/test/ledger"
)

// A campaign is faults in a random order, one after another and at times two at once,
// done to iscsid, a target and the network between them, while hosts write to disks and
// read from them and keep books: nothing that was acknowledged may be lost, no byte may
// come that nobody wrote, and no request may fail but where a fault is meant to make it
// fail. The order is that of a seed, which is told; what happens in between is up to the
// machine.
//
//	CAMPAIGN_SEED    the seed; otherwise a new one each time
//	CAMPAIGN_FAULTS  how many faults; otherwise a dozen, and each once with SOAKTIME
//	CAMPAIGN_ONLY    how the names begin of those that are done

// Sizes of what the hosts of a campaign do. A disk is small, so that its blocks are
// written over and over, and consists of zones that belong to one host each.
const (
	campaignDisk  = 8 << 20
	campaignZone  = 256 << 10
	campaignHosts = 3 // of each disk
)

type campaign struct {
	t     *testing.T
	name  string
	seed  uint64
	rng   *rand.Rand // of the order of faults
	d     *daemon
	peer  *peer
	net   network // nil: there is none that could be disturbed
	disks []*campaignTarget
	hosts []*host
	begun time.Time

	gone    window // the daemon is dead or dying
	failing window // requests may fail

	happened map[string]int
	pairs    int
	recovery time.Duration // longest time from a fault's end to I/O of every host

	mu   sync.Mutex
	log  []string
	over bool
	bad  error // what must not have happened
}

// peer is the target of a campaign.
type peer struct {
	portal string
	target string
	iser   bool
	tears  bool // takes data in where it is to stay
	luns   []int
	images []string                // the files behind them, for a last look that is not through iscsid
	stop   func()                  // it is gone
	start  func()                  // it is back
	pid    func() int              // for signals; nil: it is no process
	own    func(*campaign) []fault // what only this one does
}

// network is what a campaign can disturb between the daemon and the target.
type network interface {
	faults() []fault
	note() string
}

// campaignTarget is a disk of a campaign.
type campaignTarget struct {
	*ledger.Ledger
	lun  int
	path string
}

// window is a time in which something is excused.
type window struct {
	mu    sync.Mutex
	open  int
	until time.Time
}

func (w *window) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open++
}

func (w *window) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open--
	w.until = time.Now()
}

// excuses tells whether the window was open at some time since then.
func (w *window) excuses(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open > 0 || since.Before(w.until)
}

// newCampaign prepares one; d has not been started.
func newCampaign(t *testing.T, name string, d *daemon, p *peer, n network) *campaign {
	t.Helper()
	c := &campaign{t: t, name: name, d: d, peer: p, net: n, happened: map[string]int{}, seed: rand.Uint64N(1e9)}
	if text := os.Getenv("CAMPAIGN_SEED"); text != "" {
		var err error
		if c.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CAMPAIGN_SEED: %v", err)
		}
	}
	c.rng = rand.New(rand.NewPCG(c.seed, 3))
	for i, lun := range p.luns {
		disk := &campaignTarget{Ledger: ledger.New(c.seed<<8+uint64(i), campaignDisk), lun: lun}
		disk.Tears = p.tears
		c.disks = append(c.disks, disk)
	}
	return c
}

// note keeps what happened for the log of a campaign that fails.
func (c *campaign) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, fmt.Sprintf("%7.2f s  ", time.Since(c.begun).Seconds())+fmt.Sprintf(format, args...))
}

// broken notes the first thing that must not have happened, and ends the campaign.
func (c *campaign) broken(format string, args ...any) {
	c.note("BROKEN: "+format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.bad == nil {
		c.bad = fmt.Errorf(format, args...)
	}
}

func (c *campaign) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over
}

// run connects, lets the hosts work, does the faults, and looks at everything at the
// end.
func (c *campaign) run(conf string) {
	c.t.Helper()
	c.begun = time.Now()
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("campaign %s, CAMPAIGN_SEED=%d:\n%s", c.name, c.seed, strings.Join(c.log, "\n"))
		}
	})
	c.d.ok("-A", "-n", "n", "-c", c.d.conf(conf), "-w", "120")
	for _, disk := range c.disks {
		disk.path = c.d.disk(c.peer.target, disk.lun)
	}
	var working sync.WaitGroup
	for i, disk := range c.disks {
		for k := range campaignHosts {
			h := &host{c: c, disk: disk, number: k, rng: rand.New(rand.NewPCG(c.seed, uint64(100+10*i+k)))}
			c.hosts = append(c.hosts, h)
			working.Go(h.work)
		}
	}
	// Also where a step ends the test: what works, is to end before its disks do.
	defer c.rest(&working)
	c.recovered("the start")
	c.play()
	c.rest(&working)
	c.finish()
}

// rest ends the hosts' work. Where requests wait for ever, they are made to fail.
func (c *campaign) rest(working *sync.WaitGroup) {
	c.stop()
	done := make(chan struct{})
	go func() {
		working.Wait()
		close(done)
	}()
	for _, help := range []func(){
		func() {},
		func() { c.failing.begin(); c.tune("kern.iscsi.recovery_timeout", "1") },
		func() { c.gone.begin(); c.d.kill() },
	} {
		help()
		select {
		case <-done:
			return
		case <-time.After(patience / 4):
			c.note("there are hosts whose requests still wait")
		}
	}
	c.t.Error("there are hosts whose requests wait for ever")
}

func (c *campaign) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

// play does the faults. They are dealt like cards: each once before any is repeated.
func (c *campaign) play() {
	only := os.Getenv("CAMPAIGN_ONLY")
	deck := slices.DeleteFunc(c.faults(), func(f fault) bool { return !strings.HasPrefix(f.name, only) })
	if len(deck) == 0 {
		c.t.Skipf("SKIP: there is no fault here that begins with %q", only)
	}
	left := load(12, len(deck))
	if text := os.Getenv("CAMPAIGN_FAULTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			c.t.Fatalf("CAMPAIGN_FAULTS: %v", err)
		}
		left = n
	}
	c.note("%d kinds of faults, %d to be done", len(deck), left)
	var hand []fault
	deal := func() (f fault) {
		if len(hand) == 0 {
			hand = slices.Clone(deck)
			c.rng.Shuffle(len(hand), func(i, k int) { hand[i], hand[k] = hand[k], hand[i] })
		}
		f, hand = hand[0], hand[1:]
		return f
	}
	for left > 0 && !c.ended() {
		first := deal()
		left--
		set := []fault{first}
		if left > 0 && c.rng.IntN(3) == 0 {
			// A second one at the same time, of another kind of thing.
			for i, f := range hand {
				if f.class != first.class && f.class != classAll && first.class != classAll {
					set = append(set, f)
					hand = slices.Delete(hand, i, i+1)
					left--
					c.pairs++
					break
				}
			}
		}
		c.do(set)
	}
}

// do lets faults happen, undoes them in any order, and waits until all hosts get on.
func (c *campaign) do(set []fault) {
	var names []string
	for _, f := range set {
		names = append(names, f.name)
		c.happened[f.name]++
	}
	what := strings.Join(names, ", with ")
	hold := time.Duration(c.rng.IntN(800)) * time.Millisecond
	for i, f := range set {
		if i > 0 {
			time.Sleep(hold / 2)
		}
		c.note("begins: %s", f.name)
		f.begin()
		if f.hold > 0 {
			hold += f.hold
		}
	}
	time.Sleep(hold)
	c.rng.Shuffle(len(set), func(i, k int) { set[i], set[k] = set[k], set[i] })
	for _, f := range set {
		c.note("ends:   %s", f.name)
		f.end()
	}
	c.recovered(what)
}

// recovered waits until each host has had requests answered that it began after now.
func (c *campaign) recovered(what string) {
	begun := time.Now()
	after := make([]int64, len(c.hosts))
	for i, h := range c.hosts {
		after[i] = h.done.Load() + 2 // one of them may have begun before
	}
	on := func() bool {
		for i, h := range c.hosts {
			if h.done.Load() < after[i] {
				return false
			}
		}
		return true
	}
	if !within(patience, func() bool { return on() || c.ended() }) {
		for _, h := range c.hosts {
			c.note("LUN %d, host %d: %s", h.disk.lun, h.number, h.doing.Load())
		}
		c.broken("%v after the end of %s there is a host whose requests are not answered", patience, what)
		c.note("%s", c.d.ctl("-L", "-v").stdout)
		return
	}
	took := time.Since(begun)
	c.recovery = max(c.recovery, took)
	c.note("all hosts get on after %.2f s", took.Seconds())
}

// finish judges everything once more: the whole of each disk, through iscsid and, where
// there is a file, behind it.
func (c *campaign) finish() {
	if c.bad == nil {
		c.look()
	}
	var sum ledger.Counts
	for _, disk := range c.disks {
		n := disk.Counts()
		sum.Acknowledged += n.Acknowledged
		sum.Unknown += n.Unknown
		sum.Read += n.Read
		sum.Lost += n.Lost
		sum.Foreign += n.Foreign
	}
	faults := 0
	var kinds []string
	for _, name := range slices.Sorted(maps.Keys(c.happened)) {
		faults += c.happened[name]
		kinds = append(kinds, fmt.Sprintf("%s %d", name, c.happened[name]))
	}
	failed := int64(0)
	for _, h := range c.hosts {
		failed += h.failed.Load()
	}
	network := ""
	if c.net != nil {
		network = "; network: " + c.net.note()
	}
	c.t.Logf("NOTE: campaign %s: %d faults in %.0f s (seed %d; %s; two at once %d times)%s; %d writes acknowledged, %d of unknown outcome, "+
		"%d requests failed as they should, %d sectors judged, at most %.1f s from a fault's end to I/O of all hosts; lost: %d, foreign: %d",
		c.name, faults, time.Since(c.begun).Seconds(), c.seed, strings.Join(kinds, ", "), c.pairs, network, sum.Acknowledged, sum.Unknown,
		failed, sum.Read, c.recovery.Seconds(), sum.Lost, sum.Foreign)
	switch {
	case c.bad != nil:
		c.t.Error(c.bad)
	case sum.Lost+sum.Foreign > 0:
		c.t.Errorf("%d sectors lost, %d foreign", sum.Lost, sum.Foreign)
	case sum.Acknowledged == 0 || sum.Read == 0 || faults == 0:
		c.t.Error("the campaign has not done what it is for")
	}
}

func (c *campaign) look() {
	for i, disk := range c.disks {
		h := &host{c: c, disk: disk}
		whole := make([]byte, campaignDisk)
		err := h.open()
		if err == nil {
			err = h.dev.Flush()
		}
		for off := 0; off < len(whole) && err == nil; off += campaignZone {
			if err = h.dev.ReadAt(h.buffer(campaignZone), int64(off)); err == nil {
				copy(whole[off:], h.buffer(campaignZone))
			}
		}
		h.close()
		if err == nil {
			err = disk.Check(whole, 0)
		}
		if err != nil {
			c.broken("LUN %d at the end: %v", disk.lun, err)
			continue
		}
		if i >= len(c.peer.images) {
			continue
		}
		if whole, err = os.ReadFile(c.peer.images[i]); err == nil {
			err = disk.Check(whole[:campaignDisk], 0)
		}
		if err != nil {
			c.broken("the file behind LUN %d at the end: %v", disk.lun, err)
		}
	}
}

// mmap makes memory whose address suits direct I/O.
func mmap(t *testing.T, n int) []byte {
	p, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Error(err)
		return make([]byte, n)
	}
	t.Cleanup(func() { _ = unix.Munmap(p) })
	return p
}
