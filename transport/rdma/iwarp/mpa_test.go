package iwarp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, parts ...string) []byte {
	t.Helper()
	var all []byte
	for _, s := range parts {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// parseFrame decodes a whole frame.
func parseFrame(b []byte, reply bool) (mpaFrame, error) {
	f, n, err := parseMPAHeader(b, reply)
	if err != nil {
		return f, err
	}
	if len(b) < mpaHeaderLen+n {
		return f, errors.New("cut short")
	}
	f.parsePrivate(b[mpaHeaderLen : mpaHeaderLen+n])
	return f, nil
}

// The first two were seen between an initiator and siw.
var frames = []struct {
	name  string
	bytes []string
	frame mpaFrame
}{
	{
		"request",
		[]string{"4d504120494420526571204672616d65", "10", "02", "0008", "0010", "0000", "c0000000"},
		mpaFrame{enhanced: true, revision: 2, ird: 16, private: []byte{0xc0, 0, 0, 0}},
	},
	{
		"reply",
		[]string{"4d504120494420526570204672616d65", "10", "02", "0008", "0000", "0010", "c0000000"},
		mpaFrame{reply: true, enhanced: true, revision: 2, ord: 16, private: []byte{0xc0, 0, 0, 0}},
	},
	{
		"revision 1",
		[]string{"4d504120494420526571204672616d65", "40", "01", "0002", "abcd"},
		mpaFrame{crc: true, revision: 1, private: []byte{0xab, 0xcd}},
	},
	{
		"markers and rejection",
		[]string{"4d504120494420526570204672616d65", "a0", "01", "0000"},
		mpaFrame{reply: true, markers: true, reject: true, revision: 1, private: []byte{}},
	},
	{
		"peer to peer",
		[]string{"4d504120494420526571204672616d65", "50", "02", "0004", "c010", "ffff"},
		mpaFrame{crc: true, enhanced: true, revision: 2, ird: 16, ord: readsUnsaid, peerToPeer: true, rtr: RTRSend | RTRWrite | RTRRead, private: []byte{}},
	},
	{
		"peer to peer by a Read",
		[]string{"4d504120494420526570204672616d65", "50", "02", "0005", "8001", "4002", "99"},
		mpaFrame{reply: true, crc: true, enhanced: true, revision: 2, ird: 1, ord: 2, peerToPeer: true, rtr: RTRRead, private: []byte{0x99}},
	},
}

func TestMPAFrames(t *testing.T) {
	for _, c := range frames {
		want := unhex(t, c.bytes...)
		if got := c.frame.append(nil); !bytes.Equal(got, want) {
			t.Errorf("%s: encoded as %x, want %x", c.name, got, want)
		}
		got, err := parseFrame(want, c.frame.reply)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.frame, got, cmp.AllowUnexported(mpaFrame{})); d != "" {
			t.Errorf("%s: decoded with these differences:\n%s", c.name, d)
		}
		for n := range want {
			if _, err := parseFrame(want[:n], c.frame.reply); err == nil {
				t.Errorf("%s: accepted when cut to %d bytes", c.name, n)
			}
		}
		if _, err := parseFrame(want, !c.frame.reply); !errors.Is(err, ErrNotIWARP) {
			t.Errorf("%s in the wrong direction: %v", c.name, err)
		}
	}
}

// siw sets a reserved bit, and a revision 1 frame has no enhanced part whatever
// its flags say.
func TestMPAReservedBits(t *testing.T) {
	f, err := parseFrame(unhex(t, "4d504120494420526571204672616d65", "18", "02", "0004", "0001", "0002"), false)
	if err != nil || !f.enhanced || f.ird != 1 || f.ord != 2 {
		t.Errorf("with the bit 0x08: %+v, %v", f, err)
	}
	f, err = parseFrame(unhex(t, "4d504120494420526571204672616d65", "10", "01", "0004", "0001", "0002"), false)
	if err != nil || f.enhanced || len(f.private) != 4 {
		t.Errorf("enhanced bit in revision 1: %+v, %v", f, err)
	}
}

func TestMPABadFrames(t *testing.T) {
	for name, b := range map[string][]byte{
		"too much private data":  unhex(t, "4d504120494420526571204672616d65", "00", "01", "0201"),
		"enhanced without depth": unhex(t, "4d504120494420526571204672616d65", "10", "02", "0003", "000000"),
		"something else":         []byte("SSH-2.0-OpenSSH_9.2p1 Debian-2"),
		"nothing":                nil,
	} {
		if f, err := parseFrame(b, false); err == nil {
			t.Errorf("%s: accepted as %+v", name, f)
		}
	}
}

func TestReadDepth(t *testing.T) {
	for _, c := range []struct {
		ours  int
		peers uint16
		said  bool
		want  int
	}{{16, 4, true, 4}, {4, 16, true, 4}, {16, readsUnsaid, true, 16}, {16, 0, true, 0}, {16, 0, false, 16}} {
		if got := readDepth(c.ours, c.peers, c.said); got != c.want {
			t.Errorf("readDepth(%d, %d, %t) = %d, want %d", c.ours, c.peers, c.said, got, c.want)
		}
	}
}

func FuzzMPA(f *testing.F) {
	for _, c := range frames {
		f.Add(unhex(f, c.bytes...), c.frame.reply)
	}
	f.Fuzz(func(t *testing.T, b []byte, reply bool) {
		frame, err := parseFrame(b, reply)
		if err != nil {
			return
		}
		again, err := parseFrame(frame.append(nil), reply)
		if err != nil {
			t.Fatalf("%+v does not survive: %v", frame, err)
		}
		if d := cmp.Diff(frame, again, cmp.AllowUnexported(mpaFrame{})); d != "" {
			t.Errorf("decoded again with these differences:\n%s", d)
		}
	})
}
