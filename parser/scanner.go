package parser

import (
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/participle/v2/lexer"
)

// The kinds of token. There are no keywords: a nickname or a value may be spelt
// like a variable.
const (
	word  lexer.TokenType = iota + 1
	str                   // with its quotes
	punct                 // one of { } = ; ,
	other                 // any other character, so that each mistake has a token and a place
)

// definition is the scanner as participle wants it.
type definition struct{}

func (definition) Symbols() map[string]lexer.TokenType {
	return map[string]lexer.TokenType{
		"EOF": lexer.EOF, "Word": word, "String": str, "Punct": punct, "Other": other,
	}
}

func (definition) Lex(name string, r io.Reader) (lexer.Lexer, error) {
	src, err := io.ReadAll(io.LimitReader(r, MaxSize))
	return newScanner(name, string(src)), err
}

// scanner gives the tokens of src, one after another, without white space and
// comments. It is written by hand since regular expressions take most of the
// time of reading a large file.
type scanner struct {
	src string
	pos Position // of the next character
	end Position // after the last token: where a message about the end of the file points
}

func newScanner(name, src string) *scanner {
	s := &scanner{src: src, pos: Position{Filename: name, Line: 1, Column: 1}}
	if strings.HasPrefix(src, "\ufeff") { // byte order mark, of editors on Windows
		s.pos.Offset = len("\ufeff")
	}
	s.end = s.pos
	return s
}

// atEnd skips white space and comments, and says whether nothing follows.
func (s *scanner) atEnd() bool {
	for s.pos.Offset < len(s.src) {
		switch s.src[s.pos.Offset] {
		case '\n':
			s.pos.Line++
			s.pos.Column = 0
			s.advance(1)
		case ' ', '\t', '\r':
			s.advance(1)
		case '#':
			comment, _, _ := strings.Cut(s.src[s.pos.Offset:], "\n")
			s.advance(len(comment))
		default:
			return false
		}
	}
	return true
}

// advance goes on by n bytes of the same line.
func (s *scanner) advance(n int) {
	s.pos.Column += utf8.RuneCountInString(s.src[s.pos.Offset : s.pos.Offset+n])
	s.pos.Offset += n
}

// Next returns the next token. There is no error: see other.
func (s *scanner) Next() (lexer.Token, error) {
	if s.atEnd() {
		return lexer.EOFToken(s.end), nil
	}
	kind, n := classify(s.src[s.pos.Offset:])
	token := lexer.Token{Type: kind, Value: s.src[s.pos.Offset : s.pos.Offset+n], Pos: s.pos}
	s.advance(n)
	s.end = s.pos
	return token, nil
}

// classify returns the kind and the length in bytes of the token at the start
// of src, which is not empty.
func classify(src string) (lexer.TokenType, int) {
	switch c := src[0]; {
	case wordByte(c):
		n := 1
		for n < len(src) && wordByte(src[n]) {
			n++
		}
		return word, n
	case strings.IndexByte("{}=;,", c) >= 0:
		return punct, 1
	case c == '"':
		if n := strings.IndexAny(src[1:], "\"\n"); n > 0 && src[1+n] == '"' {
			return str, n + 2
		}
		return other, 1
	default:
		_, n := utf8.DecodeRuneInString(src)
		return other, n
	}
}

// IsWord says whether s can stand in a file without quotes.
func IsWord(s string) bool {
	for i := range len(s) {
		if !wordByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func wordByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("._/:[]-", c) >= 0
}

// blockScanner ends after the first closing brace, so that participle is given
// one block at a time: that bounds its memory, and lets reading go on after a
// block with a mistake.
type blockScanner struct {
	*scanner
	tokens int
	closed bool
}

func (b *blockScanner) Next() (lexer.Token, error) {
	if b.closed {
		return lexer.EOFToken(b.end), nil
	}
	if b.tokens++; b.tokens > maxTokens {
		return lexer.Token{}, errTooLong
	}
	token, err := b.scanner.Next()
	b.closed = token.Type == punct && token.Value == "}"
	return token, err
}

var errTooLong = errors.New("this target has too many entries; is a } missing?")
