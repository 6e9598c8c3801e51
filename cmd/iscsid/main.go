// Command iscsid is the iSCSI daemon: it serves iscsictl on a unix socket,
// keeps the sessions that it is told of, and shows their disks to the host.
// See iscsid(8).
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
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/control"
	"iscsictl/daemon"
	"iscsictl/device"
	"iscsictl/device/loop"
	"iscsictl/device/nbd"
	"iscsictl/device/ublk"
)

// version is set when the program is linked.
var version = "dev"

// stopTimeout bounds the time from the signal to the end.
const stopTimeout = 15 * time.Second

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "iscsid: %v\n", err)
		return 1
	}
	if o == nil { // --help or --version has answered
		return 0
	}
	confine()
	var parent *parent
	switch {
	case detached():
		parent = waiting()
	case !o.foreground:
		if err := startDetached(args); err != nil {
			fmt.Fprintf(stderr, "iscsid: %v\n", err)
			return 1
		}
		return 0
	}
	if err := serve(o, parent, stderr); err != nil {
		if parent != nil {
			parent.failed(err)
		} else {
			fmt.Fprintf(stderr, "iscsid: %v\n", err)
		}
		return 1
	}
	return 0
}

// serve is the daemon's life, from the pid file to the end.
func serve(o *options, parent *parent, stderr io.Writer) (err error) {
	manager := newNotifier()
	pid, err := openPIDFile(o.pidFile)
	if err != nil {
		return err
	}
	defer pid.remove()
	log, err := openLog(o, stderr)
	if err != nil {
		return err
	}
	if err := conceal(); err != nil {
		log.Warn(fmt.Sprintf("a core dump would have secrets in it: %v", err))
	}
	protect(log)
	listener, err := listen(o)
	if err != nil {
		return err
	}
	if err := pid.write(); err != nil {
		listener.Close()
		return err
	}
	d := daemon.New(daemon.Config{
		Version: version, DevDir: "/dev", RunDir: o.runDir, StateDir: o.stateDir, Pinned: o.pinned, Discard: o.discard,
		Backends: backends(o, log), Device: o.device, Tunables: o.tunables,
		MaxAttempts: o.maxAttempts, AttemptTimeout: o.attemptTimeout, Log: log,
	})
	d.Clean()
	if err := d.Restore(); err != nil {
		listener.Close()
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	served := make(chan error, 1)
	go func() { served <- control.Serve(ctx, listener, d) }()
	log.Info(fmt.Sprintf("iscsid %s is ready at %s", version, o.socket))
	if parent != nil {
		if err := os.Chdir("/"); err != nil {
			log.Warn(err.Error())
		}
		parent.ready()
	}
	manager.tell("READY=1")
	if manager != nil {
		go attend(context.Background(), manager.tell, manager.watchdog, func() string { return d.Health().String() })
	}
	keep, err := wait(log, signals, served, d.GoingDown)
	manager.tell("STOPPING=1")
	cancel()
	listener.Close()
	if keep { // all is in the state, and the next daemon goes on
		d.Leave()
		return err
	}
	stop, ended := context.WithTimeout(context.Background(), stopTimeout)
	defer ended()
	d.Stop(stop)
	log.Info("stopped")
	return err
}

// wait returns when the daemon is to stop; keep says that sessions and disks are
// to go on as after a crash: with the daemon that is started next. It calls
// goingDown when it hears that the host shuts down.
func wait(log *slog.Logger, signals <-chan os.Signal, served <-chan error, goingDown func()) (keep bool, err error) {
	for {
		select {
		case s := <-signals:
			switch s {
			case unix.SIGHUP:
				log.Info("SIGHUP ignored: iscsictl hands over the configuration")
				continue
			case unix.SIGUSR2:
				log.Info("the host shuts down: nothing waits long for a target that is away")
				goingDown()
				continue
			case unix.SIGUSR1:
				log.Info("restarting: sessions and disks wait for the next iscsid")
				return true, nil
			}
			log.Info(fmt.Sprintf("%v: logging out of all sessions", s))
			return false, nil
		case err := <-served:
			if err == nil {
				err = errors.New("the control socket was closed")
			}
			log.Error(err.Error())
			return false, err
		}
	}
}

// listen opens the control socket.
func listen(o *options) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(o.socket), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return control.Listen(o.socket)
}

// backends are the ways to show a disk, the preferred first.
func backends(o *options, log *slog.Logger) []device.Backend {
	return []device.Backend{
		ublk.New(ublk.Options{Shape: o.tunables.DeviceShape, Log: log}),
		nbd.NewKernel(log),
		loop.New(filepath.Join(o.runDir, "loop"), log),
		nbd.NewSocket(filepath.Join(o.runDir, "nbd"), 0o600, -1),
	}
}
