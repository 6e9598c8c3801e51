package login_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"iscsictl/session/login"
)

// TestRules holds every operational key against its section of RFC 7143. The
// offers are those of normal: MaxBurstLength 1048576, FirstBurstLength 131072,
// MaxOutstandingR2T 4, InitialR2T No, ImmediateData Yes, both times 0.
func TestRules(t *testing.T) {
	offerNo := func(c *login.Config) { c.Offers.ImmediateData = false }
	offerR2T := func(c *login.Config) { c.Offers.InitialR2T = true }
	crc := func(c *login.Config) { c.HeaderDigest, c.DataDigest = true, true }
	for _, c := range []struct {
		section, key, answer string
		edit                 func(*login.Config)
		field                string
		want                 any // nil: an error
	}{
		// §13.1: a list, of which the target chooses one.
		{"13.1", "HeaderDigest", "None", nil, "HeaderDigest", false},
		{"13.1", "HeaderDigest", "CRC32C", nil, "", nil},
		{"13.1", "HeaderDigest", "CRC32C", crc, "HeaderDigest", true},
		{"13.1", "HeaderDigest", "None", crc, "HeaderDigest", false},
		{"13.1", "HeaderDigest", "CRC32C,None", crc, "", nil},
		{"13.1", "HeaderDigest", "MD5", crc, "", nil},
		{"13.1", "HeaderDigest", "Reject", crc, "", nil},
		{"13.1", "HeaderDigest", "NotUnderstood", crc, "", nil},
		{"13.1", "DataDigest", "CRC32C", nil, "", nil},
		{"13.1", "DataDigest", "CRC32C", crc, "DataDigest", true},
		{"13.1", "DataDigest", "crc32c", crc, "", nil},
		{"13.1", "DataDigest", "Irrelevant", crc, "DataDigest", false},
		// §13.2: minimum, 1 to 65535.
		{"13.2", "MaxConnections", "2", nil, "", nil},
		{"13.2", "MaxConnections", "0", nil, "", nil},
		// §13.10: OR.
		{"13.10", "InitialR2T", "No", nil, "InitialR2T", false},
		{"13.10", "InitialR2T", "Yes", nil, "InitialR2T", true},
		{"13.10", "InitialR2T", "Irrelevant", nil, "InitialR2T", true},
		{"13.10", "InitialR2T", "Yes", offerR2T, "InitialR2T", true},
		{"13.10", "InitialR2T", "No", offerR2T, "", nil},
		{"13.10", "InitialR2T", "yes", nil, "", nil},
		{"13.10", "InitialR2T", "Reject", nil, "", nil},
		// §13.11: AND.
		{"13.11", "ImmediateData", "Yes", nil, "ImmediateData", true},
		{"13.11", "ImmediateData", "No", nil, "ImmediateData", false},
		{"13.11", "ImmediateData", "No", offerNo, "ImmediateData", false},
		{"13.11", "ImmediateData", "Yes", offerNo, "", nil},
		{"13.11", "ImmediateData", "Irrelevant", offerNo, "ImmediateData", false},
		{"13.11", "ImmediateData", "1", nil, "", nil},
		// §13.12: declared, 512 to 2^24-1, 8192 where it is not.
		{"13.12", "MaxRecvDataSegmentLength", "512", nil, "MaxSendDataSegmentLength", 512},
		{"13.12", "MaxRecvDataSegmentLength", "16777215", nil, "MaxSendDataSegmentLength", 16777215},
		{"13.12", "MaxRecvDataSegmentLength", "0x1000", nil, "MaxSendDataSegmentLength", 4096},
		{"13.12", "MaxRecvDataSegmentLength", "", nil, "MaxSendDataSegmentLength", 8192},
		{"13.12", "MaxRecvDataSegmentLength", "16777216", nil, "", nil},
		{"13.12", "MaxRecvDataSegmentLength", "511", nil, "", nil},
		{"13.12", "MaxRecvDataSegmentLength", "0", nil, "", nil},
		{"13.12", "MaxRecvDataSegmentLength", "-512", nil, "", nil},
		{"13.12", "MaxRecvDataSegmentLength", "8192 ", nil, "", nil},
		{"13.12", "MaxRecvDataSegmentLength", "NotUnderstood", nil, "", nil},
		// §13.13: minimum, 512 to 2^24-1, default 262144.
		{"13.13", "MaxBurstLength", "1048576", nil, "MaxBurstLength", 1048576},
		{"13.13", "MaxBurstLength", "65536", nil, "MaxBurstLength", 65536},
		{"13.13", "MaxBurstLength", "1048577", nil, "", nil},
		{"13.13", "MaxBurstLength", "511", nil, "", nil},
		{"13.13", "MaxBurstLength", "Irrelevant", nil, "MaxBurstLength", 262144},
		{"13.13", "MaxBurstLength", "", nil, "MaxBurstLength", 262144},
		{"13.13", "MaxBurstLength", "Irrelevant", func(c *login.Config) { c.Offers.MaxBurstLength = 131072 }, "MaxBurstLength", 131072},
		{"13.13", "MaxBurstLength", "Reject", nil, "", nil},
		{"13.13", "MaxBurstLength", "18446744073709551615", nil, "", nil},
		// §13.14: minimum, at most MaxBurstLength, default 65536.
		{"13.14", "FirstBurstLength", "131072", nil, "FirstBurstLength", 131072},
		{"13.14", "FirstBurstLength", "512", nil, "FirstBurstLength", 512},
		{"13.14", "FirstBurstLength", "131073", nil, "", nil},
		{"13.14", "FirstBurstLength", "Irrelevant", nil, "FirstBurstLength", 65536},
		{"13.14", "MaxBurstLength", "65535", nil, "", nil}, // below the FirstBurstLength of agreed
		// §13.15: maximum, 0 to 3600, default 2.
		{"13.15", "DefaultTime2Wait", "3600", nil, "DefaultTime2Wait", time.Hour},
		{"13.15", "DefaultTime2Wait", "0", nil, "DefaultTime2Wait", time.Duration(0)},
		{"13.15", "DefaultTime2Wait", "", nil, "DefaultTime2Wait", 2 * time.Second},
		{"13.15", "DefaultTime2Wait", "3601", nil, "", nil},
		// §13.16: minimum, 0 to 3600, default 20.
		{"13.16", "DefaultTime2Retain", "0", nil, "DefaultTime2Retain", time.Duration(0)},
		{"13.16", "DefaultTime2Retain", "Irrelevant", nil, "DefaultTime2Retain", time.Duration(0)},
		{"13.16", "DefaultTime2Retain", "20", nil, "", nil},
		// §13.17: minimum, 1 to 65535, default 1.
		{"13.17", "MaxOutstandingR2T", "4", nil, "MaxOutstandingR2T", 4},
		{"13.17", "MaxOutstandingR2T", "Irrelevant", nil, "MaxOutstandingR2T", 1},
		{"13.17", "MaxOutstandingR2T", "5", nil, "", nil},
		{"13.17", "MaxOutstandingR2T", "0", nil, "", nil},
		// §13.18, §13.19: OR.
		{"13.18", "DataPDUInOrder", "Yes", nil, "DataPDUInOrder", true},
		{"13.18", "DataPDUInOrder", "No", nil, "", nil},
		{"13.19", "DataSequenceInOrder", "Irrelevant", nil, "DataSequenceInOrder", true},
		{"13.19", "DataSequenceInOrder", "No", nil, "", nil},
		// §13.20: minimum, 0 to 2.
		{"13.20", "ErrorRecoveryLevel", "0", nil, "ErrorRecoveryLevel", 0},
		{"13.20", "ErrorRecoveryLevel", "1", nil, "", nil},
		{"13.20", "ErrorRecoveryLevel", "NotUnderstood", nil, "", nil},
	} {
		cfg := normal()
		if c.edit != nil {
			c.edit(&cfg)
		}
		keys := agreedBut(c.key, c.answer)
		if !cfg.Offers.ImmediateData && c.key != "ImmediateData" {
			keys = strings.Replace(keys, "ImmediateData=Yes", "ImmediateData=No", 1)
		}
		_, res, err := run(t, cfg, none, answer{next: fullFeature, keys: keys})
		switch {
		case c.want == nil && err == nil:
			t.Errorf("§%s: %s=%s was accepted", c.section, c.key, c.answer)
		case c.want == nil:
			if errors.Is(err, errScriptEnds) || !strings.Contains(err.Error(), c.key) {
				t.Errorf("§%s: %s=%s: error does not name the key: %v", c.section, c.key, c.answer, err)
			}
		case err != nil:
			t.Errorf("§%s: %s=%s: %v", c.section, c.key, c.answer, err)
		default:
			if got := reflect.ValueOf(res.Params).FieldByName(c.field).Interface(); got != c.want {
				t.Errorf("§%s: %s=%s: %s is %v, want %v", c.section, c.key, c.answer, c.field, got, c.want)
			}
		}
	}
}

