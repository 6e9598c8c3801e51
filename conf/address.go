package conf

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// DefaultPort is where iSCSI targets listen (RFC 7143 §4.2.7.2).
const DefaultPort = "3260"

var (
	errEmptyAddress     = errors.New("empty address")
	errMalformedAddress = errors.New("malformed address")
)

// SplitAddress splits a TargetAddress: host, host:port, IPv4[:port],
// [IPv6][:port], or IPv6 without a port. The host is without brackets, the port
// numeric, DefaultPort where none is given. The errors are "empty address" and
// "malformed address".
func SplitAddress(s string) (host, port string, err error) {
	return splitAddress(s, DefaultPort)
}

// SplitLocalAddress splits an InitiatorAddress, whose port is "0" (any) where
// none is given.
func SplitLocalAddress(s string) (host, port string, err error) {
	return splitAddress(s, "0")
}

func splitAddress(s, defaultPort string) (host, port string, err error) {
	if s == "" {
		return "", "", errEmptyAddress
	}
	rest := ""
	switch {
	case s[0] == '[':
		var closed bool
		if host, rest, closed = strings.Cut(s[1:], "]"); !closed || !isIPv6(host) {
			return "", "", errMalformedAddress
		}
	case strings.Count(s, ":") > 1:
		if !isIPv6(s) {
			return "", "", errMalformedAddress
		}
		host = s
	default:
		host = s
		if i := strings.IndexByte(s, ':'); i >= 0 {
			host, rest = s[:i], s[i:]
		}
		if strings.ContainsAny(host, "[]/ \t") {
			return "", "", errMalformedAddress
		}
	}
	if port, err = splitPort(rest, defaultPort); err != nil || host == "" {
		return "", "", errMalformedAddress
	}
	return host, port, nil
}

// splitPort reads what follows the host: nothing, or a colon and a port.
func splitPort(s, defaultPort string) (string, error) {
	if s == "" {
		return defaultPort, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(s, ":"), 10, 16)
	if s[0] != ':' || err != nil || n == 0 && defaultPort != "0" {
		return "", errMalformedAddress
	}
	return strconv.FormatUint(n, 10), nil
}

func isIPv6(s string) bool {
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Is6()
}
