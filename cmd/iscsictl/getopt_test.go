package main

import (
	"slices"
	"strings"
	"testing"
)

func TestGetopt(t *testing.T) {
	for _, test := range []struct{ words, want, wantErr string }{
		{"-Aa", "-A -a", ""},
		{"-Aac/x", "-A -a -c=/x", ""},
		{"-w10 -p 10.0.0.1", "-w=10 -p=10.0.0.1", ""},
		{"-Lvw10", "-L -v -w=10", ""},
		{"-w=10", "-w==10", ""},
		{"-p -A", "-p=-A", ""},
		{"-p --", "-p=--", ""},
		{"-A -- -a", "-A -- -a", ""},
		{"-A x -a", "-A x -a", ""},
		{"-", "-", ""},
		{"-Ah", "", "illegal option -- h"},
		{"--A", "", "illegal option -- -"},
		{"-Ac", "", "option requires an argument -- c"},
	} {
		got, err := getopt(strings.Fields(test.words), takesValue(flags()), func(string, string) error { return nil })
		switch {
		case test.wantErr != "":
			if err == nil || err.Error() != test.wantErr {
				t.Errorf("%s: got %v, want %s", test.words, err, test.wantErr)
			}
		case err != nil || strings.Join(got, " ") != test.want:
			t.Errorf("%s: %q, %v", test.words, got, err)
		}
	}
}

func TestTakeLong(t *testing.T) {
	for _, test := range []struct{ words, long, rest, wantErr string }{
		{"-A --socket x -p --force h", "--socket=x --force", "-A -p h", ""},
		{"--socket=x=y", "--socket=x=y", "", ""},
		{"--sysctl -v", "--sysctl=", "-v", ""},
		{"--sysctl a=b --sysctl=c --sysctl", "--sysctl=a=b --sysctl=c --sysctl=", "", ""},
		{"-A -- --force", "", "-A -- --force", ""},
		{"--unknown --A", "", "--unknown --A", ""},
		{"--secret-file", "", "", "option requires an argument -- secret-file"},
		{"--rescan=1", "", "", "option doesn't take an argument -- rescan"},
	} {
		long, rest, err := takeLong(strings.Fields(test.words), takesValue(flags()))
		switch {
		case test.wantErr != "":
			if err == nil || err.Error() != test.wantErr {
				t.Errorf("%s: got %v, want %s", test.words, err, test.wantErr)
			}
		case err != nil || strings.Join(long, " ") != test.long || strings.Join(rest, " ") != test.rest:
			t.Errorf("%s: %q, %q, %v", test.words, long, rest, err)
		}
	}
}

// FuzzParse reads any words: the command ends with options or with an error, and the
// two steps of reading agree with each other.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"-Aa", "-A\n-p\nh\n-t\nx", "--sysctl\na=b", "-Mi1\n-eoff", "--help", "--\n--force", "-p\n--socket", "-w\n", "-vLw=1", "-A\n-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words := strings.Split(s, "\n")
		var stdout, stderr strings.Builder
		c := &command{stdout: &stdout, stderr: &stderr}
		opts, err := c.parse(words)
		switch {
		case err != nil && err != errUsage && err.Error() == "":
			t.Fatal("an error without words")
		case err == nil && opts == nil && !slices.Contains(words, "--help"):
			t.Fatal("neither options nor an error")
		case strings.Contains(stderr.String(), "flag provided but not defined"), strings.Contains(stderr.String(), "parse error"):
			t.Fatal(stderr.String())
		case opts != nil:
			_ = opts.check()
		}
	})
}
