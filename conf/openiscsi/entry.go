package openiscsi

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"iscsictl/conf"
)

// note says of a value what becomes of it.
func (e *Entry) note(r record, key, what string) {
	e.Notes = append(e.Notes, fmt.Sprintf("%s = %s: %s", key, r[key], what))
}

// initiator takes who connects: the interface's name for this host, or else the
// host's. It is in each entry, since open-iscsi takes its file along when it is
// purged, and targets know this host by that name.
func (im *importer) initiator(r record, e *Entry) {
	s := &e.Session
	s.InitiatorName = cmp.Or(r["iface.initiatorname"], im.host["InitiatorName"], s.InitiatorName)
	s.InitiatorAlias = im.host["InitiatorAlias"]
	s.InitiatorAddress = r["iface.ipaddress"]
	for _, key := range []string{"iface.net_ifacename", "iface.hwaddress"} {
		if r[key] != "" && r[key] != "default" {
			e.note(r, key, "an entry has no network interface, but InitiatorAddress, an address of it")
		}
	}
	switch transport := r["iface.transport_name"]; transport {
	case "", "tcp":
	case "iser":
		s.ISER = true
	default:
		e.note(r, "iface.transport_name", "this adapter's own initiator is not used, but its network interface")
	}
}

// node makes an entry of a session's record.
func (im *importer) node(r record, e *Entry) {
	s := &e.Session
	s.TargetName = r["node.name"]
	s.TargetAddress = address(r["node.conn[0].address"], r["node.conn[0].port"])
	switch r["node.startup"] {
	case "automatic":
	case "onboot":
		e.note(r, "node.startup", "connected when iscsid has started, which is too late for a root file system")
	default:
		s.Enable = false
		e.note(r, "node.startup", `added but not connected, until "iscsictl -M -i session-id -e on", or without the line Enable`)
	}
	auth(r, "node.session.auth.", s)
	s.HeaderDigest = digest(r, "node.conn[0].iscsi.HeaderDigest", e)
	s.DataDigest = digest(r, "node.conn[0].iscsi.DataDigest", e)
	timeouts(r, e)
	if tos, ok := r.number("node.conn[0].tcp.type_of_service"); ok && tos > 0 && tos < 256 {
		s.DSCP = tos >> 2
	}
	unequal(r, e)
}

// discovery makes an entry of a discovery's record. What it has found has
// records of its own, so that the entry is for information.
func (im *importer) discovery(r record, e *Entry) {
	s := &e.Session
	s.Discovery = true
	s.TargetAddress = address(r["discovery.sendtargets.address"], r["discovery.sendtargets.port"])
	auth(r, "discovery.sendtargets.auth.", s)
	e.Unused = "the targets that this portal has told of are entries of their own"
	if strings.EqualFold(r["discovery.sendtargets.use_discoveryd"], "yes") {
		e.note(r, "discovery.sendtargets.use_discoveryd", "a portal is not asked again by itself; iscsictl --discover asks it")
	}
}

// address joins host and port, which is left out where it is the usual one.
func address(host, port string) string {
	switch {
	case host == "" || port == "" || port == "3260":
		return host
	}
	return net.JoinHostPort(host, port)
}

// auth takes names and secrets of CHAP.
func auth(r record, prefix string, s *conf.Session) {
	s.User, s.Secret = r[prefix+"username"], r[prefix+"password"]
	s.MutualUser, s.MutualSecret = r[prefix+"username_in"], r[prefix+"password_in"]
	if !strings.EqualFold(r[prefix+"authmethod"], "CHAP") {
		return
	}
	s.AuthMethod = conf.AuthCHAP
	// MD5 alone is the default there, and nobody's choice.
	if algs := r.list(prefix + "chap_algs"); len(algs) == 1 && algs[0] != "MD5" {
		s.CHAPDigest = map[string]string{"SHA256": "SHA-256"}[algs[0]]
		if s.CHAPDigest == "" {
			s.CHAPDigest = algs[0]
		}
	}
}

// digest takes a list of preference.
func digest(r record, key string, e *Entry) bool {
	all := r.list(key)
	if !strings.EqualFold(all[0], "CRC32C") {
		return false
	}
	if len(all) == 1 {
		e.note(r, key, "CRC32C is offered, and the target may decline")
	}
	return true
}

