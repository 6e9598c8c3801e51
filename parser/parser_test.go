package parser

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// summary writes what was read on one line a block: nickname, then
// key=value@line:column of each value.
func summary(f *File) string {
	var lines []string
	for _, b := range f.Blocks {
		line := fmt.Sprintf("%s@%d:%d", b.Nickname, b.Pos.Line, b.Pos.Column)
		for _, e := range b.Entries {
			line += fmt.Sprintf(" %s=%s@%d:%d", e.Key, e.Value.String(), e.Value.Pos.Line, e.Value.Pos.Column)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"empty", "", ""},
		{"only white space and comments", " \t\n# a {\r\n#", ""},
		{"one", "a {\n\tb = c\n}\n", "a@1:1 b=c@2:6"},
		{"semicolons", "a { b = c; d = e; }", "a@1:1 b=c@1:9 d=e@1:16"},
		{"no white space", "a{b=c;d=e}f{}", "a@1:1 b=c@1:5 d=e@1:9\nf@1:11"},
		{"white space everywhere", "a\n{\nb\n=\nc\n;\n}", "a@1:1 b=c@5:1"},
		{"CRLF", "a {\r\n b = c\r\n}\r\n", "a@1:1 b=c@2:6"},
		{"lone CR", "a {\rb = c\r}", "a@1:1 b=c@1:9"},
		{"byte order mark", "\ufeffa { b = c }", "a@1:1 b=c@1:9"},
		{"all characters of words", "a { b = aZ09._/:[]- }", "a@1:1 b=aZ09._/:[]-@1:9"},
		{"quotes", `"a b" { c = "d # ; { } = e" }`, "a b@1:1 c=d # ; { } = e@1:13"},
		{"no escapes in quotes", `a { b = "c\" d = "\e" }`, `a@1:1 b=c\@1:9 d=\e@1:18`},
		{"other alphabets in quotes", `a { b = "ü" c = d }`, "a@1:1 b=ü@1:9 c=d@1:17"},
		{"comment after a word", "a { b = c#x\n}", "a@1:1 b=c@1:9"},
		{"comment at the end without a line break", "a { b = c } # d", "a@1:1 b=c@1:9"},
		{"anything in a comment", "# \xff\x00\"{\na { }", "a@2:1"},
		{"variables as nickname and value", "port { enable = be Enable = enable2 }", "port@1:1 enable=be@1:17 Enable=enable2@1:29"},
		{"list", "a { b = 0,3-5 , 7 c = d }", "a@1:1 b=0,3-5,7@1:9 c=d@1:23"},
		{"list in quotes", `a { b = "0, 3" }`, "a@1:1 b=0, 3@1:9"},
	} {
		f, err := Parse("x", c.src)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, summary(f)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

// TestMistakes gives files and the place, the token and the text of each of their errors.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		src  string
		want []string
	}{
		{"a", []string{"1:2 '': unexpected end of file; expected { after nickname a"}},
		{"a { b = c\n\n# d\n", []string{"1:10 '': unexpected end of file; target a of line 1 is not closed; expected }"}},
		{"a { b =", []string{"1:8 '': unexpected end of file; target a of line 1 is not closed; expected }"}},
		{"}", []string{"1:1 '}': this } closes no target"}},
		{"{ }", []string{"1:1 '{': expected the nickname of a target"}},
		{"a = b", []string{"1:3 '=': a variable stands within a target: NICKNAME { a = ... }"}},
		{"a b { }", []string{"1:3 'b': expected { after nickname a"}},
		{"a { b { c = d } }", []string{
			"1:7 '{': a target cannot stand in another; is a } missing before b?",
			"1:17 '}': this } closes no target",
		}},
		{"a { { } }", []string{"1:5 '{': expected a variable or }", "1:9 '}': this } closes no target"}},
		{"a { b = c\nd {\n e = f\n}\ng { h }", []string{
			"2:3 '{': a target cannot stand in another; is a } missing before d?",
			"5:7 '}': expected = after h",
		}},
		{"a { b c }", []string{"1:7 'c': expected = after b"}},
		{"a { b = }", []string{"1:9 '}': expected a value for b"}},
		{"a { b = ; }", []string{"1:9 ';': expected a value for b"}},
		{"a { b = = c }", []string{"1:9 '=': expected a value for b"}},
		{"a { = c }", []string{"1:5 '=': expected a variable or }"}},
		{"a { b = c = d }", []string{"1:11 '=': expected a variable, ; or }"}},
		{"a { b = c d\n e = f }", []string{"2:2 'e': expected = after d; put a value of several words in quotes"}},
		{"a { b = c\n d e = f }", []string{"2:4 'e': expected = after d"}},
		{"a { ; }", []string{"1:5 ';': a ; stands after a value only"}},
		{"a { b = c;; }", []string{"1:11 ';': at most one ; may follow a value"}},
		{"a { b = c, }", []string{"1:12 '}': expected another word after the comma"}},
		{"a { b = c,,d }", []string{"1:11 ',': expected another word after the comma"}},
		{`a { "b" = c }`, []string{`1:5 '"b"': a variable stands without quotes`}},
		{`a { b = "" }`, []string{`1:9 '"': a string cannot be empty`}},
		{"a { b = \"c\n}\nd { \" }", []string{
			`1:9 '"': a string is not closed on its line`,
			`3:5 '"': a string is not closed on its line`,
		}},
		{"a { b = @c }", []string{"1:9 '@': unexpected @; put the value in quotes"}},
		{"a { b = c@d }", []string{"1:10 '@': unexpected @; put the value in quotes"}},
		{"a { b = 50% }", []string{"1:11 '%': unexpected %; put the value in quotes"}},
		{"a { b = für }", []string{"1:10 'ü': unexpected ü; put the value in quotes"}},
		{"ü { }", []string{"1:1 'ü': unexpected ü; put the nickname in quotes"}},
		{"a@b { }", []string{"1:2 '@': unexpected @; put the nickname in quotes"}},
		{"a { @ = b }", []string{"1:5 '@': unexpected @; expected a variable or }"}},
		{"a { b\f= c }", []string{"1:6 '?': unexpected control character U+000C; is this a text file?"}},
		{"\x00\x01}\x02}", []string{"1:1 '?': unexpected control character U+0000; is this a text file?"}},
		{"a { b = \xe9 }", []string{"1:9 '?': this is not valid UTF-8; is it a text file?"}},
		{"\x1f\x8b\x08}{\n}", []string{"1:1 '?': unexpected control character U+001F; is this a text file?"}},
	} {
		_, err := Parse("x", c.src)
		var errs Errors
		if !errors.As(err, &errs) {
			t.Errorf("%q: no error", c.src)
			continue
		}
		var got []string
		for _, e := range errs {
			prefix := fmt.Sprintf("error in configuration file at line %d near ", e.Pos.Line)
			rest, found := strings.CutPrefix(e.Msg, prefix)
			if !found {
				t.Errorf("%q: %q does not begin with %q", c.src, e.Msg, prefix)
			}
			got = append(got, fmt.Sprintf("%d:%d %s", e.Pos.Line, e.Pos.Column, rest))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", c.src, diff)
		}
	}
}

