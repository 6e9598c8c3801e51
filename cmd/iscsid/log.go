package main

import (
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"sync"

	"iscsictl/daemon"
)

// openLog makes the log: standard error in the foreground (with the priorities
// of sd-daemon(3) under systemd), else syslog.
func openLog(o *options, stderr io.Writer) (*slog.Logger, error) {
	h := &daemon.LogHandler{
		Debug: func() bool { return o.logLevel > 0 || o.tunables.Debug() > 1 },
	}
	switch {
	case !o.foreground:
		s, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "iscsid")
		if err != nil {
			return nil, fmt.Errorf("no syslog: %w (use -d to log to standard error)", err)
		}
		h.Write = func(l slog.Level, line string) { toSyslog(s, l, line) }
	default:
		prefix := func(slog.Level) string { return "iscsid: " }
		if os.Getenv("JOURNAL_STREAM") != "" {
			prefix = func(l slog.Level) string { return fmt.Sprintf("<%d>", priority(l)) }
		}
		var mu sync.Mutex
		h.Write = func(l slog.Level, line string) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(stderr, "%s%s\n", prefix(l), line)
		}
	}
	return slog.New(h), nil
}

// priority is the level in syslog(3)'s numbers.
func priority(l slog.Level) syslog.Priority {
	switch {
	case l >= slog.LevelError:
		return syslog.LOG_ERR
	case l >= slog.LevelWarn:
		return syslog.LOG_WARNING
	case l >= slog.LevelInfo:
		return syslog.LOG_INFO
	}
	return syslog.LOG_DEBUG
}

// toSyslog writes a line; there is nobody to tell where that fails.
func toSyslog(s *syslog.Writer, l slog.Level, line string) {
	switch priority(l) {
	case syslog.LOG_ERR:
		_ = s.Err(line)
	case syslog.LOG_WARNING:
		_ = s.Warning(line)
	case syslog.LOG_INFO:
		_ = s.Info(line)
	default:
		_ = s.Debug(line)
	}
}
