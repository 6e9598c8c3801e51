// Command iscsitarget is an iSCSI target for tests and demonstration. It is
// not a product: see package target.
//
// An iSER portal is one for iSER on software iWARP; it has a port of its own:
//
//	iscsitarget --portal 127.0.0.1:3260 --iser 127.0.0.1:3261 --target iqn.2012-06.com.example:disk --lun size=64m
//
// What does not fit into options goes into a file for --config, which is a
// target.Config in JSON:
//
//	{
//	  "portals": [{"address": "127.0.0.1:3260"}, {"address": "127.0.0.1:3261", "iser": true}],
//	  "targets": [{
//	    "name": "iqn.2012-06.com.example:disk",
//	    "luns": [{"lun": 0, "size": "64m", "thin": true}],
//	    "chap": {
//	      "users": [{"name": "user", "secret": "secretsecret"}],
//	      "mutual": {"name": "disk", "secret": "tersecsecret"}
//	    },
//	    "keys": {"HeaderDigest": "CRC32C", "InitialR2T": "Yes"}
//	  }],
//	  "faults": [{"pdu": "scsi-command", "command": "write", "nth": 100, "action": "drop"}]
//	}
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"iscsictl/target"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := newApp(os.Stdout, os.Stderr).RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "iscsitarget:", err)
		stop()
		os.Exit(1)
	}
}

func newApp(stdout, stderr io.Writer) *cli.App {
	t := &targets{}
	return &cli.App{
		Name:      "iscsitarget",
		Usage:     "an iSCSI target for tests and demonstration",
		UsageText: "iscsitarget [--portal ADDR:PORT[,TAG]]... [--iser ADDR:PORT[,TAG]]... --target IQN --lun OPTIONS... [--target IQN --lun OPTIONS...]...\niscsitarget --config FILE [--portal ADDR:PORT[,TAG]]... [--iser ADDR:PORT[,TAG]]...",
		Writer:    stdout, ErrWriter: stderr,
		HideHelpCommand: true, DisableSliceFlagSeparator: true,
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return err },
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "portal", Usage: "listen on `ADDR:PORT[,TAG]`; port 0 takes a free one (default: 127.0.0.1:3260)"},
			&cli.StringSliceFlag{Name: "iser", Usage: "listen on `ADDR:PORT[,TAG]` for iSER on software iWARP"},
			&cli.GenericFlag{Name: "target", Value: (*targetFlag)(t), Usage: "add a target named `IQN`"},
			&cli.GenericFlag{Name: "lun", Value: (*lunFlag)(t), Usage: "add a logical unit to the last target; `OPTIONS` are" +
				" size=64m,block=4096,file=PATH,lun=N,null,thin,ro,wce with commas"},
			&cli.StringFlag{Name: "config", Usage: "read targets, portals, CHAP and faults from `FILE` in JSON"},
			&cli.StringFlag{Name: "ready-file", Usage: "write the portals to `PATH`, one a line, those for iSER last, once they are served"},
			&cli.BoolFlag{Name: "verbose", Usage: "log every session with what was negotiated"},
		},
		Action: func(ctx *cli.Context) error { return run(ctx, t) },
	}
}

// targets are what --target and --lun have given so far.
type targets []target.Target

type targetFlag targets

func (f *targetFlag) String() string { return "" }

func (f *targetFlag) Set(name string) error {
	*f = append(*f, target.Target{Name: name})
	return nil
}

type lunFlag targets

func (f *lunFlag) String() string { return "" }

func (f *lunFlag) Set(text string) error {
	if len(*f) == 0 {
		return errors.New("--lun comes after its --target")
	}
	t := &(*f)[len(*f)-1]
	l, err := parseLUN(text, len(t.LUNs))
	if err != nil {
		return err
	}
	t.LUNs = append(t.LUNs, l)
	return nil
}

// parseLUN reads the options of a logical unit; number is its default LUN.
func parseLUN(text string, number int) (target.LUN, error) {
	l := target.LUN{Number: number}
	for _, option := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "size":
			l.Size, err = target.ParseSize(value)
		case "block":
			l.BlockSize, err = strconv.Atoi(value)
		case "lun":
			l.Number, err = strconv.Atoi(value)
		case "file":
			l.File = value
		case "null":
			l.Null = true
		case "thin":
			l.Thin = true
		case "ro":
			l.ReadOnly = true
		case "wce":
			l.WriteCache = true
		default:
			err = errors.New("not known")
		}
		if err != nil {
			return l, fmt.Errorf("option %q: %w", option, err)
		}
	}
	if l.Null && l.Size == 0 {
		l.Size = 1 << 40
	}
	return l, nil
}

