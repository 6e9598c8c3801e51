package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// Command lines are read in two steps: the functions here split them as getopt(3)
// does, which package cli cannot (-w10, -Aac/etc/iscsi.conf); package cli then
// reads words of one option each. Both know the options from the same table.

// takesValue tells of each option, by its name, whether an argument goes with it.
func takesValue(flags []cli.Flag) map[string]bool {
	takes := map[string]bool{}
	for _, f := range flags {
		takes[f.Names()[0]] = f.(cli.DocGenerationFlag).TakesValue()
	}
	return takes
}

// takeLong takes the long options out of the words, wherever they stand before a
// "--", and returns them with their arguments attached. An unknown one stays, for
// getopt to complain of.
func takeLong(words []string, takes map[string]bool) (long, rest []string, err error) {
	for i := 0; i < len(words); i++ {
		if words[i] == "--" {
			return long, append(rest, words[i:]...), nil
		}
		body, isLong := strings.CutPrefix(words[i], "--")
		name, value, attached := strings.Cut(body, "=")
		takesOne, known := takes[name]
		switch {
		case !isLong || !known || len(name) < 2:
			rest = append(rest, words[i])
			continue
		case !takesOne && attached:
			return nil, nil, fmt.Errorf("option doesn't take an argument -- %s", name)
		case !takesOne:
			long = append(long, "--"+name)
			continue
		case attached:
		case i+1 < len(words) && (!optional(name) || !strings.HasPrefix(words[i+1], "-")):
			i++
			value = words[i]
		case !optional(name):
			return nil, nil, fmt.Errorf("option requires an argument -- %s", name)
		}
		long = append(long, "--"+name+"="+value)
	}
	return long, rest, nil
}

// optional tells whether an option's argument may be left out.
func optional(name string) bool { return name == optSysctl || name == optImport }

// getopt splits words as getopt(3) does: -Aac/x becomes -A -a -c=/x. What follows
// the options is returned as it is. Each value is checked when it is met.
func getopt(words []string, takes map[string]bool, check func(opt, value string) error) (out []string, err error) {
	for i := 0; i < len(words); i++ {
		word := words[i]
		if len(word) < 2 || word[0] != '-' || word == "--" {
			return append(out, words[i:]...), nil
		}
		for word = word[1:]; word != ""; {
			opt, rest := word[:1], word[1:]
			takesOne, known := takes[opt]
			switch {
			case !known:
				return nil, complaint("illegal option -- " + opt)
			case !takesOne:
				out, word = append(out, "-"+opt), rest
				continue
			case rest == "" && i+1 == len(words):
				return nil, complaint("option requires an argument -- " + opt)
			case rest == "":
				i++
				rest = words[i]
			}
			if err := check(opt, rest); err != nil {
				return nil, err
			}
			out, word = append(out, "-"+opt+"="+rest), ""
		}
	}
	return out, nil
}

// complaint is an error that the usage follows.
type complaint string

func (c complaint) Error() string { return string(c) }
