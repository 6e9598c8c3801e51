// Package parser reads the grammar of iscsi.conf(5):
//
//	nickname {            # comment to the end of the line
//	    variable = value
//	    variable = value;
//	}
//
// It knows places and good messages, but neither what variables there are nor
// what their values mean: that is package conf's.
//
// A word is made of ASCII letters, digits and "._/:[]-"; anything else but a
// quote or a line break stands in double quotes, in which there are no escapes.
// A value may be a list of words separated by commas, which conf allows for some
// variables only.
package parser

import (
	"errors"
	"strings"

	"github.com/alecthomas/participle/v2"
	"github.com/alecthomas/participle/v2/lexer"
)

// Bounds of what is read, so that a wrong file cannot take all memory.
const (
	MaxSize    = 16 << 20 // bytes of a file
	MaxTargets = 100_000  // blocks of a file
	maxTokens  = 20_000   // tokens of a block
)

// Position is a place in a file: lines and columns (in characters) count from
// 1, Offset is in bytes from 0.
type Position = lexer.Position

// File is what was read of one file.
type File struct {
	Name   string
	Source string
	Blocks []*Block
}

// Block is one target of the file.
type Block struct {
	Pos      Position
	Nickname Text     `parser:"@(Word | String) '{'"`
	Entries  []*Entry `parser:"@@* '}'"`
}

// Entry is one "variable = value". Pos is the variable's.
type Entry struct {
	Pos   Position
	Key   string `parser:"@Word '='"`
	Value Value  `parser:"@@ ';'?"`
}

// Value is what stands right of the equals sign: a word or a string, or several
// of them with commas between.
type Value struct {
	Pos  Position
	Text Text
	More []Item // the rest of a list
}

// Item is a further word of a list. Pos is the place of the comma before it.
type Item struct {
	Pos  Position
	Text Text
}

// Parse is called by participle. It is written by hand, not for participle to
// derive, since that takes a fifth off the time of reading a large file.
func (v *Value) Parse(lex *lexer.PeekingLexer) error {
	token := lex.Peek()
	if token.Type != word && token.Type != str {
		return participle.NextMatch
	}
	v.Pos, v.Text = token.Pos, unquote(token.Value)
	for lex.Next(); lex.Peek().Value == ","; lex.Next() {
		comma := lex.Next()
		token = lex.Peek()
		if token.Type != word && token.Type != str {
			return &participle.UnexpectedTokenError{Unexpected: *token}
		}
		v.More = append(v.More, Item{Pos: comma.Pos, Text: unquote(token.Value)})
	}
	return nil
}

// String returns the value as it would be written in quotes, without them.
func (v *Value) String() string {
	if len(v.More) == 0 {
		return string(v.Text)
	}
	var b strings.Builder
	b.WriteString(string(v.Text))
	for _, item := range v.More {
		b.WriteByte(',')
		b.WriteString(string(item.Text))
	}
	return b.String()
}

// Text is a word, or a string without its quotes.
type Text string

// Capture is called by participle with the token that was matched.
func (t *Text) Capture(tokens []string) error {
	*t = unquote(tokens[0])
	return nil
}

func unquote(token string) Text { return Text(strings.Trim(token, `"`)) }

// Lookahead 0 makes participle blame the token that is wrong, and not the first
// one of the entry that it is in.
var grammar = participle.MustBuild[Block](
	participle.Lexer(definition{}),
	participle.UseLookahead(0),
)

// Parse reads src, the text of the file called name. An error is of type
// Errors; the file then has those targets that have no syntax error.
func Parse(name, src string) (*File, error) {
	file := &File{Name: name, Source: src}
	var errs Errors
	if len(src) > MaxSize {
		errs.Add(&Error{Pos: Position{Filename: name, Line: 1, Column: 1}, Msg: "the file is larger than 16 MiB"})
		return file, errs.Err()
	}
	lex := newScanner(name, src)
	for !errs.Full() && !lex.atEnd() {
		if len(file.Blocks) == MaxTargets {
			errs.Add(file.Near(lex.pos, "", "more than 100000 targets"))
			break
		}
		start := *lex
		block, err := parseBlock(lex)
		if err != nil {
			bad, fatal := file.explain(&start, err)
			errs.Add(bad)
			if fatal {
				break
			}
			continue
		}
		file.Blocks = append(file.Blocks, block)
	}
	return file, errs.Err()
}

// parseBlock reads one block, up to its closing brace. It leaves lex after the
// next closing brace even where there is a mistake before it, from where the
// next block can be read.
func parseBlock(lex *scanner) (*Block, error) {
	peek, err := lexer.Upgrade(&blockScanner{scanner: lex})
	if err != nil {
		return nil, err
	}
	return grammar.ParseFromLexer(peek)
}

// explain turns an error of parseBlock, which began at start, into ours. A fatal
// one makes it pointless to read on.
func (f *File) explain(start *scanner, err error) (bad *Error, fatal bool) {
	var unexpected *participle.UnexpectedTokenError
	if !errors.As(err, &unexpected) {
		return f.Near(start.pos, "", err.Error()), true
	}
	token := unexpected.Unexpected
	msg, fatal := describe(start, token)
	return f.Near(token.Pos, token.Value, msg), fatal
}