// timeouts takes the times that have equals. Those of login and ping are left to
// their defaults where open-iscsi had its own.
func timeouts(r record, e *Entry) {
	s := &e.Session
	// 0 is an error at once, less than 0 is never.
	const recovery = "node.session.timeo.replacement_timeout"
	switch n, ok := r.number(recovery); {
	case !ok:
	case n < 0:
		s.RecoveryTimeout = 0
	case n == 0:
		s.RecoveryTimeout = 1
		e.note(r, recovery, "errors at once cannot be had; after a second is the nearest")
	default:
		s.RecoveryTimeout = n
	}
	interval, ok := r.number("node.conn[0].timeo.noop_out_interval")
	wait, ok2 := r.number("node.conn[0].timeo.noop_out_timeout")
	switch {
	case !ok || !ok2 || interval == 5 && wait == 5:
	case interval <= 0 || wait <= 0:
		s.PingTimeout = 0
	default:
		s.PingTimeout = interval + wait
	}
	if n, ok := r.number("node.conn[0].timeo.login_timeout"); ok && n > 0 && n != 15 && n != 30 {
		s.LoginTimeout = n
	}
}

const (
	whyNegotiated = "iscsid asks for what suits it"
	whyRetries    = "iscsid tries for as long as the session exists"
	whyErrors     = "CommandTimeout has iscsid abort a command, reset the unit and reconnect"
	whyDepth      = "the target's own window decides"
)

// unequals are the settings without an equal: their usual values, of which
// nothing needs to be said, and what takes their place.
var unequals = map[string]struct {
	usual string // separated by blanks
	why   string
}{
	"node.leading_login":                          {"No", "each portal has a session of its own"},
	"node.session.initial_login_retry_max":        {"4 8", whyRetries},
	"node.session.reopen_max":                     {"0", whyRetries},
	"node.session.cmds_max":                       {"128", whyDepth},
	"node.session.queue_depth":                    {"32", whyDepth},
	"node.session.nr_sessions":                    {"1", "there can be one session to a target at one portal"},
	"node.session.scan":                           {"auto", "the variable LUNs chooses the disks"},
	"node.session.err_timeo.abort_timeout":        {"15", whyErrors},
	"node.session.err_timeo.lu_reset_timeout":     {"30", whyErrors},
	"node.session.err_timeo.tgt_reset_timeout":    {"30", whyErrors},
	"node.session.err_timeo.host_reset_timeout":   {"60", whyErrors},
	"node.session.iscsi.FastAbort":                {"Yes", whyErrors},
	"node.session.iscsi.InitialR2T":               {"No", whyNegotiated},
	"node.session.iscsi.ImmediateData":            {"Yes", whyNegotiated},
	"node.session.iscsi.FirstBurstLength":         {"262144", whyNegotiated},
	"node.session.iscsi.MaxBurstLength":           {"16776192", whyNegotiated},
	"node.session.iscsi.DefaultTime2Retain":       {"0", whyNegotiated},
	"node.session.iscsi.DefaultTime2Wait":         {"2", whyNegotiated},
	"node.session.iscsi.MaxConnections":           {"1", whyNegotiated},
	"node.session.iscsi.MaxOutstandingR2T":        {"1", whyNegotiated},
	"node.session.iscsi.ERL":                      {"0", whyNegotiated},
	"node.conn[0].tcp.window_size":                {"524288 0", "the kernel's TCP decides"},
	"node.conn[0].timeo.logout_timeout":           {"15", "iscsid bounds its logout itself"},
	"node.conn[0].timeo.auth_timeout":             {"45", "LoginTimeout is for authentication, too"},
	"node.conn[0].iscsi.MaxXmitDataSegmentLength": {"0", whyNegotiated},
	"node.conn[0].iscsi.MaxRecvDataSegmentLength": {"262144", whyNegotiated},
	"node.conn[0].iscsi.IFMarker":                 {"No", "RFC 7143 has no markers"},
	"node.conn[0].iscsi.OFMarker":                 {"No", "RFC 7143 has no markers"},
	"iface.vlan_id":                               {"0", "that is for the network interface"},
	"iface.mtu":                                   {"0", "that is for the network interface"},
	"node.conn[1].address":                        {"", "a session has one connection"},
}

// unequal notes what was set and has no equal.
func unequal(r record, e *Entry) {
	for _, key := range slices.Sorted(maps.Keys(unequals)) {
		u := unequals[key]
		if value, ok := r[key]; ok && !slices.Contains(strings.Fields(u.usual), value) {
			e.note(r, key, "no equal; "+u.why)
		}
	}
}
