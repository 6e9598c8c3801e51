package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"iscsictl/control"
)

const (
	pollFirst = 50 * time.Millisecond
	pollMost  = time.Second
	// outage is how long the daemon may be away while it restarts.
	outage = 15 * time.Second
)

// waitFor waits until all enabled sessions are connected and, as far as there is
// time, until their disks are there. The daemon may restart in between.
func (c *command) waitFor(o *options) error {
	show := progress{out: c.stderr, on: c.terminal}
	defer show.clear()
	begun, seen := time.Now(), time.Now()
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		sessions, err := c.sessions(o)
		now := time.Now()
		var refusal *control.Error
		switch {
		case err == nil:
			seen = now
		case errors.As(err, &refusal) || now.Sub(seen) > outage:
			return refused("ISCSISLIST", err)
		}
		missing, looking := notConnected(sessions)
		if err == nil && len(missing) == 0 && !looking {
			return nil
		}
		left := pause
		if *o.wait > 0 {
			if left = *o.wait - now.Sub(begun); left <= 0 {
				show.clear()
				if err == nil && len(missing) == 0 {
					return nil
				}
				return timedOut(*o.wait, missing, err)
			}
		}
		if err == nil && len(missing) > 0 {
			show.missing(missing, len(sessions))
		}
		time.Sleep(min(left, pause))
	}
}

// sessions lists them, over a new connection where the old one is lost.
func (c *command) sessions(o *options) ([]control.Session, error) {
	if c.client == nil {
		client, err := connect(o.socket)
		if err != nil {
			return nil, err
		}
		c.client = client
	}
	sessions, err := c.client.List()
	if err != nil {
		c.client.Close()
		c.client = nil
	}
	return sessions, err
}

// notConnected returns the enabled sessions that are not connected, and whether
// disks of the others are still being looked for.
func notConnected(sessions []control.Session) (missing []control.Session, looking bool) {
	for _, s := range sessions {
		switch {
		case s.Enable && !s.Connected:
			missing = append(missing, s)
		case s.Enable && s.Scanning:
			looking = true
		}
	}
	return missing, looking
}

// timedOut names the sessions that are not up, and why.
func timedOut(after time.Duration, missing []control.Session, err error) error {
	if err != nil {
		return fmt.Errorf("timed out after %v: %w", after, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "timed out after %v; not connected:", after)
	for i := range missing {
		b.WriteString("\n" + describe(&missing[i]))
	}
	return errors.New(b.String())
}

// describe names a session and says what is the matter with it.
func describe(s *control.Session) string {
	return subject(s) + ": " + state(s)
}

// subject names a session.
func subject(s *control.Session) string {
	what := "session to " + s.TargetName
	if s.Discovery {
		what = "discovery session"
	}
	return fmt.Sprintf("session-id %d: %s at %s", s.ID, what, portal(s))
}

// progress shows on a terminal, on one line, what is still missing.
type progress struct {
	out   io.Writer
	on    bool
	shown string
}

const progressWidth = 79

func (p *progress) missing(missing []control.Session, all int) {
	// The reason comes first, since names are long and the line is cut.
	first := &missing[0]
	line := fmt.Sprintf("waiting for %d of %d: %s: %s", len(missing), all, state(first), subject(first))
	line = printable(line)
	if runes := []rune(line); len(runes) > progressWidth {
		line = string(runes[:progressWidth-1]) + "…"
	}
	if p.on && line != p.shown {
		fmt.Fprint(p.out, "\r\x1b[K"+line)
		p.shown = line
	}
}

func (p *progress) clear() {
	if p.shown != "" {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = ""
	}
}
