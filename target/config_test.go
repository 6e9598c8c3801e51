package target

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "512": 512, "64m": 64 << 20, "3T": 3 << 40, "1k": 1024, "2G": 2 << 30} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
		if back, err := ParseSize(got.String()); err != nil || back != want {
			t.Errorf("%s comes back as %v", text, got)
		}
	}
	for _, text := range []string{"", "m", "-1", "1.5m", "1mm", "99999999t", "0x10"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestReadConfig(t *testing.T) {
	got, err := ReadConfig(strings.NewReader(`{
		"portals": [{"address": "127.0.0.1:0", "tag": 2}],
		"login_timeout": "3s",
		"targets": [{
			"name": "iqn.2024-01.example:a",
			"luns": [{"lun": 1, "size": "64m", "thin": true}, {"lun": 2, "size": 4096}],
			"keys": {"InitialR2T": "Yes"},
			"chap": {"users": [{"name": "u", "secret": "s"}], "algorithms": ["SHA-256"]}
		}],
		"faults": [{"pdu": "scsi-command", "command": "write", "nth": 3, "times": -1, "lun": 0,
			"action": "check", "sense": {"key": 3, "code": 4352}, "r2t": {"burst": 512}}]
	}`))
	zero := 0
	want := Config{
		Portals: []Portal{{Address: "127.0.0.1:0", Tag: 2}}, LoginTimeout: Duration(3 * time.Second),
		Targets: []Target{{
			Name: "iqn.2024-01.example:a", LUNs: []LUN{{Number: 1, Size: 64 << 20, Thin: true}, {Number: 2, Size: 4096}},
			Keys: map[string]string{"InitialR2T": "Yes"},
			CHAP: &CHAP{Users: []Credential{{"u", "s"}}, Algorithms: []string{"SHA-256"}},
		}},
		Faults: []Fault{{
			PDU: "scsi-command", Command: "write", Nth: 3, Times: -1, LUN: &zero, Action: ActionCheck,
			Sense: Sense{Key: 3, Code: 0x1100}, R2T: R2TShape{Burst: 512},
		}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported()); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, text := range []string{"", "{", `{"target": []}`, `{"targets": []} x`, `{"login_timeout": 3}`, `{"login_timeout": "-3s"}`, `{"targets": [{"luns": [{"size": "1x"}]}]}`} {
		if _, err := ReadConfig(strings.NewReader(text)); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	name := "iqn.2024-01.example:a"
	one := LUN{Size: 512}
	for what, conf := range map[string]Config{
		"no name":         {Targets: []Target{{}}},
		"long name":       {Targets: []Target{{Name: strings.Repeat("i", 224)}}},
		"space in name":   {Targets: []Target{{Name: "iqn.x y"}}},
		"twice":           {Targets: []Target{{Name: name}, {Name: name}}},
		"LUN twice":       {Targets: []Target{{Name: name, LUNs: []LUN{one, one}}}},
		"no size":         {Targets: []Target{{Name: name, LUNs: []LUN{{}}}}},
		"odd size":        {Targets: []Target{{Name: name, LUNs: []LUN{{Size: 1000}}}}},
		"odd block":       {Targets: []Target{{Name: name, LUNs: []LUN{{Size: 3000, BlockSize: 1000}}}}},
		"LUN out":         {Targets: []Target{{Name: name, LUNs: []LUN{{Number: 16384, Size: 512}}}}},
		"huge":            {Targets: []Target{{Name: name, LUNs: []LUN{{Size: 1 << 50}}}}},
		"no file":         {Targets: []Target{{Name: name, LUNs: []LUN{{File: "/nonexistent/x"}}}}},
		"file and null":   {Targets: []Target{{Name: name, LUNs: []LUN{{File: "x", Null: true, Size: 512}}}}},
		"unknown key":     {Targets: []Target{{Name: name, Keys: map[string]string{"Colour": "red"}}}},
		"bad key":         {Targets: []Target{{Name: name, Keys: map[string]string{"InitialR2T": "1"}}}},
		"connections":     {Targets: []Target{{Name: name, Keys: map[string]string{"MaxConnections": "2"}}}},
		"recovery":        {Targets: []Target{{Name: name, Keys: map[string]string{"ErrorRecoveryLevel": "1"}}}},
		"unknown offer":   {Targets: []Target{{Name: name, Offer: []string{"Colour"}}}},
		"CHAP, no user":   {Targets: []Target{{Name: name, CHAP: &CHAP{}}}},
		"CHAP, algorithm": {Discovery: &CHAP{Users: []Credential{{}}, Algorithms: []string{"MD4"}}},
		"portal":          {Portals: []Portal{{Address: "localhost"}}},
		"tag":             {Portals: []Portal{{Address: "localhost:1", Tag: 70000}}},
		"fault":           {Faults: []Fault{{}}},
	} {
		if s, err := New(conf); err == nil {
			t.Errorf("%s was accepted", what)
			_ = s.Close()
		}
	}
}
