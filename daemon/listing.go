package daemon

import (
	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/session"
)

// configured fills in what the configuration says.
func configured(l *control.Session, c conf.Session) {
	l.Nickname = c.Nickname
	l.InitiatorName, l.InitiatorAddress, l.InitiatorAlias = c.InitiatorName, c.InitiatorAddress, c.InitiatorAlias
	l.TargetName, l.TargetAddress = c.TargetName, c.TargetAddress
	l.DSCP, l.PCP = c.DSCP, c.PCP
	l.PingTimeout, l.LoginTimeout = c.PingTimeout, c.LoginTimeout
	l.CommandTimeout, l.RecoveryTimeout = c.CommandTimeout, c.RecoveryTimeout
	l.Device = c.Device
	l.User, l.SecretSet = c.User, c.Secret != ""
	l.MutualUser, l.MutualSecretSet = c.MutualUser, c.MutualSecret != ""
	l.Discovery, l.Enable, l.ISER = c.Discovery, c.Enable, c.ISER
}

// connected fills in what the connection says.
func connected(l *control.Session, i session.Info) {
	l.Connected, l.Reason, l.Redirect = i.Connected, i.Reason, i.Moved
	l.TargetAlias = i.TargetAlias
	for _, f := range i.Facts {
		l.Facts = append(l.Facts, control.Fact{Name: f.Name, Label: f.Label, Value: f.Value})
	}
	if l.InitiatorAddress == "" && i.InitiatorPortal.IsValid() {
		l.InitiatorAddress = i.InitiatorPortal.Addr().String()
	}
	if !i.Negotiated {
		return
	}
	if l.ISER && l.Connected {
		l.OffloadDriver = "iser"
	}
	p := i.Params
	l.HeaderDigest, l.DataDigest = p.HeaderDigest, p.DataDigest
	l.MaxRecvDataSegmentLength, l.MaxSendDataSegmentLength = p.MaxRecvDataSegmentLength, p.MaxSendDataSegmentLength
	l.MaxBurstLength, l.FirstBurstLength = p.MaxBurstLength, p.FirstBurstLength
	l.ImmediateData = p.ImmediateData
}
