package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"iscsictl/conf"
)

// options are what the command line says.
type options struct {
	foreground     bool
	pidFile        string
	logLevel       int
	maxAttempts    int
	attemptTimeout time.Duration
	runDir         string
	stateDir       string
	pinned         map[string]bool // tunables that were given
	socket         string
	device         string // "": the best there is
	discard        []string
	tunables       *conf.Tunables
}

// Where things are by default.
const (
	defaultRunDir   = "/run/iscsid"
	defaultStateDir = "/var/lib/iscsid"
)

const usage = "usage: iscsid [-P pidfile] [-d] [-m maxproc] [-t seconds] [-l loglevel] [-o name=value] [--socket path] [--run directory] [--state directory]\n"

// parse reads the command line. It returns nil where the answer was given
// already (--help, --version).
func parse(args []string, stdout, stderr io.Writer) (*options, error) {
	o := &options{tunables: conf.NewTunables(), pinned: map[string]bool{}}
	var done bool
	cli.HelpFlag = nil // ours prints the usage, and is answered in Action
	app := &cli.App{
		Name: "iscsid", HideHelp: true, HideVersion: true, Writer: stdout, ErrWriter: stderr,
		UseShortOptionHandling: true,
		OnUsageError:           func(_ *cli.Context, err error, _ bool) error { return misused(err) },
		ExitErrHandler:         func(*cli.Context, error) {},
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "P", Value: "/var/run/iscsid.pid"},
			&cli.BoolFlag{Name: "d"},
			&cli.StringFlag{Name: "l", Value: "0"},
			&cli.StringFlag{Name: "m", Value: "30"},
			&cli.StringFlag{Name: "t", Value: "60"},
			&cli.StringSliceFlag{Name: "o"},
			&cli.StringFlag{Name: "socket"},
			&cli.StringFlag{Name: "run", Value: defaultRunDir},
			&cli.StringFlag{Name: "state"},
			&cli.BoolFlag{Name: "version"},
			&cli.BoolFlag{Name: "help"},
		},
		Action: func(c *cli.Context) error {
			switch {
			case c.Bool("help"):
				fmt.Fprint(stdout, usage)
				done = true
				return nil
			case c.Bool("version"):
				fmt.Fprintln(stdout, "iscsid", version)
				done = true
				return nil
			case c.Args().Present():
				return fmt.Errorf("no operand is expected, not %q\n%s", c.Args().First(), strings.TrimSuffix(usage, "\n"))
			}
			return o.take(c)
		},
	}
	if err := app.Run(words(args)); err != nil {
		return nil, err
	}
	if done {
		return nil, nil
	}
	return o, nil
}

// misused words an error of package cli as getopt(3) does, with the usage.
func misused(err error) error {
	text := err.Error()
	if option, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		text = "illegal option -- " + option
	} else if option, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		text = "option requires an argument -- " + option
	}
	return fmt.Errorf("%s\n%s", text, strings.TrimSuffix(usage, "\n"))
}

// words separates option letters from attached arguments, as getopt(3) does:
// -P/run/x becomes -P /run/x, and -dP/run/x becomes -d -P /run/x.
func words(args []string) []string {
	out := args[:min(1, len(args))]
	out = append([]string(nil), out...)
	for i := 1; i < len(args); i++ {
		word := args[i]
		if len(word) < 2 || word[0] != '-' || strings.HasPrefix(word, "--") {
			return append(out, longs(args[i:])...)
		}
		for letters := word[1:]; letters != ""; {
			letter := letters[:1]
			letters = letters[1:]
			out = append(out, "-"+letter)
			if !strings.Contains("Plmto", letter) {
				continue
			}
			if letters != "" {
				out = append(out, letters)
			} else if i+1 < len(args) {
				i++
				out = append(out, args[i])
			}
			break
		}
	}
	return out
}

// longs handles what follows a long option, which takes one argument at most.
func longs(args []string) []string {
	if args[0] == "--" || !strings.HasPrefix(args[0], "--") {
		return args
	}
	n := 1
	if (args[0] == "--socket" || args[0] == "--run" || args[0] == "--state") && len(args) > 1 {
		n = 2
	}
	return append(append([]string(nil), args[:n]...), words(append([]string{""}, args[n:]...))[1:]...)
}

// take checks the values.
func (o *options) take(c *cli.Context) (err error) {
	o.foreground = c.Bool("d")
	o.pidFile = c.String("P")
	o.runDir = c.String("run")
	if o.stateDir = c.String("state"); o.stateDir == "" {
		o.stateDir = defaultStateDir
		if o.runDir != defaultRunDir { // a daemon of its own has a state of its own
			o.stateDir = filepath.Join(o.runDir, "state")
		}
	}
	if o.socket = c.String("socket"); o.socket == "" {
		o.socket = filepath.Join(o.runDir, "control.sock")
	}
	// The daemon leaves the directory that it was started in.
	for _, path := range []*string{&o.pidFile, &o.runDir, &o.stateDir, &o.socket} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if o.logLevel, err = number("-l", c.String("l")); err != nil {
		return err
	}
	if o.maxAttempts, err = number("-m", c.String("m")); err != nil {
		return err
	}
	seconds, err := number("-t", c.String("t"))
	if err != nil {
		return err
	}
	o.attemptTimeout = time.Duration(seconds) * time.Second
	for _, setting := range c.StringSlice("o") {
		name, value, ok := strings.Cut(setting, "=")
		switch {
		case !ok:
			return fmt.Errorf("-o %s: want NAME=VALUE", setting)
		case name == "device":
			if o.device, err = conf.ParseDevice(value); err != nil {
				return fmt.Errorf("-o %s: %w", setting, err)
			}
		case name == "discard":
			o.discard = append(o.discard, value)
		default:
			if err := o.tunables.Set(name, value); err != nil {
				return fmt.Errorf("-o %s: %w", setting, err)
			}
			o.pinned[name] = true
		}
	}
	return nil
}

const maxNumber = 1 << 20

func number(option, value string) (int, error) {
	n, err := strconv.Atoi(value)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && n > maxNumber:
		return 0, fmt.Errorf("%s %s: greater than %d", option, value, maxNumber)
	case err != nil:
		return 0, fmt.Errorf("%s %s: not a number", option, value)
	case n < 0:
		return 0, fmt.Errorf("%s %s: cannot be negative", option, value)
	}
	return n, nil
}
