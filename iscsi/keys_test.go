package iscsi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseKeys(t *testing.T) {
	for _, c := range []struct {
		text string
		want []KeyValue
	}{
		{"", nil},
		{"\x00\x00\x00", nil},
		{"SessionType=Normal\x00", []KeyValue{{KeySessionType, ValueNormal}}},
		{"TargetAlias=\x00", []KeyValue{{KeyTargetAlias, ""}}},
		{"TargetAlias=a=b=\x00", []KeyValue{{KeyTargetAlias, "a=b="}}},
		{"TargetAlias=größe, 1\x00", []KeyValue{{KeyTargetAlias, "größe, 1"}}},
		// The same key again, which is right in an answer to SendTargets.
		{
			"TargetName=iqn.x\x00TargetAddress=a:1,1\x00TargetAddress=[::1]:2,1\x00",
			[]KeyValue{{KeyTargetName, "iqn.x"}, {KeyTargetAddress, "a:1,1"}, {KeyTargetAddress, "[::1]:2,1"}},
		},
		// Padding that was counted to the data.
		{"\x00InitialR2T=Yes\x00\x00ImmediateData=No\x00\x00\x00", []KeyValue{{KeyInitialR2T, "Yes"}, {KeyImmediateData, "No"}}},
		// All forms of keys.
		{"X-com.example.key+@_9=1\x00X#NodeArchitecture=2\x00iSCSIProtocolLevel=3\x00", []KeyValue{
			{"X-com.example.key+@_9", "1"}, {KeyNodeArchitecture, "2"}, {KeyProtocolLevel, "3"},
		}},
		{"A=1\x00Z=2\x00a=3\x00z=4\x00", []KeyValue{{"A", "1"}, {"Z", "2"}, {"a", "3"}, {"z", "4"}}},
		{strings.Repeat("K", 63) + "=1\x00", []KeyValue{{strings.Repeat("K", 63), "1"}}},
	} {
		got, err := ParseKeys([]byte(c.text))
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
		} else if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.text, diff)
		}
	}
}

func TestParseKeysRefused(t *testing.T) {
	for _, c := range []struct{ text, reason string }{
		{"SessionType=Normal", "breaks off"},
		{"A=1\x00B", "breaks off"},
		{"SessionType\x00", `no "="`},
		{"=Normal\x00", "empty key"},
		{"1Session=Normal\x00", "begin with a letter"},
		{"@A=1\x00", "begin with a letter"},
		{"[A=1\x00", "begin with a letter"},
		{"-A=Normal\x00", "begin with a letter"},
		{"Session Type=Normal\x00", "may not have"},
		{"Sessionтype=Normal\x00", "may not have"},
		{"Session/Type=Normal\x00", "may not have"},
		{strings.Repeat("K", 64) + "=1\x00", "longer than 63"},
		{strings.Repeat("A=1\x00", MaxTextPairs+1), "1024 pairs"},
		{"A=" + strings.Repeat("1", MaxTextLen) + "\x00", "65536 that are accepted"},
	} {
		got, err := ParseKeys([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%.40q: %d pairs, %v; want an error with %q", c.text, len(got), err, c.reason)
		} else if len(err.Error()) > 200 {
			t.Errorf("%.40q: the message is %d bytes long", c.text, len(err.Error()))
		}
	}
}

func TestParseKeysAtBounds(t *testing.T) {
	text := strings.Repeat("A=1\x00", MaxTextPairs)
	if got, err := ParseKeys([]byte(text)); err != nil || len(got) != MaxTextPairs {
		t.Errorf("%d pairs, %v", len(got), err)
	}
	value := strings.Repeat("1", MaxTextLen-len("A=\x00"))
	if got, err := ParseKeys([]byte("A=" + value + "\x00")); err != nil || len(got) != 1 || got[0].Value != value {
		t.Errorf("a value of %d bytes: %d pairs, %v", len(value), len(got), err)
	}
}

// What breaks off between pairs has less of them; all else is an error.
func TestParseKeysTruncated(t *testing.T) {
	var text []byte
	ends := map[int]int{0: 0}
	for i, pair := range []KeyValue{{KeySessionType, ValueNormal}, {KeyTargetAlias, ""}, {KeyMaxBurstLength, "262144"}} {
		text = AppendKey(text, pair.Key, pair.Value)
		ends[len(text)] = i + 1
	}
	for n := range len(text) + 1 {
		got, err := ParseKeys(text[:n])
		if want, whole := ends[n]; (err == nil) != whole || len(got) != want {
			t.Errorf("%q: %d pairs, %v", text[:n], len(got), err)
		}
	}
}

// NextKey goes on where ParseKeys gives up.
func TestNextKeyUnbounded(t *testing.T) {
	var text []byte
	const n = 3000
	for i := range n {
		text = AppendKey(text, KeyTargetName, fmt.Sprintf("iqn.2012-06.com.example:target%d", i))
	}
	if _, err := ParseKeys(text); err == nil {
		t.Errorf("%d bytes were accepted", len(text))
	}
	for i := range n {
		pair, rest, err := NextKey(text)
		want := KeyValue{KeyTargetName, fmt.Sprintf("iqn.2012-06.com.example:target%d", i)}
		if err != nil || pair != want {
			t.Fatalf("pair %d is %v, %v", i, pair, err)
		}
		text = rest
	}
	if pair, _, err := NextKey(text); err != nil || pair != (KeyValue{}) {
		t.Errorf("at the end: %v, %v", pair, err)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte("SessionType=Normal\x00TargetName=iqn.2012-06.com.example:t\x00\x00"))
	f.Add([]byte("A=\x00=B\x00"))
	f.Add([]byte("A"))
	f.Fuzz(func(t *testing.T, data []byte) {
		pairs, err := ParseKeys(data)
		if err != nil {
			if pairs != nil {
				t.Errorf("%q: both pairs and an error", data)
			}
			return
		}
		var text []byte
		for _, p := range pairs {
			text = AppendKey(text, p.Key, p.Value)
		}
		again, err := ParseKeys(text)
		if diff := cmp.Diff(pairs, again); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", data, err, diff)
		}
	})
}

// The table of §13, for the keys that are numbers.
func TestRangeOf(t *testing.T) {
	for key, want := range map[string]NumericRange{
		KeyMaxConnections:                 {1, 65535, 1},
		KeyTargetPortalGroupTag:           {0, 65535, 0},
		KeyMaxRecvDataSegmentLength:       {512, 16777215, 8192},
		KeyMaxBurstLength:                 {512, 16777215, 262144},
		KeyFirstBurstLength:               {512, 16777215, 65536},
		KeyDefaultTime2Wait:               {0, 3600, 2},
		KeyDefaultTime2Retain:             {0, 3600, 20},
		KeyMaxOutstandingR2T:              {1, 65535, 1},
		KeyErrorRecoveryLevel:             {0, 2, 0},
		KeyProtocolLevel:                  {0, 31, 1},
		KeyInitiatorRecvDataSegmentLength: {512, 16777215, 8192},
		KeyTargetRecvDataSegmentLength:    {512, 16777215, 8192},
	} {
		if got, ok := RangeOf(key); !ok || got != want {
			t.Errorf("%s: %+v, %v; want %+v", key, got, ok, want)
		}
	}
	for _, key := range []string{KeyInitialR2T, KeyTargetName, "", "maxburstlength"} {
		if got, ok := RangeOf(key); ok {
			t.Errorf("%q: %+v", key, got)
		}
	}
}
