package discovery_test

import (
	"net/netip"
	"strings"
	"testing"

	"iscsictl/session/discovery"
)

func TestPortalFor(t *testing.T) {
	portal := func(host string, port int) discovery.Portal { return discovery.Portal{Host: host, Port: port, Tag: 1} }
	for name, c := range map[string]struct {
		portals   []discovery.Portal
		discovery string
		reached   string
		want      string
	}{
		"none listed":               {nil, "host", "10.0.0.1:3260", "host"},
		"listed":                    {[]discovery.Portal{portal("10.0.0.2", 3260), portal("10.0.0.1", 3260)}, "10.0.0.1", "10.0.0.1:3260", "10.0.0.1"},
		"listed, by a name":         {[]discovery.Portal{portal("10.0.0.2", 3260), portal("10.0.0.1", 3260)}, "host:3260", "10.0.0.1:3260", "host:3260"},
		"name listed":               {[]discovery.Portal{portal("10.0.0.2", 3260), portal("Host", 3260)}, "host", "10.0.0.1:3260", "host"},
		"other port":                {[]discovery.Portal{portal("10.0.0.1", 3261)}, "10.0.0.1", "10.0.0.1:3260", "10.0.0.1:3261"},
		"not listed":                {[]discovery.Portal{portal("10.0.0.2", 3260), portal("2001:db8::1", 860)}, "host", "10.0.0.1:3260", "10.0.0.2:3260 [2001:db8::1]:860"},
		"twice with other tags":     {[]discovery.Portal{portal("10.0.0.2", 3260), {Host: "10.0.0.2", Port: 3260, Tag: 2}}, "host", "10.0.0.1:3260", "10.0.0.2:3260"},
		"IPv6 in another spelling":  {[]discovery.Portal{portal("2001:DB8:0::1", 3260)}, "[2001:db8::1]", "[2001:db8::1]:3260", "[2001:db8::1]"},
		"link-local":                {[]discovery.Portal{portal("fe80::1", 3260)}, "[fe80::1%eth0]:3260", "[fe80::1%eth0]:3260", "[fe80::1%eth0]:3260"},
		"mapped":                    {[]discovery.Portal{portal("10.0.0.1", 3260)}, "host", "[::ffff:10.0.0.1]:3260", "host"},
		"everywhere":                {[]discovery.Portal{portal("0.0.0.0", 3260)}, "10.0.0.1", "10.0.0.1:3260", "10.0.0.1"},
		"everywhere at other port":  {[]discovery.Portal{portal("::", 3261)}, "10.0.0.1", "10.0.0.1:3260", "10.0.0.1:3261"},
		"configured port forwarded": {[]discovery.Portal{portal("10.0.0.1", 3260)}, "gateway:9999", "10.9.9.9:9999", "10.0.0.1:3260"},
	} {
		target := discovery.Target{Name: "iqn.x", Portals: c.portals}
		got := strings.Join(target.PortalFor(c.discovery, netip.MustParseAddrPort(c.reached)), " ")
		if got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}
