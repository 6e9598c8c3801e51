// Command iscsibench measures an iSCSI target and the path to it: it logs in
// with the session layer of iscsid, in its own process and without a block
// device, keeps a number of reads or writes outstanding on a logical unit, and
// says what came back how fast, and what that cost this machine.
//
// Two kinds of load are made. Without --rate a request is sent when another has
// ended, which finds the highest rate. With --rate requests are due at fixed
// times, and their latency counts from when they were due, so that a target that
// stalls cannot hide it by stalling the load.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// version is set when the program is linked.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, os.Interrupt)
	err := newApp(os.Stdout, os.Stderr).RunContext(ctx, os.Args)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "iscsibench:", err)
		os.Exit(1)
	}
}

func newApp(stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:      "iscsibench",
		Usage:     "measure an iSCSI target and the path to it",
		UsageText: "iscsibench -p PORTAL -t TARGET [-l LUN,...] [options]",
		Version:   version,
		Writer:    stdout, ErrWriter: stderr,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return err },
		Flags:           flags(),
		Action: func(c *cli.Context) error {
			if c.NumFlags() == 0 && !c.Args().Present() {
				return cli.ShowAppHelp(c)
			}
			o, err := readOptions(c)
			if err != nil {
				return err
			}
			return run(c.Context, o, stdout, stderr)
		},
	}
}

// run connects, measures and reports.
func run(ctx context.Context, o *options, stdout, stderr io.Writer) (err error) {
	b := &bench{o: o, log: newLog(stderr), failed: make(chan struct{}, 1)}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.connect(ctx); err != nil {
		return err
	}
	if o.cpuProfile != "" {
		f, err := os.Create(o.cpuProfile)
		if err != nil {
			return fmt.Errorf("--%s: %w", optCPUProfile, err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("--%s: %w", optCPUProfile, err)
		}
		defer pprof.StopCPUProfile()
	}
	result, err := b.measure(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return result.writeJSON(stdout)
	}
	return result.writeText(stdout)
}

// measure runs the load on all sessions at once, until the time is up, the
// context ends or one of them fails. It returns what was done until then.
func (b *bench) measure(ctx context.Context) (*report, error) {
	before, start := takeUsage(), time.Now()
	for _, l := range b.loads {
		l.start(start)
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ctx.Done():
		case <-b.failed:
		case <-ended:
			return
		}
		for _, l := range b.loads {
			l.stop()
		}
	}()
	var failed error
	for _, l := range b.loads {
		<-l.ended
		if failed == nil {
			failed = l.failure()
		}
	}
	elapsed, used := time.Since(start), takeUsage().since(before)
	if failed != nil {
		return nil, failed
	}
	return b.report(elapsed, used), nil
}
