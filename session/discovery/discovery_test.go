package discovery_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"iscsictl/iscsi"
	"iscsictl/session/discovery"
)

const (
	tag         = 0x1234
	transferTag = 0xabcd0001
)

// piece is one Text Response.
type piece struct {
	data []byte
	edit func(*iscsi.TextResponse)
}

var errScriptEnds = errors.New("the script has no more answers")

// run asks a scripted target, whose last piece is final and whose others go on.
func run(t testing.TB, pieces ...piece) (discovery.Result, error) {
	t.Helper()
	m := discovery.New(discovery.Config{InitiatorTaskTag: tag, CmdSN: 5, ExpStatSN: 100})
	h, out, done, err := m.Next(nil, nil)
	for i := 0; err == nil && !done; i++ {
		checkRequest(t, &h, out, i)
		if i == len(pieces) {
			return m.Result(), errScriptEnds
		}
		p := iscsi.TextResponse{
			Final: i == len(pieces)-1, Continue: i < len(pieces)-1,
			InitiatorTaskTag: tag, TargetTransferTag: transferTag, LUN: 1 << 48,
			StatSN: 100 + uint32(i), ExpCmdSN: 5, MaxCmdSN: 9, DataSegmentLength: len(pieces[i].data),
		}
		if p.Final {
			p.TargetTransferTag, p.LUN = iscsi.ReservedTag, 0
		}
		if pieces[i].edit != nil {
			pieces[i].edit(&p)
		}
		var rh iscsi.BHS
		p.Encode(&rh)
		h, out, done, err = m.Next(&rh, pieces[i].data)
	}
	return m.Result(), err
}

func checkRequest(t testing.TB, h *iscsi.BHS, out []byte, i int) {
	t.Helper()
	var got iscsi.TextRequest
	if err := got.Decode(h); err != nil {
		t.Fatal(err)
	}
	want := iscsi.TextRequest{
		Immediate: true, Final: true, InitiatorTaskTag: tag, TargetTransferTag: transferTag, LUN: 1 << 48,
		CmdSN: 5, ExpStatSN: 100 + uint32(i), DataSegmentLength: len(out),
	}
	text := ""
	if i == 0 {
		want.TargetTransferTag, want.LUN, text = iscsi.ReservedTag, 0, "SendTargets=All\x00"
	}
	if got != want || string(out) != text {
		t.Fatalf("request %d: %q, header (-want +got):\n%s", i, out, cmp.Diff(want, got))
	}
}

func text(pairs ...string) []byte {
	return []byte(strings.Join(pairs, "\x00") + "\x00")
}

// whole is an answer with all that an answer may have.
var (
	whole = text(
		"TargetName=iqn.2012-06.com.example:a",
		"TargetAddress=10.0.0.1:3260,1", "TargetAddress=[2001:db8::1]:3261,2", "TargetAddress=10.0.0.1:3260,1",
		"TargetName=iqn.2012-06.com.example:b",
		"TargetName=iqn.2012-06.com.example:c",
		"TargetAddress=storage.example.com", "TargetAddress=[fe80::1]", "TargetAddress=10.0.0.3,65535",
		"TargetName=iqn.2012-06.com.example:a",
		"TargetAddress=10.0.0.9:860,0x3",
	)
	wholeTargets = []discovery.Target{
		{Name: "iqn.2012-06.com.example:a", Portals: []discovery.Portal{
			{Host: "10.0.0.1", Port: 3260, Tag: 1}, {Host: "2001:db8::1", Port: 3261, Tag: 2}, {Host: "10.0.0.9", Port: 860, Tag: 3},
		}},
		{Name: "iqn.2012-06.com.example:b"},
		{Name: "iqn.2012-06.com.example:c", Portals: []discovery.Portal{
			{Host: "storage.example.com", Port: 3260, Tag: -1}, {Host: "fe80::1", Port: 3260, Tag: -1}, {Host: "10.0.0.3", Port: 3260, Tag: 65535},
		}},
	}
)

func TestWhole(t *testing.T) {
	got, err := run(t, piece{data: whole})
	if err != nil {
		t.Fatal(err)
	}
	want := discovery.Result{Targets: wholeTargets, ExpStatSN: 101, ExpCmdSN: 5, MaxCmdSN: 9}
	if d := cmp.Diff(want, got); d != "" {
		t.Error("-want +got:\n", d)
	}
}

func TestNoTargets(t *testing.T) {
	for _, data := range [][]byte{nil, {0}, {0, 0, 0, 0}} {
		if got, err := run(t, piece{data: data}); err != nil || len(got.Targets) > 0 || len(got.Warnings) > 0 {
			t.Errorf("%q: %v, %+v", data, err, got)
		}
	}
}

