package parser

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxErrors = 20   // are collected; more are no help
	maxShown  = 40   // characters of a token in a message
	maxLine   = 120  // characters of a source line in a message
	maxNear   = 4096 // bytes before and after a mistake that are looked at for it
)

// Error is a mistake in a file.
type Error struct {
	Pos   Position
	Msg   string
	Line  string // the line of the file, made printable, shortened where long; empty: not known
	Caret string // what stands below Line
}

// Error returns "file:line:column: message", and below it the line of the file
// with a caret under the mistake.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %s", e.Pos, e.Msg)
	if e.Line != "" {
		s += "\n    " + e.Line + "\n    " + e.Caret
	}
	return s
}

// Errors are the mistakes of a file, at most 20 of them.
type Errors []*Error

// Error returns all of them, each on lines of its own.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	if e.Full() {
		lines = append(lines, "too many errors")
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the first.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// Add adds one, while there is room.
func (e *Errors) Add(err *Error) {
	if !e.Full() {
		*e = append(*e, err)
	}
}

// Full says that there is no room for more.
func (e Errors) Full() bool { return len(e) >= maxErrors }

// Err returns the errors in the order of the file, or nil where there are none.
func (e Errors) Err() error {
	if len(e) == 0 {
		return nil
	}
	slices.SortStableFunc(e, func(a, b *Error) int { return a.Pos.Offset - b.Pos.Offset })
	return e
}

// Errorf returns an error at a place of the file.
func (f *File) Errorf(pos Position, format string, args ...any) *Error {
	line, caret := f.excerpt(pos)
	return &Error{Pos: pos, Msg: fmt.Sprintf(format, args...), Line: line, Caret: caret}
}

// Near returns an error in the words that FreeBSD has for mistakes of syntax.
func (f *File) Near(pos Position, token, msg string) *Error {
	return f.Errorf(pos, "error in configuration file at line %d near '%s': %s", pos.Line, show(token), msg)
}

// excerpt returns the line of pos and what stands below it.
func (f *File) excerpt(pos Position) (line, caret string) {
	if pos.Offset > len(f.Source) {
		return "", ""
	}
	// Of a line without end, no more is looked at than a secret can be long.
	start := max(0, pos.Offset-maxNear)
	start += strings.LastIndexByte(f.Source[start:pos.Offset], '\n') + 1
	whole, _, _ := strings.Cut(f.Source[start:min(len(f.Source), pos.Offset+maxNear)], "\n")
	whole = maskSecrets(whole)
	before, after := whole[:pos.Offset-start], whole[pos.Offset-start:]
	left, right := printable(lastRunes(before, maxLine*2/3)), printable(strings.TrimRight(firstRunes(after, maxLine/3), " \t\r"))
	caret = strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, left) + "^"
	return left + right, caret
}

// secret matches a variable that is called a secret, and its value: a string,
// also one that is not closed, or what stands there without quotes.
var secret = regexp.MustCompile(`(?i)(secret[ \t]*=[ \t]*)("[^"]*|[^ \t\r;#}"]+)`)

// maskSecrets replaces each byte of the secrets in a line with a star, since
// messages end up in logs. It keeps all places, and the names of secret files.
func maskSecrets(line string) string {
	masked := []byte(line)
	for _, at := range secret.FindAllStringSubmatchIndex(line, -1) {
		if strings.HasPrefix(strings.TrimPrefix(line[at[4]:at[5]], `"`), "file:/") {
			continue
		}
		for i := at[4]; i < at[5]; i++ {
			if masked[i] != '"' {
				masked[i] = '*'
			}
		}
	}
	return string(masked)
}

// show returns a token as it can stand in a message: short, on one line, and
// without characters that a terminal would obey.
func show(token string) string {
	if short := firstRunes(token, maxShown); short != token {
		return printable(short) + "..."
	}
	return printable(token)
}

// printable replaces what is not to be printed, but tabs.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s, "?"))
}

func firstRunes(s string, n int) string {
	i := 0
	for ; n > 0 && i < len(s); n-- {
		_, size := utf8.DecodeRuneInString(s[i:])
		i += size
	}
	return s[:i]
}

func lastRunes(s string, n int) string {
	i := len(s)
	for ; n > 0 && i > 0; n-- {
		_, size := utf8.DecodeLastRuneInString(s[:i])
		i -= size
	}
	return s[i:]
}
