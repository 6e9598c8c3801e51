package xo

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// document writes one of everything, with s wherever a string can be.
func document(opt Options, s string) string {
	var b strings.Builder
	w := New(&b, opt)
	w.Open("top")
	w.Label("%-10s", "A label:")
	w.String("text", "%-5s", s)
	w.Text("\n\n")
	w.OpenList("item")
	for _, n := range []uint64{1, 1<<64 - 1} {
		w.OpenInstance("item")
		w.Title("%s", s)
		w.Uint("number", n)
		w.Hidden("hidden", s)
		w.Text(": " + s)
		w.Close()
	}
	w.Close()
	w.OpenList("none")
	w.Close()
	w.Open("empty")
	w.Close()
	w.Hidden("last", -1)
	_ = w.Finish()
	return b.String()
}

func TestDocument(t *testing.T) {
	for _, test := range []struct {
		opt  Options
		want string
	}{
		{Options{}, "A label:  s    \n\ns1: ss18446744073709551615: s"},
		{Options{Style: JSON}, `{"top": {"text":"s", "item": [{"number":1,"hidden":"s"}, ` +
			`{"number":18446744073709551615,"hidden":"s"}], "none": [], "empty": {},"last":-1}}` + "\n"},
		{Options{Style: XML}, `<top><text>s</text><item><number>1</number><hidden>s</hidden></item>` +
			`<item><number>18446744073709551615</number><hidden>s</hidden></item><empty></empty><last>-1</last></top>`},
		{Options{Style: HTML}, `<div class="line"><div class="label">A label:  </div>` +
			`<div class="data" data-tag="text">s    </div></div><div class="line"></div>` +
			`<div class="line"><div class="title">s</div><div class="data" data-tag="number">1</div><div class="text">: s</div>` +
			`<div class="title">s</div><div class="data" data-tag="number">18446744073709551615</div><div class="text">: s</div></div>`},
		{Options{Style: JSON, Pretty: true, Indent: 1}, `{
 "top": {
  "text": "s",
  "item": [
   {
    "number": 1,
    "hidden": "s"
   },
   {
    "number": 18446744073709551615,
    "hidden": "s"
   }
  ],
  "none": [
  ],
  "empty": {

  },
  "last": -1
 }
}
`},
	} {
		if got := document(test.opt, "s"); got != test.want {
			t.Errorf("%+v:\n%s\nwant\n%s", test.opt, got, test.want)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		args, rest, wantErr string
		want                Options
	}{
		{"-L", "-L", "", Options{}},
		{"-L --libxo json -v", "-L -v", "", Options{Style: JSON}},
		{"--libxo=xml,pretty,warn,indent=3", "", "", Options{Style: XML, Pretty: true, Indent: 3}},
		{"--libxo:HPi4W", "", "", Options{Style: HTML, Pretty: true, Indent: 4}},
		{"--libxo=:JP", "", "", Options{Style: JSON, Pretty: true}},
		{"--libxo= --libxo=colors=red", "", "", Options{}},
		{"--libxo:i", "", "", Options{}},
		{"--libxo-check", "", "", Options{Check: true}},
		{"-p --libxo", "", "missing libxo option", Options{}},
		{"--libxo=pretty,tables", "", "unknown libxo option value: 'tables'", Options{}},
		{"--libxox", "", "unknown libxo option: '--libxox'", Options{}},
		{"--libxo:PY", "", "unknown option: 'Y'", Options{}},
		{"--libxo=indent", "", "missing value for indent option", Options{}},
		{"--libxo=indent=999999999", "", "invalid value for indent option: '999999999'", Options{}},
		{"--libxo:i99999999999999999999", "", "invalid value for indent option: '99999999999999999999'", Options{}},
	} {
		rest, got, err := TakeArgs(strings.Fields(test.args))
		if test.wantErr != "" {
			if err == nil || err.Error() != test.wantErr {
				t.Errorf("%s: got %v, want %s", test.args, err, test.wantErr)
			}
			continue
		}
		if err != nil || got != test.want || strings.Join(rest, " ") != test.rest {
			t.Errorf("%s: %q, %+v, %v", test.args, rest, got, err)
		}
	}
}

// TestWriteErrorsAreReported since a listing that is cut off is not one.
func TestWriteErrorsAreReported(t *testing.T) {
	w := New(broken{}, Options{Style: JSON})
	w.Open("top")
	if err := w.Finish(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("Finish: %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// FuzzDocument wants JSON and XML that can be read, and no form that acts on a
// terminal, whatever the strings.
func FuzzDocument(f *testing.F) {
	for _, s := range []string{"", "a\x00b", "\xff", "]]>", "\u2028\u202e\ufffe", "\U000e0001", "\\\"", "</text>", "\x1b[2J\u009b"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, pretty bool) {
		var fields struct {
			Top struct{ Text string }
		}
		text := document(Options{Style: JSON, Pretty: pretty}, s)
		if err := json.Unmarshal([]byte(text), &fields); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); fields.Top.Text != want && strings.ToValidUTF8(s, "") == s {
			t.Fatalf("got %q, want %q", fields.Top.Text, want)
		}
		for style := Text; style <= HTML; style++ {
			all := document(Options{Style: style, Pretty: pretty}, s)
			if strings.ContainsAny(all, "\x00\x07\x1b\u009b\u202e") {
				t.Fatalf("style %d: %q", style, all)
			}
		}
		d := xml.NewDecoder(strings.NewReader(document(Options{Style: XML, Pretty: pretty}, s)))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}