// An answer may be cut anywhere, with the C bit or just not final.
func TestPieces(t *testing.T) {
	without := func(p *iscsi.TextResponse) { p.Continue = false }
	check := func(pieces ...piece) {
		t.Helper()
		got, err := run(t, pieces...)
		if err != nil {
			t.Fatalf("%d pieces: %v", len(pieces), err)
		}
		if d := cmp.Diff(wholeTargets, got.Targets); d != "" || got.ExpStatSN != 100+uint32(len(pieces)) {
			t.Fatalf("%d pieces, ExpStatSN %d, -want +got:\n%s", len(pieces), got.ExpStatSN, d)
		}
	}
	for at := range len(whole) + 1 {
		check(piece{data: whole[:at]}, piece{data: whole[at:]})
	}
	var bytewise []piece
	for i := range whole {
		bytewise = append(bytewise, piece{data: whole[i : i+1]})
	}
	check(bytewise...)
	cut := bytes.IndexByte(whole, 0) + 1
	check(piece{whole[:cut], without}, piece{nil, without}, piece{data: whole[cut:]})
}

func TestTruncated(t *testing.T) {
	for n := 1; n < len(whole); n++ {
		_, err := run(t, piece{data: whole[:n]})
		if ends := whole[n-1] == 0; ends != (err == nil) {
			t.Errorf("%d bytes ending in %q: %v", n, whole[max(0, n-8):n], err)
		}
	}
}

func TestSkipped(t *testing.T) {
	got, err := run(t, piece{data: text(
		"TargetName=", "TargetAddress=10.0.0.1",
		"TargetName="+strings.Repeat("n", 224), "TargetAddress=10.0.0.1",
		"TargetName=iqn.2012-06.com.example:\x1b[31m", "TargetAddress=10.0.0.1",
		"TargetName=iqn.2012-06.com.example:../good",
		"TargetAddress=", "TargetAddress=:3260", "TargetAddress=10.0.0.1:0", "TargetAddress=10.0.0.1:65536", "TargetAddress=10.0.0.1,x",
		"TargetAddress=[::1", "TargetAddress=[fe80::1%\x1b]:3260", "TargetAddress=a b", "TargetAlias=alias", "TargetAddress=10.0.0.4",
	)})
	if err != nil {
		t.Fatal(err)
	}
	want := []discovery.Target{{
		Name:    "iqn.2012-06.com.example:../good", // usable on the wire; whoever makes a path of it escapes it
		Portals: []discovery.Portal{{Host: "10.0.0.4", Port: 3260, Tag: -1}},
	}}
	if d := cmp.Diff(want, got.Targets); d != "" {
		t.Error("-want +got:\n", d)
	}
	if len(got.Warnings) != 12 {
		t.Errorf("%d warnings: %q", len(got.Warnings), got.Warnings)
	}
	if all := strings.Join(got.Warnings, ""); strings.ContainsAny(all, "\x1b\x00") || len(all) > 12*400 {
		t.Errorf("warnings %q", all)
	}
}

func TestRefused(t *testing.T) {
	good := text("TargetName=iqn.2012-06.com.example:a")
	for name, c := range map[string]piece{
		"address before a name": {data: text("TargetAddress=10.0.0.1")},
		"SendTargets rejected":  {data: text("SendTargets=Reject")},
		"SendTargets not known": {data: text("SendTargets=NotUnderstood")},
		"no value":              {data: text("TargetName")},
		"no key":                {data: text("=a")},
		"long pair":             {data: text("TargetAlias=" + strings.Repeat("a", 5000))},
		"long pair without end": {data: bytes.Repeat([]byte("a"), 8192)},
		"tag":                   {good, func(p *iscsi.TextResponse) { p.InitiatorTaskTag++ }},
		"F with C":              {good, func(p *iscsi.TextResponse) { p.Continue = true }},
		"not final without tag": {good, func(p *iscsi.TextResponse) { p.Final = false }},
		"less data than said":   {good, func(p *iscsi.TextResponse) { p.DataSegmentLength++ }},
	} {
		if got, err := run(t, c); err == nil || errors.Is(err, errScriptEnds) || strings.ContainsAny(err.Error(), "\x00\x1b") {
			t.Errorf("%s: %v, %+v", name, err, got)
		}
	}
	endless := make([]piece, 1<<16+2)
	for i := range endless {
		endless[i].data = []byte{0} // an empty key
	}
	if _, err := run(t, endless...); err == nil || !strings.Contains(err.Error(), "no end") {
		t.Errorf("for ever: %v", err)
	}
	// LIO by iSER, where it was told no segment length: it crashes after a while.
	if _, err := run(t, make([]piece, 10)...); err == nil || !strings.Contains(err.Error(), "sends none") {
		t.Errorf("nothing, for ever: %v", err)
	}
}

