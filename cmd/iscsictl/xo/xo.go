// Package xo writes one sequence of titles, labels and values as plain text, JSON,
// XML or HTML, in the shapes that libxo(3) gives to the output of FreeBSD's
// commands: what people read is laid out by formats, what programs read is named
// and nested.
//
// Text and HTML have titles, labels, text and values, line by line; JSON and XML
// have the names and values, in containers and lists.
package xo

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Writer writes one document. Errors of the writer below are kept and returned by
// Flush and Finish.
type Writer struct {
	out   *bufio.Writer
	opt   Options
	stack []frame
	begun bool // JSON: the outermost brace is written
	line  bool // HTML: the division of a line is open
}

// frame is a container, a list, or an instance of a list.
type frame struct {
	name    string
	kind    kind
	members bool // has some already
}

type kind uint8

const (
	container kind = iota
	list
	instance
)

// JSON's brackets.
var (
	opening = [...]string{container: "{", list: "[", instance: "{"}
	closing = [...]string{container: "}", list: "]", instance: "}"}
)

// New returns a writer.
func New(w io.Writer, opt Options) *Writer {
	return &Writer{out: bufio.NewWriter(w), opt: opt}
}

// Open begins a container: an object with a name.
func (w *Writer) Open(name string) { w.open(name, container) }

// OpenList begins a list: what is in it are instances.
func (w *Writer) OpenList(name string) { w.open(name, list) }

// OpenInstance begins an instance of the list that is open.
func (w *Writer) OpenInstance(name string) { w.open(name, instance) }

func (w *Writer) open(name string, k kind) {
	switch w.opt.Style {
	case JSON:
		w.begin()
		w.separate(", ")
		w.indent(1)
		if k != instance {
			w.put(quote(name) + ": ")
		}
		w.put(opening[k])
		w.newline()
	case XML:
		if k != list {
			w.indent(0)
			w.put("<" + name + ">")
			w.newline()
		}
	}
	w.stack = append(w.stack, frame{name: name, kind: k})
}

// Close ends what was opened last.
func (w *Writer) Close() {
	if len(w.stack) == 0 {
		return
	}
	top := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	switch w.opt.Style {
	case JSON:
		if top.kind != list || top.members {
			w.newline()
		}
		w.indent(1)
		w.put(closing[top.kind])
	case XML:
		if top.kind != list {
			w.indent(0)
			w.put("</" + top.name + ">")
			w.newline()
		}
	}
}

// Title writes a column's title, laid out by a format for one string.
func (w *Writer) Title(format, s string) { w.shown("title", "", format, s) }

// Label writes the name of what follows for people, laid out likewise.
func (w *Writer) Label(format, s string) { w.shown("label", "", format, s) }

// Text writes text for people. A line feed ends the line.
func (w *Writer) Text(s string) {
	for {
		line, rest, ended := strings.Cut(s, "\n")
		if line != "" {
			w.shown("text", "", "%s", line)
		}
		if !ended {
			return
		}
		w.endLine()
		s = rest
	}
}

// String writes a value that is a string. The format is for people only.
func (w *Writer) String(name, format, value string) {
	w.shown("data", name, format, value)
	w.member(name, func() string { return quote(value) }, value)
}

// Uint writes a value that is a number.
func (w *Writer) Uint(name string, value uint64) {
	digits := strconv.FormatUint(value, 10)
	w.shown("data", name, "%s", digits)
	w.member(name, func() string { return digits }, digits)
}

// Hidden writes a value, a string or an integer, that people are not shown.
func (w *Writer) Hidden(name string, value any) {
	text := fmt.Sprint(value)
	encode := func() string { return text }
	if _, isString := value.(string); isString {
		encode = func() string { return quote(text) }
	}
	w.member(name, encode, text)
}

// Flush writes out what there is so far.
func (w *Writer) Flush() error { return w.out.Flush() }

// Finish closes all that is open and writes it out.
func (w *Writer) Finish() error {
	for len(w.stack) > 0 {
		w.Close()
	}
	if w.opt.Style == JSON {
		w.begin()
		w.newline()
		w.put("}\n")
	}
	if w.line {
		w.endLine()
	}
	return w.out.Flush()
}

// shown writes what people see.
func (w *Writer) shown(class, tag, format, s string) {
	switch w.opt.Style {
	case Text:
		w.put(fmt.Sprintf(format, printable(s)))
	case HTML:
		if !w.line {
			w.line = true
			w.put(`<div class="line">`)
			w.newline()
		}
		if w.opt.Pretty {
			w.put(strings.Repeat(" ", w.opt.step()))
		}
		w.put(`<div class="` + class + `"`)
		if tag != "" {
			w.put(` data-tag="` + tag + `"`)
		}
		w.put(">" + markup(fmt.Sprintf(format, s)) + "</div>")
		w.newline()
	}
}

func (w *Writer) endLine() {
	switch w.opt.Style {
	case Text:
		w.put("\n")
	case HTML:
		if !w.line {
			w.put(`<div class="line">`)
			w.newline()
		}
		w.line = false
		w.put("</div>")
		w.newline()
	}
}

// member writes what programs read.
func (w *Writer) member(name string, json func() string, value string) {
	switch w.opt.Style {
	case JSON:
		w.begin()
		w.separate(",")
		w.indent(1)
		colon := ":"
		if w.opt.Pretty {
			colon = ": "
		}
		w.put(quote(name) + colon + json())
	case XML:
		w.indent(0)
		w.put("<" + name + ">" + markup(value) + "</" + name + ">")
		w.newline()
	}
}

// begin writes JSON's outermost brace, once.
func (w *Writer) begin() {
	if !w.begun {
		w.begun = true
		w.put("{")
		w.newline()
	}
}

// separate writes the comma between the members of one object or list.
func (w *Writer) separate(comma string) {
	if len(w.stack) == 0 {
		return
	}
	top := &w.stack[len(w.stack)-1]
	switch {
	case !top.members:
		top.members = true
	case w.opt.Pretty:
		w.put(",\n")
	default:
		w.put(comma)
	}
}

func (w *Writer) newline() {
	if w.opt.Pretty {
		w.put("\n")
	}
}

// indent begins a line. JSON's outermost brace is a level that is not on the stack,
// and XML's lists are levels that it has not.
func (w *Writer) indent(more int) {
	if !w.opt.Pretty {
		return
	}
	depth := len(w.stack) + more
	if w.opt.Style == XML {
		depth = w.elements()
	}
	w.put(strings.Repeat(" ", depth*w.opt.step()))
}

// elements counts the elements of XML that are open.
func (w *Writer) elements() int {
	n := 0
	for _, f := range w.stack {
		if f.kind != list {
			n++
		}
	}
	return n
}

func (w *Writer) put(s string) { _, _ = w.out.WriteString(s) }
