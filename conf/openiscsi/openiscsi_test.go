package openiscsi

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"iscsictl/conf"
)

const target = "iqn.2012-06.com.example:vault"

// base is a record with nothing to be said of it.
func base() record {
	return record{
		"node.name": target, "node.startup": "automatic", "node.conn[0].address": "192.0.2.1", "node.conn[0].port": "3260",
	}
}

// text is a record as open-iscsi writes it.
func (r record) text() string {
	var b strings.Builder
	b.WriteString("# BEGIN RECORD 2.1.8\n")
	for _, key := range slices.Sorted(maps.Keys(r)) {
		b.WriteString(key + " = " + r[key] + "\n")
	}
	b.WriteString("# END RECORD\n")
	return b.String()
}

// tree writes files and returns their directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// all returns the entries as one file, and what the parser makes of it.
func all(t *testing.T, entries []Entry) (string, []conf.Session) {
	t.Helper()
	var b strings.Builder
	for i := range entries {
		b.WriteString(entries[i].Text())
	}
	file, err := conf.ParseBytes("made", []byte(b.String()))
	if err != nil {
		t.Fatalf("the output is not a file: %v\n%s", err, b.String())
	}
	return b.String(), file.Sessions
}

func TestNode(t *testing.T) {
	chap := record{
		"node.session.auth.authmethod": "CHAP", "node.session.auth.username": "alice", "node.session.auth.password": "a#b c = d",
	}
	for name, test := range map[string]struct {
		record record
		want   func(*conf.Session)
		notes  string // a part of them
	}{
		"plain":          {nil, func(*conf.Session) {}, ""},
		"port and IPv6":  {record{"node.conn[0].address": "2001:db8::1", "node.conn[0].port": "3261"}, func(s *conf.Session) { s.TargetAddress = "[2001:db8::1]:3261" }, ""},
		"IPv6":           {record{"node.conn[0].address": "2001:db8::1"}, func(s *conf.Session) { s.TargetAddress = "2001:db8::1" }, ""},
		"manual":         {record{"node.startup": "manual"}, func(s *conf.Session) { s.Enable = false }, "node.startup = manual: added but not connected"},
		"onboot":         {record{"node.startup": "onboot"}, func(*conf.Session) {}, "too late for a root file system"},
		"iser":           {record{"iface.transport_name": "iser"}, func(s *conf.Session) { s.ISER = true }, ""},
		"adapter":        {record{"iface.transport_name": "cxgb4i"}, func(*conf.Session) {}, "this adapter's own initiator is not used"},
		"interface":      {record{"iface.net_ifacename": "eth1"}, func(*conf.Session) {}, "iface.net_ifacename = eth1: "},
		"local address":  {record{"iface.ipaddress": "192.0.2.9"}, func(s *conf.Session) { s.InitiatorAddress = "192.0.2.9" }, ""},
		"own name":       {record{"iface.initiatorname": "iqn.2012-06.com.example:me"}, func(s *conf.Session) { s.InitiatorName = "iqn.2012-06.com.example:me" }, ""},
		"CHAP":           {chap, func(s *conf.Session) { s.AuthMethod, s.User, s.Secret = conf.AuthCHAP, "alice", "a#b c = d" }, ""},
		"names, no CHAP": {record{"node.session.auth.authmethod": "None", "node.session.auth.username": "alice"}, func(s *conf.Session) { s.User = "alice" }, ""},
		"header digest":  {record{"node.conn[0].iscsi.HeaderDigest": "CRC32C,None"}, func(s *conf.Session) { s.HeaderDigest = true }, ""},
		"none first":     {record{"node.conn[0].iscsi.HeaderDigest": "None,CRC32C"}, func(*conf.Session) {}, ""},
		"data digest":    {record{"node.conn[0].iscsi.DataDigest": "CRC32C"}, func(s *conf.Session) { s.DataDigest = true }, "the target may decline"},
		"never":          {record{"node.session.timeo.replacement_timeout": "-1"}, func(s *conf.Session) { s.RecoveryTimeout = 0 }, ""},
		"at once":        {record{"node.session.timeo.replacement_timeout": "0"}, func(s *conf.Session) { s.RecoveryTimeout = 1 }, "errors at once cannot be had"},
		"two minutes":    {record{"node.session.timeo.replacement_timeout": "120"}, func(s *conf.Session) { s.RecoveryTimeout = 120 }, ""},
		"pings":          {record{"node.conn[0].timeo.noop_out_interval": "10", "node.conn[0].timeo.noop_out_timeout": "20"}, func(s *conf.Session) { s.PingTimeout = 30 }, ""},
		"no pings":       {record{"node.conn[0].timeo.noop_out_interval": "0", "node.conn[0].timeo.noop_out_timeout": "0"}, func(s *conf.Session) { s.PingTimeout = 0 }, ""},
		"usual pings":    {record{"node.conn[0].timeo.noop_out_interval": "5", "node.conn[0].timeo.noop_out_timeout": "5"}, func(*conf.Session) {}, ""},
		"login":          {record{"node.conn[0].timeo.login_timeout": "7"}, func(s *conf.Session) { s.LoginTimeout = 7 }, ""},
		"tos":            {record{"node.conn[0].tcp.type_of_service": "184"}, func(s *conf.Session) { s.DSCP = 46 }, ""},
		"no equal":       {record{"node.session.nr_sessions": "4"}, func(*conf.Session) {}, "node.session.nr_sessions = 4: no equal; "},
		"usual":          {record{"node.session.nr_sessions": "1", "node.conn[0].tcp.window_size": "524288"}, func(*conf.Session) {}, ""},
		"empty":          {record{"iface.net_ifacename": "<empty>"}, func(*conf.Session) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := base()
			maps.Copy(r, test.record)
			dir := tree(t, map[string]string{
				"initiatorname.iscsi":            "InitiatorName=iqn.1993-08.org.debian:01:host\nInitiatorAlias=host\n",
				"nodes/" + target + "/192.0.2.1": r.text(),
			})
			want := conf.NewSession()
			want.Nickname, want.TargetName, want.TargetAddress = "vault", target, "192.0.2.1"
			want.InitiatorName, want.InitiatorAlias = "iqn.1993-08.org.debian:01:host", "host"
			test.want(&want)
			entries, problems := Import([]string{dir})
			if len(problems) != 0 {
				t.Fatal(problems)
			}
			text, got := all(t, entries)
			if diff := cmp.Diff([]conf.Session{want}, got); diff != "" {
				t.Errorf("(-want +got)\n%s%s", diff, text)
			}
			notes := strings.Join(entries[0].Notes, "\n")
			if test.notes == "" && notes != "" || !strings.Contains(notes, test.notes) {
				t.Errorf("notes %q, want %q", notes, test.notes)
			}
		})
	}
}

