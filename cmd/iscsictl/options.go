package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"iscsictl/conf"
	"iscsictl/control"
)

// The long options.
const (
	optSecretFile = "secret-file"
	optDiscover   = "discover"
	optRescan     = "rescan"
	optSysctl     = "sysctl"
	optImport     = "import-open-iscsi"
	optForce      = "force"
	optDevice     = "device"
	optSocket     = "socket"
	optVersion    = "version"
	optHelp       = "help"
)

// flags is the table of all options: FreeBSD's letters in the order of its getopt
// string, then ours.
func flags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "A"},
		&cli.BoolFlag{Name: "M"},
		&cli.BoolFlag{Name: "R"},
		&cli.BoolFlag{Name: "L"},
		&cli.BoolFlag{Name: "a"},
		&cli.StringFlag{Name: "c", Value: conf.DefaultPath},
		&cli.StringFlag{Name: "d"},
		&cli.StringFlag{Name: "e"},
		&cli.StringFlag{Name: "i"},
		&cli.StringFlag{Name: "n"},
		&cli.StringFlag{Name: "p"},
		&cli.BoolFlag{Name: "r"},
		&cli.StringFlag{Name: "t"},
		&cli.StringFlag{Name: "u"},
		&cli.StringFlag{Name: "s"},
		&cli.BoolFlag{Name: "v"},
		&cli.StringFlag{Name: "w"},
		&cli.StringFlag{Name: optSecretFile},
		&cli.StringFlag{Name: optDiscover},
		&cli.BoolFlag{Name: optRescan},
		&cli.StringSliceFlag{Name: optSysctl},
		&cli.StringFlag{Name: optImport},
		&cli.BoolFlag{Name: optForce},
		&cli.StringFlag{Name: optDevice},
		&cli.StringFlag{Name: optSocket, Value: control.DefaultSocket},
		&cli.BoolFlag{Name: optVersion},
		&cli.BoolFlag{Name: optHelp},
	}
}

// action is what the command is to do.
type action string

const (
	actAdd      action = "-A"
	actModify   action = "-M"
	actRemove   action = "-R"
	actList     action = "-L"
	actDiscover action = "--" + optDiscover
	actRescan   action = "--" + optRescan
	actSysctl   action = "--" + optSysctl
	actImport   action = "--" + optImport
)

// options is the command line, read. Pointers are nil where the option was not given.
type options struct {
	given   map[string]bool
	actions []action // all that were given
	action  action   // the one

	all, verbose, iser, force, version bool
	conf, socket                       string

	discoveryHost, discover        string
	importDir                      string // "": the usual ones
	nickname, portal, target, user *string
	device                         *string
	secret, secretFile             *string
	enable                         *bool
	session                        *uint32
	wait                           *time.Duration // 0: for ever
	tunables                       []string       // NAME, NAME=VALUE, or "" for all
}

// parse reads the command line. It returns nil where help was asked for, and given.
func (c *command) parse(words []string) (*options, error) {
	takes := takesValue(flags())
	long, words, err := takeLong(words, takes)
	if err != nil {
		return nil, c.usageError(err)
	}
	short, err := getopt(words, takes, checkValue)
	var bad complaint
	switch {
	case errors.As(err, &bad):
		return nil, c.usageError(bad)
	case err != nil:
		return nil, err
	}
	var opts *options
	operands := 0
	app := &cli.App{
		Name:                      "iscsictl",
		Flags:                     flags(),
		HideHelp:                  true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		Writer:                    io.Discard,
		ErrWriter:                 io.Discard,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return err },
		Action: func(ctx *cli.Context) error {
			operands = ctx.NArg()
			opts = read(ctx)
			return nil
		},
	}
	if err := app.Run(append(append([]string{"iscsictl"}, long...), short...)); err != nil {
		return nil, c.usageError(err)
	}
	switch {
	case opts == nil: // package cli does not act where it sees --help
		_, err := fmt.Fprint(c.stdout, usage, help)
		return nil, err
	case operands != 0:
		return nil, c.usageError(nil)
	}
	return opts, nil
}

// read takes what package cli has read.
func read(ctx *cli.Context) *options {
	o := &options{
		given:         map[string]bool{},
		all:           ctx.Bool("a"),
		verbose:       ctx.Bool("v"),
		iser:          ctx.Bool("r"),
		force:         ctx.Bool(optForce),
		version:       ctx.Bool(optVersion),
		conf:          ctx.String("c"),
		socket:        ctx.String(optSocket),
		discoveryHost: ctx.String("d"),
		discover:      ctx.String(optDiscover),
		importDir:     ctx.String(optImport),
		tunables:      ctx.StringSlice(optSysctl),
	}
	for _, f := range flags() {
		name := f.Names()[0]
		o.given[name] = ctx.IsSet(name)
	}
	text := func(name string) *string {
		if !o.given[name] {
			return nil
		}
		value := ctx.String(name)
		return &value
	}
	o.nickname, o.portal, o.target = text("n"), text("p"), text("t")
	o.device = text(optDevice)
	o.user, o.secret, o.secretFile = text("u"), text("s"), text(optSecretFile)
	// The values were checked when they were met.
	if o.given["e"] {
		on, _ := conf.ParseEnable(ctx.String("e"))
		o.enable = &on
	}
	if o.given["i"] {
		id, _ := sessionID(ctx.String("i"))
		o.session = &id
	}
	if o.given["w"] {
		wait, _ := timeout(ctx.String("w"))
		o.wait = &wait
	}
	for name, act := range map[string]action{
		"A": actAdd, "M": actModify, "R": actRemove, "L": actList,
		optDiscover: actDiscover, optRescan: actRescan, optSysctl: actSysctl,
		optImport: actImport,
	} {
		if o.given[name] {
			o.actions = append(o.actions, act)
		}
	}
	o.action = actList
	if len(o.actions) > 0 {
		o.action = o.actions[0]
	}
	return o
}

// checkValue judges the values that FreeBSD judges while it reads the options.
func checkValue(opt, value string) error {
	switch opt {
	case "e":
		if _, ok := conf.ParseEnable(value); !ok {
			return errors.New(`invalid argument to -e, must be either "on" or "off"`)
		}
	case "i":
		_, err := sessionID(value)
		return err
	case "w":
		_, err := timeout(value)
		return err
	}
	return nil
}

func sessionID(value string) (uint32, error) {
	n, whole := strtol(value)
	switch {
	case !whole:
		return 0, errors.New("trailing characters after session-id")
	case n < 0:
		return 0, errors.New("session-id cannot be negative")
	case n > math.MaxUint32:
		return 0, fmt.Errorf("session-id cannot be greater than %d", uint32(math.MaxUint32))
	}
	return uint32(n), nil
}

// maxTimeout is as good as for ever, and fits a time.Duration.
const maxTimeout = math.MaxInt32

func timeout(value string) (time.Duration, error) {
	n, whole := strtol(value)
	switch {
	case !whole:
		return 0, errors.New("trailing characters after timeout")
	case n < 0:
		return 0, errors.New("timeout cannot be negative")
	}
	return time.Duration(min(n, maxTimeout)) * time.Second, nil
}

// strtol reads a decimal number as strtol(3) does: blanks and a sign before it,
// and the nearest number where it is out of range. It reports whether that was all;
// the empty string, which strtol takes for 0, is not a number here: a variable that
// is not set is not to wait for ever.
func strtol(s string) (n int64, whole bool) {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil || errors.Is(err, strconv.ErrRange)
}
