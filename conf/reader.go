package conf

import (
	"errors"
	"fmt"
	"strings"

	"iscsictl/parser"
)

// reader makes sessions of what the parser read.
type reader struct {
	file          *File
	syntax        *parser.File
	errs          parser.Errors
	initiatorName string            // the default
	secrets       map[string]string // by path
	doubted       map[string]bool   // warnings that need no second showing
}

func (f *File) parse(data []byte) error {
	r := &reader{file: f, secrets: map[string]string{}, doubted: map[string]bool{}, initiatorName: DefaultInitiatorName()}
	syntax, err := parser.Parse(f.Path, string(data))
	r.syntax = syntax
	errors.As(err, &r.errs)
	sessions := make([]Session, 0, len(syntax.Blocks))
	nicknames := make(map[string]bool, len(syntax.Blocks))
	for _, block := range syntax.Blocks {
		if r.errs.Full() {
			break
		}
		nickname := strings.ToLower(string(block.Nickname))
		if nicknames[nickname] {
			r.errs.Add(syntax.Errorf(block.Pos, "duplicated target %s", block.Nickname))
		}
		nicknames[nickname] = true
		sessions = append(sessions, r.session(block))
	}
	if err := r.errs.Err(); err != nil {
		return err
	}
	f.Sessions = sessions
	return nil
}

// session makes one session, and notes what is wrong with it.
func (r *reader) session(block *parser.Block) Session {
	s := newSession(r.initiatorName)
	s.Nickname = string(block.Nickname)
	seen := make(map[string]*parser.Entry, len(block.Entries))
	good := true
	for _, entry := range block.Entries {
		if err := r.entry(&s, seen, entry); err != nil {
			r.errs.Add(err)
			good = false
		}
	}
	if seen["authmethod"] == nil && (s.User != "" || s.Secret != "" || s.MutualUser != "" || s.MutualSecret != "") {
		s.AuthMethod = AuthCHAP
	}
	r.verify(&s, block, seen, good)
	return s
}

// entry sets what one entry says.
func (r *reader) entry(s *Session, seen map[string]*parser.Entry, entry *parser.Entry) *parser.Error {
	name := strings.ToLower(entry.Key)
	k := keys[name]
	if k == nil {
		return r.syntax.Near(entry.Pos, entry.Key, unknown(entry.Key))
	}
	if more := entry.Value.More; len(more) > 0 && !k.list {
		return r.syntax.Near(more[0].Pos, ",", "unexpected ,; put the value in quotes")
	}
	if seen[name] != nil {
		return r.syntax.Errorf(entry.Pos, "duplicated %s at line %d", k.spoken, entry.Pos.Line)
	}
	value, pos := entry.Value.String(), entry.Value.Pos
	err := k.set(r, s, value)
	var wrongChoice choiceError
	switch {
	case err == nil:
		seen[name] = entry
	case errors.Is(err, errObsolete):
		r.warn(entry.Pos, fmt.Sprintf("obsolete statement ignored at line %d", entry.Pos.Line))
	case errors.As(err, &wrongChoice):
		seen[name] = entry
		return r.syntax.Errorf(pos, "invalid %s at line %d; %s", k.spoken, pos.Line, wrongChoice)
	default:
		seen[name] = entry
		return r.syntax.Near(pos, value, err.Error())
	}
	return nil
}

func unknown(name string) string {
	if meant := nearest(name); meant != "" {
		return fmt.Sprintf("unknown variable; did you mean %s?", meant)
	}
	return "unknown variable"
}

// verify makes the checks that follow parsing. Of a session with bad entries,
// what is missing may just be misspelt: then only what is there is checked.
func (r *reader) verify(s *Session, block *parser.Block, seen map[string]*parser.Entry, good bool) {
	for _, f := range s.faults() {
		if entry := seen[f.key]; entry != nil {
			r.errs.Add(r.syntax.Errorf(entry.Value.Pos, "%v", f.err))
		} else if good {
			r.errs.Add(r.syntax.Errorf(block.Pos, "%v", f.err))
		}
	}
	if !good || len(r.errs) > 0 {
		return
	}
	for _, doubt := range s.doubts() {
		text := doubt.err.Error()
		switch entry := seen[doubt.key]; {
		case entry != nil:
			r.warn(entry.Value.Pos, text)
		case !r.doubted[text]: // the default initiator name's
			r.doubted[text] = true
			r.file.Warnings = append(r.file.Warnings, text)
		}
	}
}

func (r *reader) warn(pos parser.Position, text string) {
	r.file.Warnings = append(r.file.Warnings, fmt.Sprintf("%s: %s", pos, text))
}
