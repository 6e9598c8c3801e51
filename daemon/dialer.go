package daemon

import (
	"errors"
	"fmt"
	"syscall"

	"iscsictl/conf"
	"iscsictl/control"
	"iscsictl/transport"
	"iscsictl/transport/offload"
	"iscsictl/transport/tcp"
)

// dialer returns what connects a session: plain TCP, or iSER.
func (d *Daemon) dialer(c conf.Session) transport.Dialer {
	if !c.ISER {
		return tcp.Dialer{}
	}
	return offload.Dialer{Pinned: c.Offload, Log: d.iserDebug, Spin: d.cfg.Tunables.ISERSpin}
}

// checkOffload refuses drivers that do not exist, or not for this protocol.
func checkOffload(c conf.Session) error {
	switch err := offload.Check(c.Offload, c.ISER); {
	case err == nil:
		return nil
	case errors.Is(err, offload.ErrUnavailable):
		return control.Errorf(syscall.EPROTONOSUPPORT, "%v", err)
	default:
		return control.Errorf(syscall.EINVAL, "%v", err)
	}
}

// iserDebug logs what kern.iser.debug asks for.
func (d *Daemon) iserDebug(level int, format string, args ...any) {
	if d.cfg.Tunables.ISERDebug() >= level {
		d.cfg.Log.Info("iser: " + fmt.Sprintf(format, args...))
	}
}
