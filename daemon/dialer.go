package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"

	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/transport"
	"iscsictl/transport/iser"
	"iscsictl/transport/rdma"
	"iscsictl/transport/rdma/iwarp"
	"iscsictl/transport/rdma/verbs"
	"iscsictl/transport/tcp"
)

// mulpdu is the longest FPDU payload that software iWARP sends: peers take
// it whatever TCP's segments are, and fewer, larger ones cost less.
const mulpdu = 64000

// dialer returns what connects a session: plain TCP, or iSER on verbs where the
// way to the portal has an RDMA device, else on software iWARP.
func (d *Daemon) dialer(c conf.Session) transport.Dialer {
	if !c.ISER {
		return tcp.Dialer{}
	}
	return iserDialer{d, strings.ToLower(c.Offload)}
}

// Offload drivers that a session can be pinned to.
const (
	offloadVerbs = "verbs"
	offloadIWARP = "iwarp"
)

// iserDialer picks a provider for each connection, since routes change, unless
// the session is pinned to one.
type iserDialer struct {
	d      *Daemon
	pinned string
}

// Dial implements transport.Dialer.
func (i iserDialer) Dial(ctx context.Context, addr, local netip.AddrPort, opts transport.DialOptions) (transport.Conn, error) {
	provider, unused := i.choose(addr.Addr(), local.Addr())
	conn, err := iser.Dialer{Provider: provider}.Dial(ctx, addr, local, opts)
	if err != nil {
		i.d.iserDebug(iserWarnings, "%v by %s: %v", addr, provider.Name(), err)
		if unused != nil { // there is a device, and it cannot be used: that is what to mend
			return nil, fmt.Errorf("%w (%w)", err, unused)
		}
		return nil, err
	}
	for _, f := range conn.Facts() {
		i.d.iserDebug(iserEverything, "%v: %s: %s", addr, f.Label, f.Value)
	}
	return conn, nil
}

// choose returns the provider for a portal, and why an RDMA device that there
// is on the way to it is not used, if so.
func (i iserDialer) choose(addr, local netip.Addr) (p rdma.Provider, unused error) {
	software := &iwarp.Provider{MULPDU: mulpdu}
	switch i.pinned {
	case offloadVerbs:
		return verbs.Provider{}, nil
	case offloadIWARP:
		return software, nil
	}
	device, why := verbs.DeviceFor(addr, local)
	if why == nil {
		if why = verbs.Probe(); why == nil {
			i.d.iserDebug(iserInformation, "%v: RDMA device %s", addr, device)
			return verbs.Provider{}, nil
		}
		unused = fmt.Errorf("RDMA device %s is not used: %w", device, why)
	}
	i.d.iserDebug(iserInformation, "%v: iWARP in software: %v", addr, why)
	return software, unused
}

// checkOffload refuses drivers that do not exist, or not for this protocol.
func checkOffload(c conf.Session) error {
	name := strings.ToLower(c.Offload)
	switch {
	case name == "" || name == "none":
		return nil
	case name != offloadVerbs && name != offloadIWARP:
		return control.Errorf(syscall.EINVAL, "there is no offload driver %q here: verbs and iwarp are, for Protocol = iSER", c.Offload)
	case !c.ISER:
		return control.Errorf(syscall.EINVAL, "Offload = %s is for Protocol = iSER", c.Offload)
	case name == offloadVerbs:
		if err := verbs.Probe(); err != nil {
			return control.Errorf(syscall.EPROTONOSUPPORT, "Offload = verbs: %v", err)
		}
	}
	return nil
}

// Levels of kern.iser.debug (iser(4)).
const (
	iserWarnings = 1 + iota
	iserInformation
	iserEverything
)

// iserDebug logs what kern.iser.debug asks for.
func (d *Daemon) iserDebug(level int, format string, args ...any) {
	if d.cfg.Tunables.ISERDebug() >= level {
		d.cfg.Log.Info("iser: " + fmt.Sprintf(format, args...))
	}
}
