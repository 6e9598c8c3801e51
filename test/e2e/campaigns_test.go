package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"iscsictl/target"
)

// TestCampaign has a campaign against each kind of target that can be had here, by TCP
// and by iSER; with disks as sockets, which are there again with the next daemon, and
// once as block devices.
func TestCampaign(t *testing.T) {
	t.Parallel()
	digests := map[string]string{"HeaderDigest": "CRC32C,None", "DataDigest": "CRC32C,None", "FirstBurstLength": "65536", "MaxBurstLength": "131072"}
	for _, c := range []struct {
		name   string
		daemon func(*testing.T, ...string) *daemon
		run    func(*testing.T, *site)
	}{
		{"tgt", prepareDaemon, func(t *testing.T, s *site) { s.tgt(t) }},
		{"embedded", prepareDaemon, func(t *testing.T, s *site) { s.embedded(t, target.Portal{}, digests) }},
		{"iSER", prepareDaemon, func(t *testing.T, s *site) { s.embedded(t, target.Portal{ISER: true}, nil) }},
		{"loop", prepareLoopDaemon, func(t *testing.T, s *site) { s.tgt(t) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, c.name)
			s.daemon(c.daemon)
			c.run(t, s)
		})
	}
	t.Run("network", func(t *testing.T) {
		if _, err := newCable(t); err != nil {
			t.Skipf("SKIP: the campaigns did nothing to the network: %v", err)
		}
	})
}

// site is where a campaign takes place.
type site struct {
	t         *testing.T
	name      string
	net       network // nil: nothing is done to it
	near, far []string
	host      string // where targets listen
	d         *daemon
}

func newSite(t *testing.T, name string) *site {
	t.Helper()
	s := &site{t: t, name: name, host: "127.0.0.1"}
	if cable, err := newCable(t); err == nil {
		s.net, s.host = cable, farAddress
		enter := tool(t, "nsenter", "util-linux")
		s.near = []string{enter, "--net=/run/netns/" + cable.near}
		s.far = []string{enter, "--net=/run/netns/" + cable.far}
	}
	return s
}

// port is one that is free where targets listen.
func (s *site) port() int {
	if s.host == farAddress { // where nobody else is
		return 3260
	}
	return newPort(s.t, s.host)
}

// daemon prepares iscsid, with its state on a file system of its own where one can be
// mounted.
func (s *site) daemon(prepare func(*testing.T, ...string) *daemon) {
	s.t.Helper()
	args := campaignOptions
	if os.Getuid() == 0 {
		dir := newDir(s.t) + "/state"
		if err := os.Mkdir(dir, 0o700); err != nil {
			s.t.Fatal(err)
		}
		if out, err := attempt("mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", dir); err != nil {
			s.t.Logf("no file system for the state: %v: %s", err, out)
		} else {
			s.t.Cleanup(func() { must(s.t, "umount", dir) })
			args = append(args[:len(args):len(args)], "--state", dir)
		}
	}
	s.d = prepare(s.t, args...)
	s.d.before = s.near
	s.d.died = []string{
		"fatal error: runtime: out of memory", "fatal error: runtime: cannot allocate memory",
		"fatal error: newosproc", "fatal error: out of memory",
	}
}

// begin starts iscsid, and the campaign against a peer.
func (s *site) begin(p *peer, digest string) {
	s.t.Helper()
	s.d.launch()
	c := newCampaign(s.t, s.name, s.d, p, s.net)
	conf := fmt.Sprintf("n {\n TargetAddress = %s\n TargetName = %s\n", p.portal, p.target)
	if p.iser {
		conf += " Protocol = iSER\n"
	} else {
		conf += fmt.Sprintf(" HeaderDigest = %s\n DataDigest = %s\n", digest, digest)
	}
	c.run(conf + "}\n")
}

// tgt is a campaign against tgtd.
func (s *site) tgt(t *testing.T) {
	t.Helper()
	const name = "iqn.2026-11.example:campaign-tgt"
	dir := newDir(t)
	disks, err := newBrittle(t, dir)
	front := dir
	if err != nil {
		t.Run("disks", func(t *testing.T) { t.Skipf("SKIP: nothing was done to tgtd's disks: %v", err) })
	} else {
		front = disks.mount
	}
	g := startTgtd(t, s.host, s.port(), s.far...)
	tid := g.target(name)
	g.set(tid, "HeaderDigest", "CRC32C,None")
	g.set(tid, "DataDigest", "CRC32C,None")
	p := &peer{
		portal: g.portal(), target: name, luns: []int{1, 2},
		stop: func() { g.crash() }, start: g.restart, pid: func() int { return g.cmd.Process.Pid },
	}
	for _, lun := range p.luns {
		image := fmt.Sprint(lun)
		p.images = append(p.images, filepath.Join(dir, image))
		newEmpty(t, filepath.Join(dir, image), campaignDisk>>20)
		g.serve(tid, lun, filepath.Join(front, image))
	}
	if disks != nil {
		p.own = disks.faults
	}
	s.begin(p, "CRC32C")
}

// embedded is a campaign against the embedded target, at a portal like that.
func (s *site) embedded(t *testing.T, portal target.Portal, keys map[string]string) {
	t.Helper()
	const name = "iqn.2026-11.example:campaign"
	conf := target.Config{Targets: []target.Target{{Name: name, Keys: keys}}}
	files := newDir(t)
	var images []string
	for lun := range 2 {
		images = append(images, fmt.Sprintf("%s/%d", files, lun))
		conf.Targets[0].LUNs = append(conf.Targets[0].LUNs, target.LUN{Number: lun, Size: campaignDisk, File: images[lun]})
	}
	at := fmt.Sprintf("%s:%d", s.host, s.port())
	p := &peer{portal: at, target: name, iser: portal.ISER, tears: true, luns: []int{0, 1}, images: images}
	if portal.ISER {
		portal.Address = fmt.Sprintf("%s:%d", s.host, s.port()+1)
		conf.Portals = []target.Portal{portal}
		p.portal = portal.Address
	}
	e := startTarget(t, conf, at, s.far...)
	p.stop, p.start = func() { e.kill() }, func() { e.launch(at) }
	p.pid = func() int { return e.cmd.Process.Pid }
	p.own = func(c *campaign) []fault { return c.embeddedFaults(e, conf) }
	s.begin(p, "CRC32C")
}
