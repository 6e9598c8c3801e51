package xo

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Style is a form of output.
type Style uint8

// The styles that there are.
const (
	Text Style = iota
	JSON
	XML
	HTML
)

// Options is how to write, as libxo's options say (xo_options(7)).
type Options struct {
	Style  Style
	Pretty bool // line breaks and indentation
	Indent int  // blanks of a level; 0: two
	Check  bool // just tell that there are such options
}

func (o Options) step() int {
	if o.Indent == 0 {
		return 2
	}
	return o.Indent
}

// StatusCheck is the exit status that tells of Options.Check.
const StatusCheck = 121

// TakeArgs takes libxo's options out of the words of a command line, wherever they
// stand: --libxo=OPTIONS, --libxo OPTIONS, --libxo:LETTERS.
func TakeArgs(args []string) (rest []string, o Options, err error) {
	for i := 0; i < len(args); i++ {
		value, ours := strings.CutPrefix(args[i], "--libxo")
		switch {
		case !ours:
			rest = append(rest, args[i])
			continue
		case value == "" && i+1 == len(args):
			return nil, o, errors.New("missing libxo option")
		case value == "":
			i++
			err = o.Set(args[i])
		case value[0] == '=':
			err = o.Set(value[1:])
		case value[0] == ':':
			err = o.Set(value)
		case value == "-check":
			o.Check = true
		default:
			err = fmt.Errorf("unknown libxo option: '%s'", args[i])
		}
		if err != nil {
			return nil, o, err
		}
	}
	return rest, o, nil
}

// maxIndent keeps lines at a length that can be read.
const maxIndent = 32

// Set reads options: words separated by commas, or a colon and letters.
func (o *Options) Set(value string) error {
	if letters, ok := strings.CutPrefix(value, ":"); ok {
		return o.setLetters(letters)
	}
	for word := range strings.SplitSeq(value, ",") {
		if word == "" {
			continue
		}
		if err := o.setWord(word); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) setWord(word string) error {
	name, value := word, ""
	if i := strings.IndexAny(word, "=:"); i >= 0 {
		name, value = word[:i], word[i+1:]
	}
	switch name {
	case "text":
		o.Style = Text
	case "json":
		o.Style = JSON
	case "xml":
		o.Style = XML
	case "html":
		o.Style = HTML
	case "pretty":
		o.Pretty = true
	case "indent":
		if value == "" {
			return errors.New("missing value for indent option")
		}
		return o.setIndent(value)
	case "color", "color-force", "colors", "columns", "debug", "dtrt", "filter-warn", "flush",
		"flush-line", "ignore-close", "info", "keys", "log-gettext", "log-syslog", "no-color",
		"no-humanize", "no-locale", "no-retain", "retain", "underscores", "units", "utf8", "warn",
		"warn-xml", "xpath":
		// Of no consequence for what is written here.
	default:
		return fmt.Errorf("unknown libxo option value: '%s'", name)
	}
	return nil
}

func (o *Options) setIndent(digits string) error {
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > maxIndent {
		return fmt.Errorf("invalid value for indent option: '%s'", digits)
	}
	o.Indent = n
	return nil
}

func (o *Options) setLetters(letters string) error {
	for i := 0; i < len(letters); i++ {
		switch letters[i] {
		case 'H':
			o.Style = HTML
		case 'J':
			o.Style = JSON
		case 'T':
			o.Style = Text
		case 'X':
			o.Style = XML
		case 'P':
			o.Pretty = true
		case 'i':
			digits := letters[i+1:]
			digits = digits[:len(digits)-len(strings.TrimLeft(digits, "0123456789"))]
			if digits == "" {
				continue
			}
			if err := o.setIndent(digits); err != nil {
				return err
			}
			i += len(digits)
		case 'c', 'f', 'F', 'g', 'I', 'k', 'n', 'U', 'u', 'W', 'x':
			// Of no consequence for what is written here.
		default:
			return fmt.Errorf("unknown option: '%s'", letters[i:])
		}
	}
	return nil
}
