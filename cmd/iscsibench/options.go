package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"iscsictl/conf"
	"iscsictl/transport/offload"
)

// Long options that messages name.
const (
	optBlock       = "block"
	optDepth       = "depth"
	optMode        = "rw"
	optTime        = "time"
	optSessions    = "sessions"
	optLUNs        = "luns"
	optRate        = "rate"
	optUser        = "user"
	optSecret      = "secret-file"
	optMutualUser  = "mutual-user"
	optMutual      = "mutual-secret-file"
	optDestroyData = "destroy-data"
	optCPUProfile  = "cpuprofile"
	optISER        = "iser"
	optOffload     = "offload"
	optSpin        = "spin"
)

// Bounds of what may be asked for.
const (
	maxBlock    = 16 << 20 // bytes
	maxDepth    = 4096     // kern.iscsi.maxtags
	maxSessions = 64
	maxMemory   = 4 << 30 // bytes of data under way in one session
	maxLUNs     = 256
	maxRate     = 10_000_000 // requests in a second
)

// mode is what kind of requests are made.
type mode string

// The modes, in fio's words.
const (
	randRead  mode = "randread"
	randWrite mode = "randwrite"
	seqRead   mode = "read"
	seqWrite  mode = "write"
	mixed     mode = "mixed" // random, mixedReads of a hundred are reads
)

const mixedReads = 70

func (m mode) valid() bool {
	return m == seqRead || m == seqWrite || m.random()
}

func (m mode) random() bool { return m == randRead || m == randWrite || m == mixed }

func (m mode) writes() bool { return m == randWrite || m == seqWrite || m == mixed }

// options is the command line, read and checked.
type options struct {
	target     conf.Session
	luns       []uint64 // none: the first disk
	block      int      // bytes
	depth      int      // requests outstanding in each session
	mode       mode
	time       time.Duration
	sessions   int
	spin       int     // microseconds
	rate       float64 // requests a second of all sessions together; 0: as many as can be
	json       bool
	cpuProfile string
}

func flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "portal", Aliases: []string{"p"}, Usage: "connect to `HOST[:PORT]`"},
		&cli.StringFlag{Name: "target", Aliases: []string{"t"}, Usage: "log in to the target of this `NAME`"},
		&cli.StringFlag{Name: optLUNs, Aliases: []string{"l"}, Usage: "measure these logical units, `LUN,...`, together (default: the first disk)"},
		&cli.StringFlag{Name: optBlock, Value: "4k", Usage: "`SIZE` of a request in bytes, or with k or m"},
		&cli.IntFlag{Name: optDepth, Value: 32, Usage: "keep `N` requests outstanding in each session"},
		&cli.StringFlag{Name: optMode, Value: string(randRead), Usage: "`MODE`: randread, randwrite, read, write, or mixed (random, 70 % reads)"},
		&cli.DurationFlag{Name: optTime, Value: 5 * time.Second, Usage: "measure for this `TIME`"},
		&cli.IntFlag{Name: optSessions, Value: 1, Usage: "use `N` sessions at once"},
		&cli.Float64Flag{Name: optRate, Usage: "send `N` requests a second, and count latency from when each was due (default: as many as can be)"},
		&cli.BoolFlag{Name: "digests", Usage: "offer CRC32C digests of headers and data, and accept no less"},
		&cli.BoolFlag{Name: optISER, Usage: "connect by iSER (iser(4))"},
		&cli.StringFlag{Name: optOffload, Usage: "with --iser, use `DRIVER` alone: verbs or iwarp (default: as iser(4) says)"},
		&cli.IntFlag{Name: optSpin, Usage: "with --iser, look `N` microseconds for completions of an RDMA device before sleeping, as kern.iser.spin has iscsid do"},
		&cli.StringFlag{Name: "initiator", Usage: "log in by this `NAME` (default: as iscsi.conf(5) says)"},
		&cli.StringFlag{Name: optUser, Usage: "authenticate with CHAP as `NAME`"},
		&cli.StringFlag{Name: optSecret, Usage: "read the CHAP secret from `FILE`"},
		&cli.StringFlag{Name: optMutualUser, Usage: "let the target authenticate as `NAME` in turn"},
		&cli.StringFlag{Name: optMutual, Usage: "read the target's secret from `FILE`"},
		&cli.BoolFlag{Name: optDestroyData, Usage: "permit modes that write; what is on the logical units will be LOST"},
		&cli.BoolFlag{Name: "json", Usage: "report in JSON"},
		&cli.StringFlag{Name: optCPUProfile, Usage: "write a profile for go tool pprof to `FILE`"},
	}
}

