package parser

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/participle/v2/lexer"
)

// state is what the tokens before a mistake say about what was expected.
type state int

const (
	wantNickname state = iota
	wantOpen
	wantKey
	wantEquals
	wantValue
	wantItem
	wantMore // after a value
)

// context is how far a block was right.
type context struct {
	state
	nickname lexer.Token
	key      lexer.Token
	last     lexer.Token // before the mistake
	stray    bool        // the key is on the line of a value before it
}

// describe says what is wrong with token, the first wrong one of the block that
// begins at start. A fatal mistake is one of a file that is no text at all.
func describe(start *scanner, token lexer.Token) (msg string, fatal bool) {
	ctx := contextOf(start, token.Pos.Offset)
	switch {
	case token.EOF():
		return "unexpected end of file; " + ctx.unfinished(), false
	case token.Value == `"`:
		if strings.HasPrefix(start.src[token.Pos.Offset+1:], `"`) {
			return "a string cannot be empty", false
		}
		return "a string is not closed on its line", false
	case token.Type == other:
		return ctx.character(token.Value)
	}
	return ctx.unexpected(token), false
}

// contextOf follows the tokens from start, which are right up to offset.
func contextOf(start *scanner, offset int) context {
	var ctx context
	lex := *start
	for {
		token, _ := lex.Next()
		if token.EOF() || token.Pos.Offset >= offset {
			return ctx
		}
		ctx.follow(token)
	}
}

func (ctx *context) follow(token lexer.Token) {
	switch {
	case token.Type == punct:
		ctx.state = map[string]state{"{": wantKey, "=": wantValue, ",": wantItem, ";": wantKey}[token.Value]
	case ctx.state == wantNickname:
		ctx.state, ctx.nickname = wantOpen, token
	case ctx.state == wantKey, ctx.state == wantMore:
		ctx.stray = ctx.state == wantMore && ctx.last.Pos.Line == token.Pos.Line
		ctx.state, ctx.key = wantEquals, token
	default:
		ctx.state = wantMore
	}
	ctx.last = token
}

// unfinished says what is missing at the end of the file.
func (ctx *context) unfinished() string {
	if ctx.state == wantOpen || ctx.state == wantNickname {
		return ctx.expected()
	}
	return fmt.Sprintf("target %s of line %d is not closed; expected }", show(ctx.nickname.Value), ctx.nickname.Pos.Line)
}

// character explains one that is not allowed without quotes.
func (ctx *context) character(c string) (msg string, fatal bool) {
	r, size := utf8.DecodeRuneInString(c)
	switch {
	case r == utf8.RuneError && size <= 1:
		return "this is not valid UTF-8; is it a text file?", true
	case unicode.IsControl(r):
		return fmt.Sprintf("unexpected control character %U; is this a text file?", r), true
	case ctx.state >= wantValue:
		return fmt.Sprintf("unexpected %s; put the value in quotes", c), false
	case ctx.state <= wantOpen:
		return fmt.Sprintf("unexpected %s; put the nickname in quotes", c), false
	}
	return fmt.Sprintf("unexpected %s; %s", c, ctx.expected()), false
}

// unexpected explains a token that is good in another place.
func (ctx *context) unexpected(token lexer.Token) string {
	switch {
	case ctx.state == wantKey && token.Value == ";" && ctx.last.Value == ";":
		return "at most one ; may follow a value"
	case ctx.state == wantKey && token.Value == ";":
		return "a ; stands after a value only"
	case (ctx.state == wantKey || ctx.state == wantMore) && token.Type == str:
		return "a variable stands without quotes"
	case ctx.state == wantEquals && token.Value == "{":
		return fmt.Sprintf("a target cannot stand in another; is a } missing before %s?", show(ctx.key.Value))
	case ctx.state == wantEquals && ctx.stray:
		return ctx.expected() + "; put a value of several words in quotes"
	case ctx.state == wantNickname && token.Value == "}":
		return "this } closes no target"
	case ctx.state == wantOpen && token.Value == "=":
		return fmt.Sprintf("a variable stands within a target: NICKNAME { %s = ... }", show(ctx.nickname.Value))
	}
	return ctx.expected()
}

func (ctx *context) expected() string {
	switch ctx.state {
	case wantNickname:
		return "expected the nickname of a target"
	case wantOpen:
		return fmt.Sprintf("expected { after nickname %s", show(ctx.nickname.Value))
	case wantKey:
		return "expected a variable or }"
	case wantEquals:
		return "expected = after " + show(ctx.key.Value)
	case wantItem:
		return "expected another word after the comma"
	case wantValue:
		return "expected a value for " + show(ctx.key.Value)
	default:
		return "expected a variable, ; or }"
	}
}
