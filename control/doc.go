// Package control is the protocol between iscsictl(8) and iscsid(8): its
// messages, the daemon's server, the command's client, and who may call.
//
// The two talk over a Unix stream socket. A client writes one request on a line,
// in JSON, and reads one reply on a line; then it may write the next. A request
// is an object with exactly one member, which names what is asked for:
//
//	{"hello":{"min":1,"max":1}}
//	{"add":{"targetName":"iqn.2012-06.com.example:target0","targetAddress":"192.0.2.1",…}}
//	{"modify":{"id":3,"portal":"192.0.2.2"}}
//	{"remove":{"target":"iqn.2012-06.com.example:target0"}}
//	{"list":{}}
//	{"rescan":{"all":true}}
//	{"discover":{"discovery":true,"targetAddress":"192.0.2.1",…}}
//	{"tunables":{}}
//	{"setTunable":{"name":"kern.iscsi.ping_timeout","value":"10"}}
//
// and a reply has a member of its own for each of them, or
//
//	{"error":{"code":"EBUSY","text":"a session to … exists (session 3)"}}
//
// The first request is hello: both sides say which versions of this protocol they
// speak, the daemon picks the highest that both have, and from then on the client
// sends only what that version knows. The daemon refuses a member that it does not
// know, rather than do half of what was asked; the client passes over one.
//
// Secrets go to the daemon and never come back: no reply holds one, only whether it
// is set.
//
// Callers are judged by what the kernel says of them (unix(7), SO_PEERCRED and
// SO_PEERGROUPS): root, the user the daemon runs as, and members of the group
// iscsi may ask for anything; others for nothing. Whoever may add a session can
// have the host read and write any block device, so that the group is as good as
// root.
package control

import "time"

// DefaultSocket is where iscsid listens.
const DefaultSocket = "/run/iscsid/control.sock"

// Group is the name of the group whose members may use the socket.
const Group = "iscsi"

// The versions of the protocol that this package speaks.
const (
	MinVersion = 1
	MaxVersion = 1
)

// Limits of a message, in bytes with its line feed, and of its nesting.
const (
	MaxRequest = 1 << 20
	MaxReply   = 64 << 20
	maxDepth   = 8
)

// limits is what a server grants its clients.
type limits struct {
	clients    int           // connections at once
	perUser    int           // of these, for one user who is not root
	idle       time.Duration // without a request
	request    time.Duration // from a request's first byte to its last
	writeStep  time.Duration // without progress in a reply
	writeTotal time.Duration // for a whole reply
	grace      time.Duration // for a reply when the daemon stops
}

var defaultLimits = limits{
	clients:    64,
	perUser:    32,
	idle:       60 * time.Second,
	request:    10 * time.Second,
	writeStep:  10 * time.Second,
	writeTotal: 60 * time.Second,
	grace:      2 * time.Second,
}
