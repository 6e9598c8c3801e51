package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"iscsictl/cmd/iscsictl/xo"
	"iscsictl/control"
)

// list lists all sessions, in FreeBSD's layout and with its names.
func (c *command) list(o *options) error {
	sessions, err := c.client.List()
	if err != nil {
		return refused("ISCSISLIST", err)
	}
	if o.verbose {
		c.out.OpenList("session")
		for i := range sessions {
			c.out.OpenInstance("session")
			verbose(c.out, &sessions[i])
			c.out.Close()
		}
		c.out.Close()
	} else {
		short(c.out, sessions)
	}
	return c.out.Flush() // a wait may follow
}

// short writes a line for each session.
func short(out *xo.Writer, sessions []control.Session) {
	out.Title("%-36s", "Target name")
	out.Text(" ")
	out.Title("%-16s", "Target portal")
	out.Text(" ")
	out.Title("%s", "State")
	out.Text("\n")
	if len(sessions) == 0 {
		return
	}
	out.OpenList("session")
	for i := range sessions {
		s := &sessions[i]
		out.OpenInstance("session")
		out.String("name", "%-36s", s.TargetName)
		out.Text(" ")
		out.String("portal", "%-16s", portal(s))
		out.Text(" ")
		state := state(s)
		out.String("state", "%s", state)
		if state == stateConnected {
			out.Text(": ")
			devices(out, s)
		}
		out.Text("\n")
		out.Close()
	}
	out.Close()
}

const stateConnected = "Connected"

// state is the reason of a failure, where there is one, or else a word.
func state(s *control.Session) string {
	switch {
	case s.Reason != "" && s.Enable:
		return s.Reason
	case s.Discovery:
		return "Discovery"
	case !s.Enable:
		return "Disabled"
	case s.Connected:
		return stateConnected
	}
	return "Disconnected"
}

// portal is where the session goes: as configured, or where the target has moved to.
func portal(s *control.Session) string { return cmp.Or(s.Redirect, s.TargetAddress) }

// devices writes the names of a session's disks, each with a blank after it. The
// numbers are those of FreeBSD's SCSI bus; in place of the bus's stands the session's.
func devices(out *xo.Writer, s *control.Session) {
	out.Open("devices")
	out.OpenList("lun")
	bus, target := int64(-1), -1
	for _, device := range s.Devices {
		bus, target = int64(s.ID), 0
		out.OpenInstance("lun")
		out.Hidden("lun", device.LUN)
		out.String("device", "%s", device.Name)
		out.Text(" ")
		out.Close()
	}
	out.Close()
	out.Hidden("scbus", bus)
	out.Hidden("bus", 0)
	out.Hidden("target", target)
	out.Close()
}

// labels writes lines of a label and a value.
type labels struct{ *xo.Writer }

const labelFormat = "%-26s"

func (l labels) text(name, label, value string) {
	l.Label(labelFormat, label+":")
	l.String(name, "%s", value)
	l.Text("\n")
}

func (l labels) number(name, label string, value uint64) {
	l.Label(labelFormat, label+":")
	l.Uint(name, value)
	l.Text("\n")
}

// set writes a number where it is set.
func (l labels) set(name, label string, value int) {
	if value >= 0 {
		l.number(name, label, uint64(value))
	}
}

// hex writes a number likewise, as FreeBSD does: for programs too, a string.
func (l labels) hex(name, label string, value int) {
	if value >= 0 {
		l.text(name, label, fmt.Sprintf("0x%02x", value))
	}
}

// some writes a text where there is one.
func (l labels) some(name, label, value string) {
	if value != "" {
		l.text(name, label, value)
	}
}

func (l labels) flag(name, label string, value bool, yes, no string) {
	if !value {
		yes = no
	}
	l.text(name, label, yes)
}

// secret shows that one is set; the daemon does not tell more.
func (l labels) secret(name, label string, isSet bool) {
	l.flag(name, label, isSet, "********", "")
}

// verbose writes all there is to know of a session: FreeBSD's lines, then ours.
func verbose(out *xo.Writer, s *control.Session) {
	l := labels{out}
	l.number("sessionId", "Session ID", uint64(s.ID))
	l.parties(s)
	l.flag("type", "Session type", s.Discovery, "Discovery", "Normal")
	l.flag("enable", "Enable", s.Enable, "Yes", "No")
	l.flag("state", "Session state", s.Connected, stateConnected, "Disconnected")
	l.text("failureReason", "Failure reason", s.Reason)
	l.flag("headerDigest", "Header digest", s.HeaderDigest, "CRC32C", "None")
	l.flag("dataDigest", "Data digest", s.DataDigest, "CRC32C", "None")
	l.number("recvDataSegmentLen", "MaxRecvDataSegmentLength", size(s.MaxRecvDataSegmentLength))
	l.number("sendDataSegmentLen", "MaxSendDataSegmentLength", size(s.MaxSendDataSegmentLength))
	l.number("maxBurstLen", "MaxBurstLen", size(s.MaxBurstLength))
	l.number("firstBurstLen", "FirstBurstLen", size(s.FirstBurstLength))
	l.flag("immediateData", "ImmediateData", s.ImmediateData, "Yes", "No")
	l.flag("iSER", "iSER (RDMA)", s.ISER, "Yes", "No")
	l.text("offloadDriver", "Offload driver", cmp.Or(s.OffloadDriver, "None"))
	out.Label(labelFormat, "Device nodes:")
	devices(out, s)
	out.Text("\n")
	l.beyond(s)
	out.Text("\n")
}

