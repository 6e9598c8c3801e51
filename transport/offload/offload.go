// Package offload chooses what carries a session by iSER: an RDMA device where
// the way to the portal leads through one, else iWARP in software. The variable
// Offload of iscsi.conf(5) pins a session to either.
package offload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"iscsictl/transport"
	"iscsictl/transport/iser"
	"iscsictl/transport/rdma"
	"iscsictl/transport/rdma/iwarp"
	"iscsictl/transport/rdma/verbs"
)

// Drivers that a session can be pinned to.
const (
	Verbs = "verbs"
	IWARP = "iwarp"
)

// Levels of kern.iser.debug (iser(4)).
const (
	Warnings = 1 + iota
	Information
	Everything
)

// ErrUnavailable is in the error of Check where a driver exists and cannot be
// used on this host.
var ErrUnavailable = errors.New("not available here")

// mulpdu is the longest FPDU payload that software iWARP sends: peers take
// it whatever TCP's segments are, and fewer, larger ones cost less.
const mulpdu = 64000

// Dialer opens connections by iSER. It picks a provider for each, since routes
// change, unless it is pinned to one.
type Dialer struct {
	Pinned string // Verbs, IWARP, or "" (in any case of letters)
	// Log, where it is not nil, is told what kern.iser.debug asks for.
	Log func(level int, format string, args ...any)
	// Spin is verbs.Provider's.
	Spin func() time.Duration
}

// Dial implements transport.Dialer.
func (d Dialer) Dial(ctx context.Context, addr, local netip.AddrPort, opts transport.DialOptions) (transport.Conn, error) {
	provider, why := d.choose(addr.Addr(), local.Addr())
	conn, err := iser.Dialer{Provider: provider}.Dial(ctx, addr, local, opts)
	if err != nil {
		d.log(Warnings, "%v by %s: %v", addr, provider.Name(), err)
		if why != nil { // it may be what is to be mended
			return nil, fmt.Errorf("%w (iWARP in software was tried: %w)", err, why)
		}
		return nil, err
	}
	for _, f := range conn.Facts() {
		d.log(Everything, "%v: %s: %s", addr, f.Label, f.Value)
	}
	return conn, nil
}

func (d Dialer) log(level int, format string, args ...any) {
	if d.Log != nil {
		d.Log(level, format, args...)
	}
}

// choose returns the provider for a portal, and why it is the one in software,
// where that is not as the user wants it.
func (d Dialer) choose(addr, local netip.Addr) (p rdma.Provider, why error) {
	software := &iwarp.Provider{MULPDU: mulpdu}
	switch strings.ToLower(d.Pinned) {
	case Verbs:
		return verbs.Provider{Spin: d.Spin}, nil
	case IWARP:
		return software, nil
	}
	device, why := verbs.DeviceFor(addr, local)
	if why == nil {
		if why = verbs.Probe(); why == nil {
			d.log(Information, "%v: RDMA device %s", addr, device)
			return verbs.Provider{Spin: d.Spin}, nil
		}
		why = fmt.Errorf("RDMA device %s is not used: %w", device, why)
	}
	d.log(Information, "%v: iWARP in software: %v", addr, why)
	return software, why
}

// Check refuses drivers that do not exist, not for this protocol, or not here.
func Check(pinned string, iser bool) error {
	name := strings.ToLower(pinned)
	switch {
	case name == "" || name == "none":
		return nil
	case name != Verbs && name != IWARP:
		return fmt.Errorf("there is no offload driver %q here: verbs and iwarp are, for Protocol = iSER", pinned)
	case !iser:
		return fmt.Errorf("Offload = %s is for Protocol = iSER", pinned)
	case name == Verbs:
		if err := verbs.Probe(); err != nil {
			return unavailable{fmt.Errorf("Offload = verbs: %w", err)}
		}
	}
	return nil
}

// unavailable is ErrUnavailable in words of its own.
type unavailable struct{ error }

func (unavailable) Is(target error) bool { return target == ErrUnavailable }
func (u unavailable) Unwrap() error      { return u.error }