func TestMutualCHAP(t *testing.T) {
	r := base()
	maps.Copy(r, record{
		"node.session.auth.authmethod": "CHAP", "node.session.auth.username": "alice", "node.session.auth.password": "secret of alice",
		"node.session.auth.username_in": "vault", "node.session.auth.password_in": "secret of vault", "node.session.auth.chap_algs": "SHA256",
	})
	entries, problems := Import([]string{tree(t, map[string]string{"nodes/x/y,1,2/default": r.text()})})
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	_, got := all(t, entries)
	if s := got[0]; s.MutualUser != "vault" || s.MutualSecret != "secret of vault" || s.CHAPDigest != "SHA-256" {
		t.Errorf("%+v", s)
	}
	// A target's secret without its name is not quietly left out.
	delete(r, "node.session.auth.username_in")
	entries, _ = Import([]string{tree(t, map[string]string{"nodes/x/y,1,2/default": r.text()})})
	if text, got := all(t, entries); len(got) != 0 || !strings.Contains(text, "# Not used: missing tgtChapName") {
		t.Errorf("%s", text)
	}
}

// TestSeveral has portals, interfaces and names that collide.
func TestSeveral(t *testing.T) {
	other, second, elsewhere := base(), base(), base()
	other["iface.transport_name"] = "iser"
	second["node.conn[0].address"] = "192.0.2.2"
	elsewhere["node.name"] = "iqn.2012-06.org.example:VAULT"
	dir := tree(t, map[string]string{
		"nodes/a/192.0.2.1,3260,1/default": base().text(),
		"nodes/a/192.0.2.1,3260,1/iser":    other.text(),
		"nodes/a/192.0.2.2,3260":           second.text(),
		"nodes/b/192.0.2.1,3260":           elsewhere.text(),
		"send_targets/192.0.2.1,3260/st_config": "discovery.sendtargets.address = 192.0.2.1\n" +
			"discovery.sendtargets.use_discoveryd = Yes\n",
		"send_targets/192.0.2.1,3260/other": "not a record",
	})
	entries, problems := Import([]string{dir, dir})
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	text, got := all(t, entries)
	var names []string
	for _, s := range got {
		names = append(names, s.Nickname+" "+s.TargetAddress)
	}
	if diff := cmp.Diff([]string{"vault 192.0.2.1", "vault-3 192.0.2.2", "VAULT-4 192.0.2.1"}, names); diff != "" {
		t.Errorf("(-want +got)\n%s%s", diff, text)
	}
	for _, want := range []string{
		"# Not used: there can be one session to a target at one portal",
		"# another portal of a target above",
		"# Not used: the targets that this portal has told of are entries of their own\n#discovery {\n",
		"# discovery.sendtargets.use_discoveryd = Yes: ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

// TestDamaged makes sure that what cannot be read is named, and the rest is there.
func TestDamaged(t *testing.T) {
	dir := tree(t, map[string]string{
		"nodes/a/1": base().text(),
		"nodes/a/2": "node.name = only\n",
		"nodes/a/3": strings.Repeat("x", maxRecord+1),
	})
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "nodes/a/4")); err != nil {
		t.Fatal(err)
	}
	entries, problems := Import([]string{dir})
	if len(entries) != 1 || len(problems) != 3 {
		t.Fatalf("%d entries, problems %v", len(entries), problems)
	}
	for i, want := range []string{"a/2: a record without a target or an address", "a/3: larger than", "a/4: not a regular file"} {
		if !strings.Contains(problems[i].Error(), want) {
			t.Errorf("problem %v, want %s", problems[i], want)
		}
	}
	if _, problems := Import([]string{t.TempDir()}); len(problems) != 1 || !strings.Contains(problems[0].Error(), "no records of open-iscsi") {
		t.Errorf("an empty directory: %v", problems)
	}
}

// FuzzRecord makes entries of any text: what comes out is a file that the parser
// accepts, with an entry or a reason why there is none.
func FuzzRecord(f *testing.F) {
	f.Add(base().text())
	f.Add("node.name = \"\nnode.conn[0].address = }\n")
	f.Add("node.name = a\nnode.conn[0].address = b\nnode.session.auth.authmethod = CHAP\nnode.session.auth.username = x\nnode.session.auth.password = file:/etc/passwd\n")
	f.Add("node.name = a\nnode.conn[0].address = b\niface.transport_name = x\r} y {\n")
	f.Fuzz(func(t *testing.T, text string) {
		im := &importer{nicknames: map[string]bool{}, sessions: map[[2]string]bool{}, targets: map[string]bool{}}
		for _, fill := range []func(record, *Entry){im.node, im.discovery} {
			r := parseRecord(text)
			e := Entry{Session: conf.NewSession()}
			im.initiator(r, &e)
			fill(r, &e)
			im.add(e, "fuzz")
		}
		used := 0
		for i := range im.entries {
			if im.entries[i].Unused == "" {
				used++
			}
		}
		if _, got := all(t, im.entries); len(got) != used {
			t.Errorf("%d entries of %d in the file", len(got), used)
		}
	})
}