// TestMessage has whole messages, with the line and the caret.
func TestMessage(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct{ name, src, want string }{
		{"tabs", "a {\n\tTargetName iqn.x\n}", `iscsi.conf:2:13: error in configuration file at line 2 near 'iqn.x': expected = after TargetName
    	TargetName iqn.x
    	           ^`},
		{"CRLF", "a {\r\n  b c\r\n}", "iscsi.conf:2:5: error in configuration file at line 2 near 'c': expected = after b\n" +
			"      b c\n" +
			"        ^"},
		{"wide", `a { ü = "ää" }`, "iscsi.conf:1:5: error in configuration file at line 1 near 'ü': unexpected ü; expected a variable or }\n" +
			"    a { ü = \"ää\" }\n" +
			"        ^"},
		{"terminal controls", "a { b = \"\x1b[2J\" c }", "iscsi.conf:1:18: error in configuration file at line 1 near '}': expected = after c; put a value of several words in quotes\n" +
			"    a { b = \"?[2J\" c }\n" +
			"                     ^"},
		{"long line", "a { b = " + long + " = " + long + " }", "iscsi.conf:1:310: error in configuration file at line 1 near '=': expected a variable, ; or }\n" +
			"    " + long[:79] + " = " + long[:38] + "\n" +
			"    " + strings.Repeat(" ", 80) + "^"},
		{"long token", "a { b " + long + "}", "iscsi.conf:1:7: error in configuration file at line 1 near '" + long[:40] + "...': expected = after b\n" +
			"    a { b " + long[:40] + "\n" +
			"          ^"},
		{"secrets", `a { chapSecret = "geheim" tgtChapSecret=geheim chapSecret = "file:/a" b }`, "iscsi.conf:1:73: error in configuration file at line 1 near '}': expected = after b; put a value of several words in quotes\n" +
			`    a { chapSecret = "******" tgtChapSecret=****** chapSecret = "file:/a" b }` + "\n" +
			"    " + strings.Repeat(" ", 72) + "^"},
		{"open secret", "a { chapSecret = \"geheim geheim\n}", "iscsi.conf:1:18: error in configuration file at line 1 near '\"': a string is not closed on its line\n" +
			"    a { chapSecret = \"*************\n" +
			"                     ^"},
	} {
		_, err := Parse("iscsi.conf", c.src)
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		if diff := cmp.Diff(c.want, err.Error()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
		if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the message has the secret:\n%v", c.name, err)
		}
	}
}

