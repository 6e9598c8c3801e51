package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"iscsictl/target"
)

// threeTargets makes targets for a discovery to find.
func threeTargets(g *tgtd) (names []string) {
	for i := range 3 {
		name := fmt.Sprintf("iqn.2026-11.example:found%d", i)
		g.lun(g.target(name), 1, 4)
		names = append(names, name)
	}
	return names
}

// wantAll waits until all targets have a session and the discovery's own is gone.
func wantAll(t *testing.T, d *daemon, portal string, names []string) {
	t.Helper()
	for _, name := range names {
		s := d.connected(name)
		if s.Target.Portal != portal {
			t.Errorf("%s is at %s, want %s", name, s.Target.Portal, portal)
		}
		d.disk(name, 1)
	}
	eventually(t, "the discovery session has gone", func() bool { return len(d.sessions()) == len(names) })
}

// TestDiscovery adds what a portal has, by option and by file.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	g, d := newTgtd(t), newDaemon(t)
	names := threeTargets(g)

	d.ok("-A", "-d", g.portal())
	wantAll(t, d, g.portal(), names)
	// A second time it finds nothing new, and does no harm.
	d.ok("-A", "-d", g.portal())
	wantAll(t, d, g.portal(), names)
	d.ok("-R", "-p", g.portal())

	file := d.conf("all {\n TargetAddress = " + g.portal() + "\n SessionType = Discovery\n InitiatorAlias = byfile\n}\n")
	d.ok("-A", "-a", "-c", file)
	wantAll(t, d, g.portal(), names)
	for _, s := range d.sessions() {
		if s.Initiator.Alias != "byfile" || s.Type != "Normal" {
			t.Errorf("%s has the alias %q and the type %s", s.Target.Name, s.Initiator.Alias, s.Type)
		}
	}
	d.ok("-R", "-n", "all", "-c", file)
	if list := d.sessions(); len(list) != 0 {
		t.Errorf("sessions after -R -n of the discovery: %+v", list)
	}

	d.ok("-A", "-d", g.portal(), "-e", "off")
	eventually(t, "the sessions that a discovery adds are disabled with it", func() bool {
		list := d.sessions()
		for _, s := range list {
			if s.Type != "Normal" || s.Enable != "No" {
				return false
			}
		}
		return len(list) == len(names)
	})
}

// TestDiscover prints what a portal has as a configuration file, which then works.
func TestDiscover(t *testing.T) {
	t.Parallel()
	g, d := newTgtd(t), newDaemon(t)
	names := threeTargets(g)
	text := d.ok("--discover", g.portal())
	if list := d.sessions(); len(list) != 0 {
		t.Errorf("--discover has added %+v", list)
	}
	d.ok("-A", "-a", "-c", d.conf(text), "-w", "30")
	wantAll(t, d, g.portal(), names)
}

// TestDiscoverNothing asks portals that have nothing to tell.
func TestDiscoverNothing(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	closed := fmt.Sprintf("127.0.0.1:%d", newPort(t, "127.0.0.1"))
	r := d.ctl("--discover", closed)
	if r.status != 1 || r.stdout != "" || !strings.Contains(r.stderr, "onnection refused") || !strings.Contains(r.stderr, closed) {
		t.Errorf("a closed port: %+v", r)
	}
	g := newTgtd(t)
	tid := g.target("iqn.2026-11.example:for-others")
	g.once("--op", "unbind", "--mode", "target", "--tid", tid, "-I", "ALL")
	g.once("--op", "bind", "--mode", "target", "--tid", tid, "-Q", "iqn.2026-11.example:other-initiator")
	if r := d.ctl("--discover", g.portal()); r.status != 0 || r.stdout != "" || !strings.Contains(r.stderr, "no targets") {
		t.Errorf("a portal without targets for us: %+v", r)
	}
	// A discovery session goes on until it is answered.
	d.ok("-A", "-d", closed)
	eventually(t, "the discovery session tells its reason", func() bool {
		list := d.sessions()
		return len(list) == 1 && list[0].Type == "Discovery" && strings.Contains(list[0].FailureReason, "onnection refused")
	})
	d.ok("-R", "-p", closed)
}

// TestIPv6 uses a portal with an IPv6 address, found and named.
func TestIPv6(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("SKIP: needs IPv6 on the loopback interface: %v", err)
	}
	l.Close()
	g, d := newTgtdAt(t, "::1"), newDaemon(t)
	names := threeTargets(g)
	d.add(g.portal(), names[0])
	d.ok("-A", "-d", g.portal())
	wantAll(t, d, g.portal(), names)
	fio(t, d.disk(names[0], 1), "--bs=64k", "--size=2M", "--iodepth=4")
}

// TestDiscoverMany asks a portal with more targets than fit an answer of one PDU.
func TestDiscoverMany(t *testing.T) {
	t.Parallel()
	const many = 1000
	c := target.Config{Portals: []target.Portal{{Address: "192.0.2.1:3260", Tag: 1}, {Address: "[2001:db8::1]:3260", Tag: 2}}}
	for i := range many {
		c.Targets = append(c.Targets, target.Target{
			Name: fmt.Sprintf("iqn.2026-11.example:%04d.%s", i, strings.Repeat("long", 20)), LUNs: []target.LUN{memory(0, 1)},
		})
	}
	_, portal := newServer(t, c)
	d := newDaemon(t)
	text := d.ok("--discover", portal)
	// Of several portals, that is kept which has answered.
	if n := strings.Count(text, portal); n != many {
		t.Errorf("%d entries have the portal %s, want %d", n, portal, many)
	}
	for i := range many {
		if !strings.Contains(text, c.Targets[i].Name) {
			t.Fatalf("%s is missing", c.Targets[i].Name)
		}
	}
	if r := d.ctl("-A", "-n", "nobody", "-c", d.conf(text)); !strings.Contains(r.stderr, "target nobody not found") {
		t.Errorf("the entries are no good configuration: %+v", r)
	}
}
