package iscsi

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

const (
	// DefaultPort is the TCP port of a target where none is named (RFC 7143 §13.8).
	DefaultPort = 3260
	// NoPortalGroup is the portal group tag of an address that has none, as in
	// a redirection.
	NoPortalGroup = -1
)

// ParseTargetAddress reads the value of TargetAddress (RFC 7143 §13.8):
//
//	domainname[:port][,portal-group-tag]
//
// where domainname is a DNS name, an IPv4 address, or an IPv6 address in
// brackets, which are not part of the host that is returned. port is DefaultPort
// and tag is NoPortalGroup where the value has none.
func ParseTargetAddress(value string) (host string, port, tag int, err error) {
	address, group, hasTag := strings.Cut(value, ",")
	tag = NoPortalGroup
	if hasTag {
		if tag, err = ParseNumber(group, 0, 65535); err != nil {
			return "", 0, 0, fmt.Errorf("target address %s: portal group tag: %w", excerpt(value), err)
		}
	}
	host, portText, hasPort, err := splitHostPort(address)
	if err != nil {
		return "", 0, 0, fmt.Errorf("target address %s: %w", excerpt(value), err)
	}
	port = DefaultPort
	if hasPort {
		if port, err = ParseNumber(portText, 1, 65535); err != nil {
			return "", 0, 0, fmt.Errorf("target address %s: port: %w", excerpt(value), err)
		}
	}
	return host, port, tag, nil
}

func splitHostPort(s string) (host, port string, hasPort bool, err error) {
	if strings.HasPrefix(s, "[") {
		host, rest, closed := strings.Cut(s[1:], "]")
		if !closed {
			return "", "", false, fmt.Errorf("%q without %q", "[", "]")
		}
		if !isIPv6(host) {
			return "", "", false, fmt.Errorf("%s is not an IPv6 address", excerpt(host))
		}
		if rest == "" {
			return host, "", false, nil
		}
		port, hasPort = strings.CutPrefix(rest, ":")
		if !hasPort {
			return "", "", false, fmt.Errorf("%s after %q", excerpt(rest), "]")
		}
		return host, port, true, nil
	}
	// An IPv6 address without brackets is against the grammar but plain enough.
	if isIPv6(s) {
		return s, "", false, nil
	}
	host, port, hasPort = strings.Cut(s, ":")
	return host, port, hasPort, validateHost(host)
}

// isIPv6 says that s is an IPv6 address, with a zone that can be an interface's name.
func isIPv6(s string) bool {
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is6() {
		return false
	}
	for _, c := range []byte(addr.Zone()) {
		if !isLabelByte(c) {
			return false
		}
	}
	return true
}

// validateHost checks that host can be a DNS name or an IPv4 address: it goes
// to a resolver.
func validateHost(host string) error {
	if host == "" {
		return errors.New("no host")
	}
	if len(host) > 255 {
		return fmt.Errorf("host %s is longer than 255 bytes", excerpt(host))
	}
	for i := range len(host) {
		if c := host[i]; !isLabelByte(c) || c == '+' || c == '@' {
			return fmt.Errorf("host %s has a character that hosts may not have", excerpt(host))
		}
	}
	return nil
}
