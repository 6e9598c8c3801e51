package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"iscsictl/conf"
)

// who names a session in log lines as iscsid(8) does: PORTAL (TARGET). The
// session may be modified, and what is logged then has the new name.
type who struct{ now atomic.Pointer[conf.Session] }

func newWho(c conf.Session) *who {
	w := &who{}
	w.now.Store(&c)
	return w
}

func (w *who) String() string {
	c := w.now.Load()
	if c.Discovery {
		return c.TargetAddress
	}
	return fmt.Sprintf("%s (%s)", c.TargetAddress, c.TargetName)
}

// LogHandler is a slog.Handler that makes lines in the format of iscsid(8),
// "PORTAL (TARGET): text", and hands each to Write.
type LogHandler struct {
	Write func(level slog.Level, line string)
	Debug func() bool // whether debug messages are wanted now

	who    *who // nil: not about a session
	suffix string
}

// Enabled implements slog.Handler.
func (h *LogHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || h.Debug()
}

// Handle implements slog.Handler.
func (h *LogHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	if h.who != nil {
		b.WriteString(printable(h.who.String()) + ": ")
	}
	b.WriteString(printable(r.Message))
	b.WriteString(h.suffix)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(attribute(a))
		return true
	})
	h.Write(r.Level, b.String())
	return nil
}

// WithAttrs implements slog.Handler.
func (h *LogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	for _, a := range attrs {
		if w, ok := a.Value.Any().(*who); ok {
			n.who = w
			continue
		}
		n.suffix += attribute(a)
	}
	return &n
}

// WithGroup implements slog.Handler; there are no groups in these lines.
func (h *LogHandler) WithGroup(string) slog.Handler { return h }

func attribute(a slog.Attr) string {
	return " " + printable(fmt.Sprintf("%s=%v", a.Key, a.Value))
}

// printable keeps a text from outside from making lines of its own.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
