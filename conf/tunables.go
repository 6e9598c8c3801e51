package conf

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Tunable describes a value of iscsi(4) or iser(4) that can be set at start and
// at run time, as with sysctl(8).
type Tunable struct {
	Name              string
	Default, Min, Max int64
	Unit              string // "" where it is a count or a level
	Description       string
	powerOfTwo        bool
}

const (
	tunISERDebug = iota
	tunISERSpin
	tunArenaSize
	tunCommandTimeout
	tunDebug
	tunDeviceDepth
	tunDeviceQueues
	tunFailOnDisconnection
	tunFailOnShutdown
	tunISCSIDTimeout
	tunLoginTimeout
	tunMaxTags
	tunPingTimeout
	tunRecoveryTimeout
	tunCount
)

var tunables = [tunCount]Tunable{
	tunISERDebug:           {"kern.iser.debug", 0, 0, 100, "", "messages of iser(4): 0 errors, 1 warnings, 2 info, 3 and more debug", false},
	tunISERSpin:            {"kern.iser.spin", 0, 0, 1000, "microseconds", "to look for completions of an RDMA device before sleeping", false},
	tunArenaSize:           {"kern.iscsi.arena_size", 64 << 20, 4 << 20, 4 << 30, "bytes", "memory for the data of one session's requests; of sessions added later", true},
	tunCommandTimeout:      {"kern.iscsi.command_timeout", 60, 0, maxTimeout, "seconds", "after which a command is aborted; 0 never", false},
	tunDebug:               {"kern.iscsi.debug", 1, 0, 100, "", "messages of iscsi(4): 0 errors, 1 warnings, 2 and more debug", false},
	tunDeviceDepth:         {"kern.iscsi.device_depth", 128, 1, 4096, "", "requests under way in each queue of a block device; of disks added later", false},
	tunDeviceQueues:        {"kern.iscsi.device_queues", 0, 0, 64, "", "queues of a block device; 0: half of the processors, 4 at most; of disks added later", false},
	tunFailOnDisconnection: {"kern.iscsi.fail_on_disconnection", 0, 0, 1, "", "1: remove device nodes when the connection drops", false},
	tunFailOnShutdown:      {"kern.iscsi.fail_on_shutdown", 1, 0, 1, "", "1: fail disconnected sessions at shutdown", false},
	tunISCSIDTimeout:       {"kern.iscsi.iscsid_timeout", 60, 1, maxTimeout, "seconds", "to wait for a session to be established before trying again", false},
	tunLoginTimeout:        {"kern.iscsi.login_timeout", 60, 1, maxTimeout, "seconds", "for a login attempt", false},
	tunMaxTags:             {"kern.iscsi.maxtags", 255, 1, 4096, "", "outstanding requests of a session", false},
	tunPingTimeout:         {"kern.iscsi.ping_timeout", 5, 0, maxTimeout, "seconds", "of silence after which a connection is dead; 0 never", false},
	tunRecoveryTimeout:     {"kern.iscsi.recovery_timeout", 0, 0, maxTimeout, "seconds", "without a connection after which requests fail; 0 never", false},
}

