package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"iscsictl/iscsi"
)

const (
	// maxPair bounds one key=value pair in bytes: far above the longest name
	// (223) and address (255 for a host name).
	maxPair = 4096
	// maxTargets and maxPortals bound what is kept: targets in all, and
	// portals of each.
	maxTargets  = 100_000
	maxPortals  = 128
	maxWarnings = 32
)

// list reads an answer piece by piece: TargetName begins a target, the
// TargetAddress keys after it are its portals (RFC 7143 appendix C).
type list struct {
	rest     []byte // of a pair that a piece broke off in
	named    bool   // a TargetName has come
	current  int    // in targets, of the last TargetName; -1: it is skipped
	targets  []Target
	index    map[string]int // of targets by name
	warnings []string
}

// add takes in one piece. Pairs are split wherever the target likes.
func (l *list) add(data []byte) error {
	for len(data) > 0 {
		end := bytes.IndexByte(data, 0)
		piece := data
		if end >= 0 {
			piece = data[:end+1]
		}
		if len(l.rest)+len(piece) > maxPair {
			return fmt.Errorf("the target sent a key with its value of more than %d bytes", maxPair)
		}
		data = data[len(piece):]
		if end < 0 {
			l.rest = append(l.rest, piece...)
			return nil
		}
		if len(l.rest) > 0 {
			l.rest = append(l.rest, piece...)
			piece = l.rest
		}
		if err := l.pair(piece); err != nil {
			return err
		}
		l.rest = l.rest[:0]
	}
	return nil
}

// end checks that the last pair was complete.
func (l *list) end() error {
	if len(l.rest) > 0 {
		return fmt.Errorf("the target's answer ends within %.64q", l.rest)
	}
	return nil
}

// pair takes in one pair with its NUL, or a NUL alone, which is padding.
func (l *list) pair(text []byte) error {
	kv, _, err := iscsi.NextKey(text)
	if err != nil {
		return err
	}
	switch kv.Key {
	case "":
		return nil
	case iscsi.KeyTargetName:
		return l.name(kv.Value)
	case iscsi.KeyTargetAddress:
		return l.address(kv.Value)
	case iscsi.KeySendTargets:
		return fmt.Errorf("the target answered SendTargets=%.64q", kv.Value)
	}
	l.warnf("ignoring %.64q of the target's answer", kv.Key)
	return nil
}

func (l *list) name(name string) error {
	l.named, l.current = true, -1
	if _, err := iscsi.ValidateName(name); err != nil {
		l.warnf("skipping target %.64q: %v", name, err)
		return nil
	}
	if i, ok := l.index[name]; ok {
		l.current = i
		return nil
	}
	if len(l.targets) == maxTargets {
		return fmt.Errorf("the target names more than %d targets", maxTargets)
	}
	if l.index == nil {
		l.index = make(map[string]int)
	}
	l.current = len(l.targets)
	l.index[name] = l.current
	l.targets = append(l.targets, Target{Name: name})
	return nil
}

func (l *list) address(value string) error {
	if !l.named {
		return errors.New("the target sent a TargetAddress before any TargetName")
	}
	if l.current < 0 {
		return nil
	}
	t := &l.targets[l.current]
	host, port, tag, err := iscsi.ParseTargetAddress(value)
	if err == nil && strings.Contains(host, "%") {
		err = errors.New("a zone means nothing outside of the host that it is of")
	}
	if err != nil {
		l.warnf("skipping a portal of target %.64q: %v", t.Name, err)
		return nil
	}
	if !t.add(Portal{Host: host, Port: port, Tag: tag}) {
		l.warnf("target %.64q has more than %d portals; skipping the rest", t.Name, maxPortals)
	}
	return nil
}

func (l *list) warnf(format string, args ...any) {
	if len(l.warnings) < maxWarnings {
		l.warnings = append(l.warnings, fmt.Sprintf(format, args...))
	}
}
