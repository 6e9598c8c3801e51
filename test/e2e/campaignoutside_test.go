package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// outside is a target that somebody else has set up, and what may be done there. It
// comes from the environment:
//
//	CAMPAIGN_PORTAL, CAMPAIGN_TARGET, CAMPAIGN_LUNS (a list of numbers)
//	CAMPAIGN_PROTOCOL  iSCSI or iSER
//	CAMPAIGN_DEVICE    what disks are here, such as ublk
//	CAMPAIGN_CONTROL   a program that is called with stop, start (the target), fail,
//	                   mend, hold, release (its disks)
//	CAMPAIGN_NETWORK   a network interface to which qdiscs may be added; none: nothing is
//	                   done to the network
//	CAMPAIGN_CLOCK     if it is set, the machine's clock may be changed
type outside struct {
	t       *testing.T
	control string
}

// TestCampaignOutside has a campaign against such a target.
func TestCampaignOutside(t *testing.T) {
	portal := os.Getenv("CAMPAIGN_PORTAL")
	if portal == "" {
		t.Skip("SKIP: needs a target that is set up for it, as in the virtual machines of test/vm")
	}
	o := outside{t, os.Getenv("CAMPAIGN_CONTROL")}
	p := &peer{
		portal: portal, target: os.Getenv("CAMPAIGN_TARGET"), iser: os.Getenv("CAMPAIGN_PROTOCOL") == "iSER",
		stop: o.does("stop"), start: o.does("start"), own: o.faults,
	}
	for _, text := range strings.Fields(os.Getenv("CAMPAIGN_LUNS")) {
		lun, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("CAMPAIGN_LUNS: %v", err)
		}
		p.luns = append(p.luns, lun)
	}
	device := os.Getenv("CAMPAIGN_DEVICE")
	s := &site{t: t, name: fmt.Sprintf("outside, %s, %s", os.Getenv("CAMPAIGN_PROTOCOL"), device)}
	if name := os.Getenv("CAMPAIGN_NETWORK"); name != "" {
		s.net = netem(name)
	}
	s.daemon(func(t *testing.T, args ...string) *daemon {
		return prepareDaemon(t, append(args, "-o", "device="+device)...)
	})
	s.begin(p, "CRC32C")
}

// does calls the program that has a hold of the target.
func (o outside) does(verb string) func() {
	return func() {
		if out, err := attempt(o.control, verb); err != nil {
			o.t.Errorf("%s %s: %v\n%s", o.control, verb, err, out)
		}
	}
}

func (o outside) faults(c *campaign) []fault {
	// Where a connection of isert ends while a disk below it holds a command, Linux 6.12
	// does not come to the end of the session, and lets nobody in again.
	alone := classTarget
	if c.peer.iser {
		alone = classAll
	}
	list := []fault{
		{name: "target's disk holds", class: alone, hold: silence, begin: o.does("hold"), end: o.does("release")},
		{
			name: "target's disk fails", class: classTarget,
			begin: func() { c.failing.begin(); o.does("fail")() },
			end:   func() { o.does("mend")(); c.failing.end() },
		},
	}
	if os.Getenv("CAMPAIGN_CLOCK") != "" {
		list = append(list, c.calendarJump())
	}
	return list
}

// calendarJump sets the machine's clock, and back by what has passed.
func (c *campaign) calendarJump() fault {
	var jump time.Duration
	set := func(by time.Duration) {
		to := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &to); err != nil {
			c.broken("the clock: %v", err)
		}
	}
	return fault{
		name: "calendar jumps", class: classState, hold: silence,
		begin: func() {
			jump = []time.Duration{time.Hour, -time.Hour, 400 * 24 * time.Hour, -400 * 24 * time.Hour}[c.rng.IntN(4)]
			c.note("the clock goes to %v", time.Now().Add(jump))
			set(jump)
		},
		end: func() { set(-jump) },
	}
}

// netem is a network interface with a qdisc that disturbs what goes through it.
type netem string

func (n netem) faults() []fault {
	simple := func(name string, hold time.Duration, args ...string) fault {
		return fault{
			name: name, class: classNetwork, hold: hold,
			begin: func() {
				_, _ = attempt("tc", append([]string{"qdisc", "add", "dev", string(n), "root", "netem"}, args...)...)
			},
			end: func() { _, _ = attempt("tc", "qdisc", "del", "dev", string(n), "root") },
		}
	}
	down := simple("interface down", 500*time.Millisecond)
	link := func(state string) func() {
		return func() { _, _ = attempt("ip", "link", "set", string(n), state) }
	}
	down.begin, down.end = link("down"), link("up")
	return []fault{
		simple("network cut", 0, "loss", "100%"),
		simple("network cut for long", silence, "loss", "100%"),
		simple("loss", 2*time.Second, "loss", "10%"),
		simple("delay", 2*time.Second, "delay", "50ms", "50ms"),
		simple("reordering", 2*time.Second, "delay", "10ms", "reorder", "30%", "duplicate", "10%"),
		simple("corruption", 2*time.Second, "corrupt", "5%"),
		down,
	}
}

// note implements network.
func (n netem) note() string { return "netem on " + string(n) }
