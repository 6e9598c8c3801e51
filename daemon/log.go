package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"iscsictl/conf"
)

// who names a session in log lines as iscsid(8) does: PORTAL (TARGET).
type who struct {
	id uint32
	c  conf.Session
}

func (w who) String() string {
	if w.c.Discovery {
		return w.c.TargetAddress
	}
	return fmt.Sprintf("%s (%s)", w.c.TargetAddress, w.c.TargetName)
}

// LogHandler is a slog.Handler that makes lines in the format of iscsid(8),
// "PORTAL (TARGET): text", and hands each to Write.
type LogHandler struct {
	Write func(level slog.Level, line string)
	Debug func() bool // whether debug messages are wanted now

	prefix, suffix string
}

// Enabled implements slog.Handler.
func (h *LogHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || h.Debug()
}

// Handle implements slog.Handler.
func (h *LogHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(h.prefix)
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
		if w, ok := a.Value.Any().(who); ok {
			n.prefix = printable(w.String()) + ": "
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