// readOptions checks the command line.
func readOptions(c *cli.Context) (*options, error) {
	if c.Args().Present() {
		return nil, fmt.Errorf("no operand is expected, not %q (see --help)", c.Args().First())
	}
	o := &options{
		depth: c.Int(optDepth), mode: mode(c.String(optMode)), time: c.Duration(optTime),
		sessions: c.Int(optSessions), spin: c.Int(optSpin), rate: c.Float64(optRate),
		json: c.Bool("json"), cpuProfile: c.String(optCPUProfile),
	}
	var err error
	if o.block, err = parseSize(c.String(optBlock)); err != nil {
		return nil, fmt.Errorf("--%s: %w", optBlock, err)
	}
	if c.IsSet(optLUNs) {
		if o.luns, err = parseLUNs(c.String(optLUNs)); err != nil {
			return nil, fmt.Errorf("--%s: %w", optLUNs, err)
		}
	}
	if err := o.check(c.Bool(optDestroyData)); err != nil {
		return nil, err
	}
	if o.target, err = readTarget(c); err != nil {
		return nil, err
	}
	if c.IsSet(optSpin) && !o.target.ISER {
		return nil, fmt.Errorf("--%s is for --%s", optSpin, optISER)
	}
	return o, nil
}

// check says which numbers cannot be.
func (o *options) check(destroy bool) error {
	switch {
	case !o.mode.valid():
		return fmt.Errorf("--%s %s: not one of randread, randwrite, read, write, mixed", optMode, o.mode)
	case o.depth < 1 || o.depth > maxDepth:
		return fmt.Errorf("--%s %d: not 1 to %d", optDepth, o.depth, maxDepth)
	case o.sessions < 1 || o.sessions > maxSessions:
		return fmt.Errorf("--%s %d: not 1 to %d", optSessions, o.sessions, maxSessions)
	case int64(o.depth)*int64(o.block) > maxMemory/2:
		return fmt.Errorf("--%s %d requests of %d bytes are over %d bytes together", optDepth, o.depth, o.block, maxMemory/2)
	case o.time <= 0:
		return fmt.Errorf("--%s %v: not a time to measure for", optTime, o.time)
	case math.IsNaN(o.rate) || o.rate < 0 || o.rate > maxRate:
		return fmt.Errorf("--%s %v: not 0 to %d", optRate, o.rate, maxRate)
	case o.mode.writes() && !destroy:
		return fmt.Errorf("--%s %s overwrites what is on the logical unit; if nothing there is needed, say --%s", optMode, o.mode, optDestroyData)
	}
	return nil
}

// readTarget reads what is about the session.
func readTarget(c *cli.Context) (conf.Session, error) {
	t := conf.NewSession()
	t.TargetAddress, t.TargetName = c.String("portal"), c.String("target")
	if t.TargetAddress == "" || t.TargetName == "" {
		return t, errors.New("a portal (-p) and a target (-t) are needed; iscsictl --discover PORTAL lists targets")
	}
	if name := c.String("initiator"); name != "" {
		t.InitiatorName = name
	}
	t.HeaderDigest, t.DataDigest = c.Bool("digests"), c.Bool("digests")
	t.ISER, t.Offload = c.Bool(optISER), c.String(optOffload)
	if t.ISER && t.DataDigest {
		return t, errors.New("--digests is not for --iser, which has none")
	}
	err := offload.Check(t.Offload, t.ISER)
	if err != nil {
		return t, fmt.Errorf("--%s: %w", optOffload, err)
	}
	if t.User = c.String(optUser); t.User != "" {
		t.AuthMethod = conf.AuthCHAP
	}
	if t.Secret, err = readSecret(c, optUser, optSecret); err != nil {
		return t, err
	}
	t.MutualUser = c.String(optMutualUser)
	if t.MutualSecret, err = readSecret(c, optMutualUser, optMutual); err != nil {
		return t, err
	}
	return t, t.Validate()
}

// readSecret reads the file of a secret, which goes with a name.
func readSecret(c *cli.Context, user, file string) (string, error) {
	switch {
	case c.String(user) == "" && c.String(file) == "":
		return "", nil
	case c.String(user) == "" || c.String(file) == "":
		return "", fmt.Errorf("--%s and --%s go together", user, file)
	}
	secret, warning, err := conf.ReadSecretFile(c.String(file))
	if warning != "" {
		fmt.Fprintln(c.App.ErrWriter, "iscsibench:", warning)
	}
	return secret, err
}

// parseSize reads a number of bytes, such as 4096, 128k or 1m.
func parseSize(s string) (int, error) {
	digits, unit := s, 1
	if n := len(s); n > 0 {
		switch s[n-1] {
		case 'k', 'K':
			digits, unit = s[:n-1], 1<<10
		case 'm', 'M':
			digits, unit = s[:n-1], 1<<20
		}
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || n == 0 || n*uint64(unit) > maxBlock {
		return 0, fmt.Errorf("%q is not a size of up to %dm, such as 512, 4k or 1m", s, maxBlock>>20)
	}
	return int(n) * unit, nil
}

// parseLUNs reads numbers separated by commas.
func parseLUNs(s string) ([]uint64, error) {
	var luns []uint64
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not the number of a logical unit", part)
		}
		luns = append(luns, n)
		if len(luns) > maxLUNs {
			return nil, fmt.Errorf("more than %d logical units", maxLUNs)
		}
	}
	return luns, nil
}
