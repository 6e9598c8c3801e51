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
	switch strings.ToLower(c.Offload) {
	case offloadVerbs:
		return iser.Dialer{Provider: verbs.Provider{}}
	case offloadIWARP:
		return iser.Dialer{Provider: softwareRDMA()}
	}
	return chooser{d}
}

// Offload drivers that a session can be pinned to.
const (
	offloadVerbs = "verbs"
	offloadIWARP = "iwarp"
)

func softwareRDMA() rdma.Provider { return &iwarp.Provider{MULPDU: mulpdu} }

// chooser picks a provider for each connection, since routes change.
type chooser struct{ d *Daemon }

// Dial implements transport.Dialer.
func (c chooser) Dial(ctx context.Context, addr, local netip.AddrPort, opts transport.DialOptions) (transport.Conn, error) {
	device, why := verbs.DeviceFor(addr.Addr(), local.Addr())
	if why == nil {
		why = verbs.Probe()
	}
	if why == nil {
		c.d.iserDebug(iserInfo, "%v: RDMA device %s", addr, device)
		return iser.Dialer{Provider: verbs.Provider{}}.Dial(ctx, addr, local, opts)
	}
	c.d.iserDebug(iserInfo, "%v: software iWARP, since there is no RDMA device on the way: %v", addr, why)
	conn, err := iser.Dialer{Provider: softwareRDMA()}.Dial(ctx, addr, local, opts)
	if err != nil && device != "" {
		// There is a device, and it cannot be used: that is what to mend.
		return nil, fmt.Errorf("%w (RDMA device %s is not used: %w)", err, device, why)
	}
	return conn, err
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
	iserError = iota
	iserWarning
	iserInfo
	iserVerbose
)

// iserDebug logs what kern.iser.debug asks for.
func (d *Daemon) iserDebug(level int, format string, args ...any) {
	if d.cfg.Tunables.ISERDebug() >= level {
		d.cfg.Log.Info("iser: " + fmt.Sprintf(format, args...))
	}
}
