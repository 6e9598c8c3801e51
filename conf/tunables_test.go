package conf

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTunableDefaults(t *testing.T) {
	tunables := NewTunables()
	want := map[string]string{
		"kern.iser.debug": "0", "kern.iser.spin": "0", "kern.iscsi.debug": "1", "kern.iscsi.ping_timeout": "5", "kern.iscsi.iscsid_timeout": "60",
		"kern.iscsi.login_timeout": "60", "kern.iscsi.maxtags": "255", "kern.iscsi.fail_on_disconnection": "0",
		"kern.iscsi.fail_on_shutdown": "1", "kern.iscsi.command_timeout": "60", "kern.iscsi.recovery_timeout": "0",
		"kern.iscsi.arena_size": "67108864", "kern.iscsi.device_depth": "128", "kern.iscsi.device_queues": "0",
	}
	names := tunables.Names()
	if len(names) != len(want) || !slices.IsSorted(names) {
		t.Errorf("names: %q", names)
	}
	for _, name := range names {
		if got, err := tunables.Get(name); got != want[name] || err != nil {
			t.Errorf("%s = %s, %v; want %s", name, got, err, want[name])
		}
	}
	for _, about := range AllTunables() {
		if about.Description == "" || about.Default < about.Min || about.Default > about.Max {
			t.Errorf("%+v", about)
		}
	}
}

func TestTunableAccessors(t *testing.T) {
	tunables := NewTunables()
	for name, get := range map[string]func() int64{
		"kern.iser.debug":                  func() int64 { return int64(tunables.ISERDebug()) },
		"kern.iser.spin":                   func() int64 { return int64(tunables.ISERSpin() / time.Microsecond) },
		"kern.iscsi.debug":                 func() int64 { return int64(tunables.Debug()) },
		"kern.iscsi.ping_timeout":          func() int64 { return int64(tunables.PingTimeout() / time.Second) },
		"kern.iscsi.iscsid_timeout":        func() int64 { return int64(tunables.ISCSIDTimeout() / time.Second) },
		"kern.iscsi.login_timeout":         func() int64 { return int64(tunables.LoginTimeout() / time.Second) },
		"kern.iscsi.maxtags":               func() int64 { return int64(tunables.MaxTags()) },
		"kern.iscsi.command_timeout":       func() int64 { return int64(tunables.CommandTimeout() / time.Second) },
		"kern.iscsi.recovery_timeout":      func() int64 { return int64(tunables.RecoveryTimeout() / time.Second) },
		"kern.iscsi.arena_size":            func() int64 { return tunables.ArenaSize() / 8388608 },
		"kern.iscsi.fail_on_disconnection": func() int64 { return number01(tunables.FailOnDisconnection()) },
		"kern.iscsi.fail_on_shutdown":      func() int64 { return number01(tunables.FailOnShutdown()) },
	} {
		value := "1"
		if name == "kern.iscsi.arena_size" {
			value = "8m"
		}
		if err := tunables.Set(name, value); err != nil || get() != 1 {
			t.Errorf("%s: %d, %v", name, get(), err)
		}
	}
}

func number01(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func TestTunableSet(t *testing.T) {
	tunables := NewTunables()
	for _, c := range []struct{ name, value, want, err string }{
		{"kern.iscsi.arena_size", "4m", "4194304", ""},
		{"kern.iscsi.arena_size", "4g", "4294967296", ""},
		{"kern.iscsi.maxtags", " 0x10\n", "16", ""},
		{"kern.iscsi.ping_timeout", "0", "0", ""},
		{"kern.iscsi.arena_size", "65m", "", `kern.iscsi.arena_size: invalid value "65m"; must be a power of two from 4194304 to 4294967296 bytes`},
		{"kern.iscsi.arena_size", "2m", "", "must be a power of two"},
		{"kern.iscsi.arena_size", "8g", "", "must be a power of two"},
		{"kern.iscsi.login_timeout", "0", "", `kern.iscsi.login_timeout: invalid value "0"; must be a number from 1 to 1000000 seconds`},
		{"kern.iscsi.maxtags", "", "", `kern.iscsi.maxtags: invalid value ""; must be a number from 1 to 4096`},
		{"kern.iscsi.maxtags", "-1", "", "must be a number from 1 to 4096"},
		{"kern.iscsi.maxtags", "x", "", "must be a number from 1 to 4096"},
		{"kern.iscsi.fail_on_shutdown", "2", "", "must be a number from 0 to 1"},
		{"kern.iscsi.max_tags", "2", "", `unknown tunable "kern.iscsi.max_tags"; did you mean kern.iscsi.maxtags?`},
		{"net.inet", "2", "", `unknown tunable "net.inet"`},
	} {
		before, _ := tunables.Get(c.name)
		err := tunables.Set(c.name, c.value)
		got, getErr := tunables.Get(c.name)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%s=%s: %s, %v", c.name, c.value, got, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s=%s: %v; want %s", c.name, c.value, err, c.err)
		case c.err != "" && got != before:
			t.Errorf("%s=%s: refused, and yet set to %s", c.name, c.value, got)
		}
		if unknown := strings.HasPrefix(c.err, "unknown"); unknown != (getErr != nil) {
			t.Errorf("Get(%s): %v", c.name, getErr)
		}
	}
}

func TestTunablesConcurrently(t *testing.T) {
	tunables := NewTunables()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 100 {
				if err := tunables.Set("kern.iscsi.maxtags", "7"); err != nil {
					t.Error(err)
				}
				if n := tunables.MaxTags(); n != 7 && n != 255 {
					t.Errorf("maxtags %d", n)
				}
			}
		})
	}
	group.Wait()
}
