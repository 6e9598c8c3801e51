package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestConfiguration goes through the uses of a file with several targets.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	g, d := newTgtd(t), newDaemon(t)
	var text strings.Builder
	names := map[string]string{}
	for _, nick := range []string{"one", "two", "three"} {
		names[nick] = "iqn.2026-11.example:" + nick
		tid := g.target(names[nick])
		for lun := 1; lun <= 6; lun++ {
			g.lun(tid, lun, 2)
		}
		fmt.Fprintf(&text, "%s {\n TargetAddress = %s\n TargetName = %s\n", nick, g.portal(), names[nick])
		switch nick {
		case "two":
			text.WriteString(" LUNs = 0,3-5\n")
		case "three":
			text.WriteString(" Enable = off\n")
		}
		text.WriteString("}\n")
	}
	file := d.conf(text.String())

	d.ok("-A", "-n", "two", "-c", file, "-w", "30")
	d.disk(names["two"], 5)
	luns := func() (list []int) {
		for _, unit := range d.session(names["two"]).Devices.LUN {
			list = append(list, unit.LUN)
		}
		return list
	}
	if got := fmt.Sprint(luns()); got != "[3 4 5]" {
		t.Errorf("LUNs = 0,3-5 gives %s", got)
	}
	// The others are added, and the one that is there is told of.
	r := d.ctl("-A", "-a", "-c", file, "-w", "30")
	if r.status != 1 || !strings.Contains(r.stderr, "ISCSISADD: Device or resource busy: a session to "+names["two"]) {
		t.Errorf("iscsictl -A -a with one that is there: %+v", r)
	}
	d.connected(names["one"])
	if s := d.session(names["three"]); s.Enable != "No" || s.State != "Disconnected" {
		t.Errorf("Enable = off: %+v", s)
	}
	if !strings.Contains(d.ok("-L"), fmt.Sprintf("%-36s %-16s Disabled\n", names["three"], g.portal())) {
		t.Errorf("the listing does not show %s as disabled:\n%s", names["three"], d.ok("-L"))
	}

	id := fmt.Sprint(d.session(names["three"]).ID)
	d.ok("-M", "-i", id, "-e", "on")
	d.connected(names["three"])
	d.disk(names["three"], 6)
	d.ok("-M", "-i", id, "-e", "off")
	s := d.until(names["three"], "disabled", func(s session) bool { return s.State == "Disconnected" })
	if len(s.Devices.LUN) != 6 {
		t.Errorf("%d devices are left of 6 after -e off", len(s.Devices.LUN))
	}
	d.ok("-M", "-i", id, "-n", "two", "-c", d.conf(strings.ReplaceAll(text.String(), "two", "none")+
		fmt.Sprintf("two {\n TargetAddress = %s\n TargetName = %s\n InitiatorAlias = moved\n}\n", g.portal(), names["three"])))
	s = d.connected(names["three"])
	if fmt.Sprint(s.ID) != id || s.Initiator.Alias != "moved" || s.Enable != "Yes" {
		t.Errorf("after -M -n: %+v", s)
	}

	d.refused("session-id 4711 not found", "-M", "-i", "4711", "-e", "on")
	d.refused("target nobody not found in "+file, "-A", "-n", "nobody", "-c", file)
	file = d.conf(text.String())
	d.ok("-R", "-n", "one", "-c", file)
	if s := d.session(names["one"]); s.ID != 0 {
		t.Errorf("-R -n one leaves %+v", s)
	}
	d.refused("ISCSISREMOVE: No such process", "-R", "-n", "one", "-c", file)
	d.ok("-R", "-a")
	d.refused("ISCSISREMOVE: No such process", "-R", "-a")
}

// TestModifyReconnects makes a session connect anew without a word of its reader.
func TestModifyReconnects(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:again"
	g, d := newTgtd(t), newDaemon(t)
	tid := g.target(name)
	g.lun(tid, 1, 64)
	s := d.add(g.portal(), name)
	job := startFio(t, d.dir, d.disk(name, 1), "--bs=32k", "--size=16M", "--iodepth=8", "--rate=8M")
	eventually(t, "fio writes", func() bool { return d.session(name).BytesWritten > 1<<20 })
	d.ok("-M", "-i", fmt.Sprint(s.ID))
	d.until(name, "reconnected", func(s session) bool { return s.Reconnections == 1 && s.State == "Connected" })
	fioEnded(t, job)
	if s := d.session(name); s.Errors != 0 {
		t.Errorf("%d requests have failed", s.Errors)
	}
}

// TestBadFiles shows what is said of files with mistakes, and that nothing is done.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	const good = "good {\n TargetAddress = 127.0.0.1:1\n TargetName = iqn.2026-11.example:good\n}\n"
	for _, c := range []struct{ text, want string }{
		{good + "bad {\n TargetName = iqn.2026-11.example:bad\n}\n", `missing TargetAddress for target "bad"`},
		{good + good, "duplicated target good"},
		{good + "bad {\n TargetAddres = h\n}\n", "TargetAddress"},
		{good + "bad {\n TargetAddress = h\n TargetName = iqn.2026-11.example:b\n AuthMethod = CHOP\n}\n", `invalid AuthMethod at line 8; must be either "none" or "CHAP"`},
		{good + "bad {\n TargetAddress = h\n TargetName = iqn.2026-11.example:" + strings.Repeat("x", 224) + "\n}\n", "overlong name"},
		{good + "bad {\n", "line 5"},
	} {
		r := d.ctl("-A", "-a", "-c", d.conf(c.text))
		if r.status != 1 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("status %d, %q; want %q of\n%s", r.status, r.stderr, c.want, c.text)
		}
	}
	d.refused("nosuch.conf", "-A", "-a", "-c", d.dir+"/nosuch.conf")
	if list := d.sessions(); len(list) != 0 {
		t.Errorf("sessions were added from files with mistakes: %+v", list)
	}
}

// TestNotRunning uses iscsictl without iscsid.
func TestNotRunning(t *testing.T) {
	t.Parallel()
	r := iscsictl(t, "--socket", newDir(t)+"/control.sock", "-L")
	if r.status != 1 || !strings.Contains(r.stderr, "iscsid is not running") || !strings.Contains(r.stderr, "start it with") {
		t.Errorf("%+v", r)
	}
}