// iSCSIProtocolLevel (§13.24) is younger than many targets.
func TestProtocolLevel(t *testing.T) {
	for answered, want := range map[string]int{
		"2": 2, "1": 1, "0": 0, "NotUnderstood": 1, "Irrelevant": 1, "Reject": 1, "": 1,
	} {
		_, res, err := run(t, normal(), none, answer{next: fullFeature, keys: agreedBut("iSCSIProtocolLevel", answered)})
		if err != nil || res.ProtocolLevel != want || len(res.Warnings) > 0 {
			t.Errorf("%q: %v, level %d, want %d; %q", answered, err, res.ProtocolLevel, want, res.Warnings)
		}
	}
	if _, _, err := run(t, normal(), none, answer{next: fullFeature, keys: agreedBut("iSCSIProtocolLevel", "3")}); err == nil {
		t.Error("3 was accepted in answer to 2")
	}
}

// A digest that was asked for and is not to be had is worth a warning, as is a
// key without an answer.
func TestWarnings(t *testing.T) {
	cfg := with(func(c *login.Config) { c.HeaderDigest = true })
	reqs, res, err := run(t, cfg, none, agree)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(reqs[1].keys, "HeaderDigest=CRC32C,None DataDigest=None") {
		t.Errorf("offered %s", reqs[1].keys)
	}
	if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "HeaderDigest") {
		t.Errorf("warnings %q", res.Warnings)
	}
	cfg.Offers.Digests = false
	if reqs, _, err = run(t, cfg, none, agree); err != nil || !strings.Contains(reqs[1].keys, "HeaderDigest=None") {
		t.Errorf("%v; a transport without digests offered %+v", err, reqs)
	}
	_, res, err = run(t, normal(), none, answer{next: fullFeature, keys: agreedBut("MaxOutstandingR2T", "")})
	if err != nil || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "MaxOutstandingR2T=4") {
		t.Errorf("%v, warnings %q", err, res.Warnings)
	}
}

// Where no unsolicited data is sent, FirstBurstLength means nothing (§13.14).
func TestFirstBurstIrrelevant(t *testing.T) {
	cfg := with(func(c *login.Config) { c.Offers.ImmediateData, c.Offers.InitialR2T = false, true })
	keys := strings.Replace(agreedBut("FirstBurstLength", "Irrelevant"), "ImmediateData=Yes", "ImmediateData=No", 1)
	keys = strings.Replace(keys, "MaxBurstLength=262144", "MaxBurstLength=4096", 1)
	_, res, err := run(t, cfg, none, answer{next: fullFeature, keys: keys})
	if err != nil || res.Params.FirstBurstLength != 4096 {
		t.Errorf("%v, %+v", err, res.Params)
	}
}
