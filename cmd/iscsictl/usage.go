package main

import (
	"fmt"
	"strings"
	"unicode"
)

// usage is what FreeBSD prints, in ten lines, and where to find the rest.
const usage = `usage: iscsictl -A -p portal -t target [-u user -s secret] [-w timeout] [-e on | off]
       iscsictl -A -d discovery-host [-u user -s secret] [-e on | off]
       iscsictl -A -a [-c path]
       iscsictl -A -n nickname [-c path]
       iscsictl -M -i session-id [-p portal] [-t target] [-u user] [-s secret] [-e on | off]
       iscsictl -M -i session-id -n nickname [-c path]
       iscsictl -R [-p portal] [-t target]
       iscsictl -R -a
       iscsictl -R -n nickname [-c path]
       iscsictl -L [-v] [-w timeout]
`

// help is what --help adds to the usage.
const help = `
Sessions:
  -A  add            -M  modify         -R  remove         -L  list (the default)
  -a  all            -n  the entry of that nickname in iscsi.conf(5)
  -c  configuration file (default /etc/iscsi.conf)
  -p  portal: host, host:port, [IPv6]:port       -t  target's iSCSI name
  -d  portal to ask for its targets              -i  session id, as -L -v shows it
  -u  CHAP user      -s  CHAP secret (other users can see it in the process
                         list: prefer --secret-file, or the file's chapSecret)
  -r  iSER           -e  on or off: enabled or not
  -w  wait up to so many seconds until all enabled sessions are connected; 0: for ever
  -v  list all there is to know

Beyond FreeBSD's:
  --secret-file PATH       read the CHAP secret from a file, in place of -s
  --discover PORTAL        ask a portal for its targets and print entries for
                           iscsi.conf(5); adds nothing [-u user -s secret] [-r]
  --rescan                 look for new and changed disks, of one session with -i
  --sysctl [NAME[=VALUE]]  show or set tunables of iscsid(8); may be repeated
  --import-open-iscsi [DIR]
                           print entries for iscsi.conf(5) from the records of
                           open-iscsi in DIR (default /etc/iscsi and /var/lib/iscsi)
  --force                  with -R: also where a disk is in use
  --device NAME            with -R: a device that an iscsid which died has left, and
                           that is of no session, as iscsid's log tells
  --socket PATH            iscsid's control socket (default /run/iscsid/control.sock)
  --libxo=FORMAT           text, json, xml or html, and ",pretty"
  --version, --help
`

// usageError prints a complaint, where there is one, and the usage.
func (c *command) usageError(complaint error) error {
	if complaint != nil {
		complain(c.stderr, complaint)
	}
	fmt.Fprint(c.stderr, usage)
	return errUsage
}

// printable replaces what a terminal would act on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