// AllTunables returns the descriptions of all tunables, by name.
func AllTunables() []Tunable {
	all := append([]Tunable(nil), tunables[:]...)
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

// Tunables are the values. Any goroutine may use them.
type Tunables struct {
	values [tunCount]atomic.Int64
}

// NewTunables returns the defaults.
func NewTunables() *Tunables {
	t := &Tunables{}
	for i := range tunables {
		t.values[i].Store(tunables[i].Default)
	}
	return t
}

// Names returns the names of all tunables, sorted.
func (t *Tunables) Names() []string {
	var names []string
	for _, tunable := range AllTunables() {
		names = append(names, tunable.Name)
	}
	return names
}

// Get returns the value of name, as a decimal number.
func (t *Tunables) Get(name string) (string, error) {
	i, err := tunableIndex(name)
	if err != nil {
		return "", err
	}
	return strconv.FormatInt(t.values[i].Load(), 10), nil
}

// Set sets name to a number as expand_number(3) reads them: "0x40", "64m".
func (t *Tunables) Set(name, value string) error {
	i, err := tunableIndex(name)
	if err != nil {
		return err
	}
	about := &tunables[i]
	n, err := expandNumber(strings.TrimSpace(value))
	if err != nil || n < uint64(about.Min) || n > uint64(about.Max) || about.powerOfTwo && n&(n-1) != 0 {
		return fmt.Errorf("%s: invalid value %s; must be %s", name, quote(value), about.values())
	}
	t.values[i].Store(int64(n))
	return nil
}

// values says what may be set.
func (t *Tunable) values() string {
	kind := "a number"
	if t.powerOfTwo {
		kind = "a power of two"
	}
	text := fmt.Sprintf("%s from %d to %d", kind, t.Min, t.Max)
	if t.Unit != "" {
		text += " " + t.Unit
	}
	return text
}

func tunableIndex(name string) (int, error) {
	for i := range tunables {
		if tunables[i].Name == name {
			return i, nil
		}
	}
	best, distance := "", 6
	for i := range tunables {
		if d := editDistance(name, tunables[i].Name); d < distance {
			best, distance = tunables[i].Name, d
		}
	}
	if best != "" {
		return 0, fmt.Errorf("unknown tunable %s; did you mean %s?", quote(name), best)
	}
	var names []string
	for _, t := range AllTunables() {
		names = append(names, t.Name)
	}
	return 0, fmt.Errorf("unknown tunable %s; there are %s", quote(name), strings.Join(names, ", "))
}

func (t *Tunables) seconds(i int) time.Duration {
	return time.Duration(t.values[i].Load()) * time.Second
}

// Debug is kern.iscsi.debug: 0 errors, 1 warnings, 2 and more debug.
func (t *Tunables) Debug() int { return int(t.values[tunDebug].Load()) }

// ISERDebug is kern.iser.debug: 0 errors, 1 warnings, 2 info, 3 and more debug.
func (t *Tunables) ISERDebug() int { return int(t.values[tunISERDebug].Load()) }

// ISERSpin is kern.iser.spin; 0: not at all.
func (t *Tunables) ISERSpin() time.Duration {
	return time.Duration(t.values[tunISERSpin].Load()) * time.Microsecond
}

// ArenaSize is kern.iscsi.arena_size, in bytes: a power of two.
func (t *Tunables) ArenaSize() int64 { return t.values[tunArenaSize].Load() }

// MaxTags is kern.iscsi.maxtags: how many requests a session has outstanding.
func (t *Tunables) MaxTags() int { return int(t.values[tunMaxTags].Load()) }

// DeviceShape is kern.iscsi.device_queues (0: the back-end's choice) and device_depth.
func (t *Tunables) DeviceShape() (queues, depth int) {
	return int(t.values[tunDeviceQueues].Load()), int(t.values[tunDeviceDepth].Load())
}

// FailOnDisconnection is kern.iscsi.fail_on_disconnection.
func (t *Tunables) FailOnDisconnection() bool { return t.values[tunFailOnDisconnection].Load() != 0 }

// FailOnShutdown is kern.iscsi.fail_on_shutdown.
func (t *Tunables) FailOnShutdown() bool { return t.values[tunFailOnShutdown].Load() != 0 }

// PingTimeout is kern.iscsi.ping_timeout; 0: none.
func (t *Tunables) PingTimeout() time.Duration { return t.seconds(tunPingTimeout) }

// ISCSIDTimeout is kern.iscsi.iscsid_timeout.
func (t *Tunables) ISCSIDTimeout() time.Duration { return t.seconds(tunISCSIDTimeout) }

// LoginTimeout is kern.iscsi.login_timeout.
func (t *Tunables) LoginTimeout() time.Duration { return t.seconds(tunLoginTimeout) }

// CommandTimeout is kern.iscsi.command_timeout; 0: none.
func (t *Tunables) CommandTimeout() time.Duration { return t.seconds(tunCommandTimeout) }

// RecoveryTimeout is kern.iscsi.recovery_timeout; 0: none.
func (t *Tunables) RecoveryTimeout() time.Duration { return t.seconds(tunRecoveryTimeout) }
