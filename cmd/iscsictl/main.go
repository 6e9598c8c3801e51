// Command iscsictl is iscsictl(8): it adds, modifies, removes and lists the iSCSI
// sessions of iscsid(8), with the options, messages and output of FreeBSD's.
//
// What FreeBSD has is said with single letters, read as getopt(3) reads them;
// everything that this program has beyond it is a long option.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"iscsictl/cmd/iscsictl/xo"
	"iscsictl/control"
)

// version is the program's own; the build sets it.
var version = "devel"

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

// run is the program: it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	words, format, err := xo.TakeArgs(args[1:])
	if err != nil {
		complain(stderr, err)
		return 1
	}
	if format.Check {
		return xo.StatusCheck
	}
	c := &command{stdout: stdout, stderr: stderr, out: xo.New(stdout, format)}
	if file, ok := stderr.(*os.File); ok {
		c.terminal = term.IsTerminal(int(file.Fd()))
	}
	c.out.Open("iscsictl")
	status := 0
	if err := c.main(words); err != nil {
		complain(stderr, err)
		status = 1
	}
	if c.failed {
		status = 1
	}
	if c.client != nil {
		c.client.Close()
	}
	// The document ends even where the command failed, so that it can be parsed.
	if err := c.out.Finish(); err != nil {
		complain(stderr, fmt.Errorf("stdout: %w", err))
		status = 1
	}
	return status
}

// command is one run of the program.
type command struct {
	stdout   io.Writer
	stderr   io.Writer
	terminal bool // standard error is one
	out      *xo.Writer
	client   *control.Client
	failed   bool // something that did not keep the rest from being done
}

// errUsage is an error that was reported already.
var errUsage = errors.New("")

// complain writes a message as err(3) does, prefixed with the program's name.
func complain(w io.Writer, err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		switch {
		case line == "":
		case strings.HasPrefix(line, " "): // goes on with the line before
			fmt.Fprintln(w, printable(line))
		default:
			fmt.Fprintln(w, "iscsictl: "+printable(line))
		}
	}
}

// warn reports what does not end the command.
func (c *command) warn(err error) { complain(c.stderr, err) }

// fail reports what has not worked, where the command goes on.
func (c *command) fail(err error) {
	c.failed = true
	c.warn(err)
}

// main reads the options and does what they say.
func (c *command) main(words []string) error {
	opts, err := c.parse(words)
	switch {
	case err != nil:
		return err
	case opts == nil: // --help
		return nil
	case opts.version:
		_, err := fmt.Fprintln(c.stdout, "iscsictl "+version)
		return err
	}
	if err := opts.check(); err != nil {
		return err
	}
	if opts.action == actImport { // needs no daemon
		return c.importRecords(opts)
	}
	if c.client, err = connect(opts.socket); err != nil {
		return err
	}
	if err := c.act(opts); err != nil {
		return err
	}
	if opts.wait != nil {
		return c.waitFor(opts)
	}
	return nil
}

// act does what is asked for.
func (c *command) act(opts *options) error {
	switch opts.action {
	case actAdd:
		return c.add(opts)
	case actModify:
		return c.modify(opts)
	case actRemove:
		return c.remove(opts)
	case actDiscover:
		return c.discover(opts)
	case actRescan:
		return c.rescan(opts)
	case actSysctl:
		return c.sysctl(opts)
	default:
		return c.list(opts)
	}
}