func TestOtherPDUs(t *testing.T) {
	for op := range 64 {
		m := discovery.New(discovery.Config{InitiatorTaskTag: tag})
		if _, _, _, err := m.Next(nil, nil); err != nil {
			t.Fatal(err)
		}
		h := iscsi.BHS{byte(op), 0x80}
		if op == int(iscsi.OpReject) {
			r := iscsi.Reject{Reason: iscsi.RejectOutOfResources}
			r.Encode(&h)
		}
		_, _, _, err := m.Next(&h, nil)
		if err == nil {
			t.Errorf("%v was accepted", h.Opcode())
		}
		if op == int(iscsi.OpReject) && !strings.Contains(err.Error(), "out of resources") {
			t.Errorf("Reject: %v", err)
		}
		if _, _, _, again := m.Next(nil, nil); again == nil || again.Error() != err.Error() {
			t.Errorf("%v: got %v after the end", h.Opcode(), again)
		}
	}
	m := discovery.New(discovery.Config{})
	if _, _, _, err := m.Next(new(iscsi.BHS), nil); err == nil {
		t.Error("an answer before the request was accepted")
	}
	m = discovery.New(discovery.Config{})
	if _, _, _, err := m.Next(nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := m.Next(nil, nil); err == nil {
		t.Error("no answer was accepted")
	}
}

// Long answers, and where they become too long.
func TestBounds(t *testing.T) {
	answer := func(targets int, line func(int) string) []piece {
		var out []piece
		var b []byte
		for i := range targets {
			b = append(append(b, line(i)...), 0)
			if len(b) > 1<<18 {
				out, b = append(out, piece{data: b}), nil
			}
		}
		return append(out, piece{data: b})
	}
	name := func(i int) string { return fmt.Sprintf("TargetName=iqn.2012-06.com.example:%d", i) }
	got, err := run(t, answer(100_000, name)...)
	if err != nil || len(got.Targets) != 100_000 || got.Targets[99_999].Name != "iqn.2012-06.com.example:99999" {
		t.Errorf("100000 targets: %v, %d", err, len(got.Targets))
	}
	if _, err := run(t, answer(100_001, name)...); err == nil {
		t.Error("100001 targets were accepted")
	}
	long := func(i int) string { return fmt.Sprintf("TargetName=iqn.2012-06.com.example:%0190d", i%1000) }
	if _, err := run(t, answer(80_000, long)...); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("17 MB: %v", err)
	}
	got, err = run(t, answer(1001, func(i int) string {
		if i == 0 {
			return name(0)
		}
		return fmt.Sprintf("TargetAddress=10.0.%d.%d", i/250, i%250)
	})...)
	if err != nil || len(got.Targets) != 1 || len(got.Targets[0].Portals) != 128 || len(got.Warnings) != 32 {
		t.Errorf("1000 portals: %v, %d kept", err, len(got.Targets[0].Portals))
	}
}

func FuzzNext(f *testing.F) {
	f.Add(whole, uint16(40), uint8(0), uint8(0))
	f.Add(text("TargetAddress=a"), uint16(1), uint8(1), uint8(0x40))
	f.Add(text("TargetName=iqn.x", "TargetAddress=[::]:1,1", "SendTargets=Reject"), uint16(9), uint8(20), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, size uint16, at, flip uint8) {
		m := discovery.New(discovery.Config{InitiatorTaskTag: tag, CmdSN: 5})
		_, _, done, err := m.Next(nil, nil)
		for err == nil && !done {
			n := min(int(size)+1, len(data))
			p := iscsi.TextResponse{
				Final: n == len(data), Continue: n < len(data), InitiatorTaskTag: tag, TargetTransferTag: transferTag,
				MaxCmdSN: 9, DataSegmentLength: n,
			}
			var h iscsi.BHS
			p.Encode(&h)
			if at < 48 && len(data)%3 == 0 {
				h[at] ^= flip
			}
			_, _, done, err = m.Next(&h, data[:n])
			data = data[n:]
			if len(data) == 0 && !done && err == nil {
				return // the spoilt header says that more is to come
			}
		}
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x00\x1b\n") || len(err.Error()) > 1000 {
				t.Errorf("message %q", err)
			}
			return
		}
		for _, target := range m.Result().Targets {
			if _, err := iscsi.ValidateName(target.Name); err != nil {
				t.Errorf("kept %q: %v", target.Name, err)
			}
			for _, p := range target.Portals {
				if _, _, _, err := iscsi.ParseTargetAddress(p.Address()); err != nil {
					t.Errorf("address %q: %v", p.Address(), err)
				}
			}
		}
	})
}