func configure(ctx *cli.Context, t *targets) (target.Config, error) {
	var conf target.Config
	if path := ctx.String("config"); path != "" {
		f, err := os.Open(path)
		if err != nil {
			return conf, err
		}
		defer f.Close()
		if conf, err = target.ReadConfig(f); err != nil {
			return conf, fmt.Errorf("%s: %w", path, err)
		}
	}
	conf.Targets = append(conf.Targets, *t...)
	if len(conf.Targets) == 0 {
		return conf, errors.New("no targets; give --target and --lun, or --config (see --help)")
	}
	for _, flag := range []string{"portal", "iser"} {
		for _, text := range ctx.StringSlice(flag) {
			p, err := parsePortal(text)
			if err != nil {
				return conf, err
			}
			p.ISER = flag == "iser"
			conf.Portals = append(conf.Portals, p)
		}
	}
	if len(conf.Portals) == 0 {
		conf.Portals = []target.Portal{{Address: "127.0.0.1:3260"}}
	}
	level := slog.LevelWarn
	if ctx.Bool("verbose") {
		level = slog.LevelInfo
	}
	conf.Logger = slog.New(slog.NewTextHandler(ctx.App.ErrWriter, &slog.HandlerOptions{Level: level}))
	return conf, nil
}

func parsePortal(text string) (target.Portal, error) {
	p := target.Portal{Address: text, Tag: 1}
	if address, tag, ok := strings.Cut(text, ","); ok {
		n, err := strconv.ParseUint(tag, 10, 16)
		if err != nil {
			return p, fmt.Errorf("portal %q: the portal group tag is not 0 to 65535", text)
		}
		p = target.Portal{Address: address, Tag: int(n)}
	}
	return p, nil
}

func run(ctx *cli.Context, t *targets) error {
	if ctx.Args().Present() {
		return fmt.Errorf("argument %q is not understood", ctx.Args().First())
	}
	conf, err := configure(ctx, t)
	if err != nil {
		return err
	}
	portals, err := listen(ctx.Context, conf.Portals)
	if err != nil {
		return err
	}
	conf.Portals = nil // the listeners are listed with their real ports
	server, err := target.New(conf)
	if err != nil {
		return errors.Join(err, closeAll(portals))
	}
	defer server.Close()
	failed := make(chan error, len(portals))
	for _, p := range portals {
		go func() { failed <- p.serve(server) }()
	}
	announce(ctx.App.Writer, server, portals)
	if path := ctx.String("ready-file"); path != "" {
		if err := writeReady(path, portals); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// portal is one that is listened at.
type portal struct {
	address string
	tag     int
	iser    bool
	serve   func(*target.Server) error
	close   func() error
}

// listen opens the portals, those for iSER last.
func listen(ctx context.Context, list []target.Portal) (portals []portal, err error) {
	for _, iser := range []bool{false, true} {
		for _, conf := range list {
			if conf.ISER != iser {
				continue
			}
			p, err := listenAt(ctx, conf)
			if err != nil {
				return nil, errors.Join(err, closeAll(portals))
			}
			portals = append(portals, p)
		}
	}
	return portals, nil
}

func listenAt(ctx context.Context, conf target.Portal) (portal, error) {
	p := portal{tag: max(conf.Tag, 1), iser: conf.ISER}
	if conf.ISER {
		l, err := target.ListenISER(ctx, conf)
		if err != nil {
			return p, err
		}
		p.address, p.close = l.Addr().String(), l.Close
		p.serve = func(s *target.Server) error { return s.ServeISER(l, p.tag) }
		return p, nil
	}
	l, err := net.Listen("tcp", conf.Address)
	if err != nil {
		return p, err
	}
	p.address, p.close = l.Addr().String(), l.Close
	p.serve = func(s *target.Server) error { return s.ServePortal(l, p.tag) }
	return p, nil
}

func closeAll(portals []portal) error {
	var err error
	for _, p := range portals {
		err = errors.Join(err, p.close())
	}
	return err
}

func announce(w io.Writer, server *target.Server, portals []portal) {
	fmt.Fprintln(w, "iscsitarget: for tests and demonstration only; do not keep data here that you need")
	for _, p := range portals {
		kind := ""
		if p.iser {
			kind = " (iSER)"
		}
		fmt.Fprintf(w, "portal %s,%d%s\n", p.address, p.tag, kind)
	}
	for _, line := range server.Describe() {
		fmt.Fprintln(w, line)
	}
}

// writeReady puts the file in place whole, so that a reader sees all or
// nothing.
func writeReady(path string, portals []portal) error {
	var b strings.Builder
	for _, p := range portals {
		fmt.Fprintln(&b, p.address)
	}
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