// parties writes who talks to whom, and the proofs of it.
func (l labels) parties(s *control.Session) {
	l.Open("initiator")
	l.text("name", "Initiator name", s.InitiatorName)
	l.text("portal", "Initiator portal", s.InitiatorAddress)
	l.text("alias", "Initiator alias", s.InitiatorAlias)
	l.Close()

	l.Open("target")
	l.text("name", "Target name", s.TargetName)
	l.text("portal", "Target portal", portal(s))
	l.text("alias", "Target alias", s.TargetAlias)
	l.hex("dscp", "Target DSCP", s.DSCP)
	l.hex("pcp", "Target PCP", s.PCP)
	l.set("PingTimeout", "Target PingTimeout", s.PingTimeout)
	l.set("LoginTimeout", "Target LoginTimeout", s.LoginTimeout)
	l.Close()

	l.Open("auth")
	l.text("user", "User", s.User)
	l.secret("secret", "Secret", s.SecretSet)
	l.text("mutualUser", "Mutual user", s.MutualUser)
	l.secret("mutualSecret", "Mutual secret", s.MutualSecretSet)
	l.Close()
}

// beyond writes what FreeBSD does not have.
func (l labels) beyond(s *control.Session) {
	l.some("nickname", "Nickname", s.Nickname)
	if s.Redirect != "" {
		l.text("configuredPortal", "Configured portal", s.TargetAddress)
	}
	l.set("commandTimeout", "CommandTimeout", s.CommandTimeout)
	l.set("recoveryTimeout", "RecoveryTimeout", s.RecoveryTimeout)
	l.some("device", "Device", s.Device)
	l.facts(s)
	l.disks(s)
	l.notes(s)
	n := &s.Counters
	l.number("requests", "Requests", n.Requests)
	l.number("bytesRead", "Bytes read", n.BytesRead)
	l.number("bytesWritten", "Bytes written", n.BytesWritten)
	l.number("errors", "Errors", n.Errors)
	l.number("reconnections", "Reconnections", n.Reconnects)
	l.some("lastFailure", "Last failure", n.LastFailure)
	if !n.LastFailureTime.IsZero() {
		l.text("lastFailureTime", "Last failure time", n.LastFailureTime.Format(time.RFC3339))
	}
}

// facts writes what else there is to know of the connection.
func (l labels) facts(s *control.Session) {
	if len(s.Facts) == 0 {
		return
	}
	l.Open("connection")
	for _, f := range s.Facts {
		l.text(f.Name, f.Label, f.Value)
	}
	l.Close()
}

// disks writes a line for each disk: its name, what shows it to the host, and what
// to know of it.
func (l labels) disks(s *control.Session) {
	if len(s.Devices) == 0 {
		return
	}
	l.OpenList("disk")
	for _, device := range s.Devices {
		l.OpenInstance("disk")
		l.Label(labelFormat, fmt.Sprintf("LUN %d:", device.LUN))
		l.Hidden("lun", device.LUN)
		l.String("device", "%s", device.Name)
		l.Text(" (")
		l.String("backend", "%s", device.Backend)
		l.Text(")")
		l.fate(&device)
		if device.Note != "" {
			l.Text("; ")
			l.String("note", "%s", device.Note)
		}
		l.Text("\n")
		l.Close()
	}
	l.Close()
}

// fate writes whether a disk outlives the daemon, or whose it is.
func (l labels) fate(d *control.Device) {
	if d.PathOf != 0 {
		l.Text(fmt.Sprintf(": a path to the disk of session %d, idle", d.PathOf))
		l.Hidden("pathOf", d.PathOf)
		return
	}
	text, outlives := ": does not outlive iscsid", "No"
	if d.Outlives {
		text, outlives = ": outlives iscsid", "Yes"
	}
	l.Text(text)
	l.Hidden("outlives", outlives)
}

// notes writes what there is no disk for, and why.
func (l labels) notes(s *control.Session) {
	if len(s.Notes) == 0 {
		return
	}
	l.OpenList("note")
	for _, note := range s.Notes {
		l.OpenInstance("note")
		l.text("text", "Note", strings.TrimSpace(note))
		l.Close()
	}
	l.Close()
}

func size(n int) uint64 { return uint64(max(n, 0)) }