func TestGoodBlocksRemain(t *testing.T) {
	f, err := Parse("x", "a { b = c }\nd { e }\nf { g = h }")
	if err == nil {
		t.Error("no error")
	}
	if got, want := summary(f), "a@1:1 b=c@1:9\nf@3:1 g=h@3:9"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := Parse("x", strings.Repeat("a { b }\n", 1000))
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != maxErrors {
		t.Fatalf("%d errors, want %d", len(errs), maxErrors)
	}
	if !strings.HasSuffix(err.Error(), "\ntoo many errors") {
		t.Error("does not say that there are more")
	}
	var one *Error
	if !errors.As(err, &one) || one.Pos.Line != 1 {
		t.Errorf("first error: %v", one)
	}
}

func TestBounds(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"size", strings.Repeat(" ", MaxSize+1), "larger than 16 MiB"},
		{"targets", strings.Repeat("a{}", MaxTargets+1), "more than 100000 targets"},
		{"entries", "a {" + strings.Repeat("b=c\n", maxTokens/3+1), "is a } missing?"},
	} {
		_, err := Parse("x", c.src)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Parse("x", strings.Repeat(" ", MaxSize)); err != nil {
		t.Errorf("a file of the largest size: %v", err)
	}
}

func TestIsWord(t *testing.T) {
	for s, want := range map[string]bool{
		"": false, "a": true, "iqn.2012-06.com.example:x": true, "[::1]:3260": true, "/a_b": true,
		"a b": false, "a,b": false, "ü": false, "#": false, `"`: false, "a;": false, "a\n": false,
	} {
		if IsWord(s) != want {
			t.Errorf("IsWord(%q) = %v", s, !want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "a { b = c; }", "\"a\" { b = \"c d\" # e\n}", "a { b = 0,1 }", "a { b = c;; }", "a { b { } }",
		"\ufeffa{}", "a { b = \"\" }", "a {\r\n", "a{b=\xff}", "\x00", "secret=\"x", "a { chapSecret = b c }",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		file, err := Parse("x", src)
		var errs Errors
		if err != nil && !errors.As(err, &errs) {
			t.Fatalf("error of type %T", err)
		}
		for _, e := range errs {
			if e.Pos.Offset < 0 || e.Pos.Offset > len(src) || e.Pos.Line < 1 || e.Pos.Column < 1 {
				t.Errorf("position %#v", e.Pos)
			}
			if strings.Count(e.Error(), "\n") > 2 {
				t.Errorf("more than three lines: %q", e.Error())
			}
		}
		for _, b := range file.Blocks {
			for _, e := range b.Entries {
				if !strings.HasPrefix(src[e.Pos.Offset:], e.Key) {
					t.Errorf("%s is not at %v", e.Key, e.Pos)
				}
				if at := strings.TrimPrefix(src[e.Value.Pos.Offset:], `"`); !strings.HasPrefix(at, string(e.Value.Text)) {
					t.Errorf("%s is not at %v", e.Value.Text, e.Value.Pos)
				}
			}
		}
	})
}

// TestLongLine has mistakes in a line as long as a file can be: what is done
// for each must not depend on its length.
func TestLongLine(t *testing.T) {
	_, err := Parse("x", strings.Repeat("a{@}", 100)+strings.Repeat("#secret=", MaxSize/16))
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != maxErrors {
		t.Fatalf("%d errors", len(errs))
	}
	if n := len(err.Error()); n > maxErrors*500 {
		t.Errorf("%d bytes of messages", n)
	}
}
