package discovery

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Target is a target with the portals at which it can be reached.
type Target struct {
	Name    string
	Portals []Portal // none: where it was discovered (RFC 7143 appendix C)
}

// Portal is a network portal of a target (RFC 7143 §13.8).
type Portal struct {
	Host string // DNS name, IPv4 address, or IPv6 address without brackets
	Port int
	Tag  int // portal group tag; iscsi.NoPortalGroup where the target sent none
}

// Address returns host and port, an IPv6 address in brackets.
func (p Portal) Address() string { return net.JoinHostPort(p.Host, strconv.Itoa(p.Port)) }

// add adds a portal that is not there yet. It reports false where there are
// too many.
func (t *Target) add(p Portal) bool {
	if slices.Contains(t.Portals, p) {
		return true
	}
	if len(t.Portals) >= maxPortals {
		return false
	}
	t.Portals = append(t.Portals, p)
	return true
}

// PortalFor returns the addresses at which a session to the target is to be
// tried, in order. discovery is the portal of the discovery session as it was
// configured, and reached the address that this led to. Where the target is to
// be had there (it lists the portal, or lists none at all), that is the one
// answer, in the configured spelling; else it is what the target lists, in its
// order.
func (t Target) PortalFor(discovery string, reached netip.AddrPort) []string {
	if len(t.Portals) == 0 {
		return []string{discovery}
	}
	host, port := split(discovery, int(reached.Port()))
	var all []string
	for _, p := range t.Portals {
		addr, err := netip.ParseAddr(p.Host)
		switch {
		case p.Port == port && strings.EqualFold(p.Host, host),
			err == nil && p.Port == int(reached.Port()) && (same(addr, reached.Addr()) || addr.IsUnspecified()):
			// A target that listens everywhere may list 0.0.0.0 or [::].
			return []string{discovery}
		case err == nil && addr.IsUnspecified():
			p.Host = reached.Addr().Unmap().String()
		}
		if a := p.Address(); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// same compares addresses but for the zone, which a target cannot know.
func same(a, b netip.Addr) bool { return a.Unmap().WithZone("") == b.Unmap().WithZone("") }

// split takes apart a portal as it was configured: with or without a port,
// and an IPv6 address with or without brackets.
func split(portal string, defaultPort int) (host string, port int) {
	if h, p, err := net.SplitHostPort(portal); err == nil {
		if n, err := strconv.Atoi(p); err == nil {
			return h, n
		}
	}
	return strings.Trim(portal, "[]"), defaultPort
}
