package e2e

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"unicode"
)

// A target written from RFC 7143 by hand, byte by byte, which logs an initiator in
// and then attacks it.

// pdu is a PDU as it comes: 48 bytes of header, and data.
type pdu struct {
	header [48]byte
	data   []byte
}

func receive(c io.Reader) (p pdu, err error) {
	if _, err = io.ReadFull(c, p.header[:]); err != nil {
		return p, err
	}
	n := int(p.header[5])<<16 | int(p.header[6])<<8 | int(p.header[7])
	p.data = make([]byte, (n+3)&^3)
	_, err = io.ReadFull(c, p.data)
	p.data = p.data[:n]
	return p, err
}

// reply begins an answer of some kind to a PDU: its tag, and the numbers.
func (p *pdu) reply(opcode byte, statSN uint32) (h [48]byte) {
	h[0], h[1] = opcode, 0x80
	copy(h[16:20], p.header[16:20])
	binary.BigEndian.PutUint32(h[24:], statSN)
	next := binary.BigEndian.Uint32(p.header[24:]) // CmdSN
	if p.header[0]&0x40 == 0 {
		next++
	}
	binary.BigEndian.PutUint32(h[28:], next)
	binary.BigEndian.PutUint32(h[32:], next+32)
	return h
}

// with is a header's bytes with some of them replaced, and data after it.
func with(h [48]byte, data string, edits map[int]string) []byte {
	h[5], h[6], h[7] = byte(len(data)>>16), byte(len(data)>>8), byte(len(data))
	for at, text := range edits {
		copy(h[at:], text)
	}
	out := append(h[:], data...)
	return append(out, make([]byte, -len(out)&3)...)
}

// logIn answers login requests as a target does that has nothing to negotiate.
func logIn(c net.Conn) (statSN uint32, err error) {
	for statSN = 1; ; statSN++ {
		p, err := receive(c)
		if err != nil {
			return 0, err
		}
		h := loginAnswer(&p, statSN)
		text := ""
		if p.header[1]&0x0c == 0 && bytes.Contains(p.data, []byte("AuthMethod=")) {
			text = "AuthMethod=None\x00TargetPortalGroupTag=1\x00"
		}
		if _, err := c.Write(with(h, text, nil)); err != nil {
			return 0, err
		}
		if p.header[1]&0x83 == 0x83 { // to the full-feature phase
			return statSN + 1, nil
		}
	}
}

// loginAnswer agrees to what a login request wants.
func loginAnswer(p *pdu, statSN uint32) (h [48]byte) {
	h = p.reply(0x23, statSN)
	h[1] = p.header[1]
	copy(h[8:14], p.header[8:14]) // ISID
	if p.header[1]&0x83 == 0x83 {
		h[15] = 1 // TSIH
	}
	binary.BigEndian.PutUint32(h[28:], binary.BigEndian.Uint32(p.header[24:]))
	return h
}

// attacks are answers to the first command after login. p is that command.
var attacks = map[string]func(p pdu, statSN uint32) []byte{
	"oversize data": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x25, sn), strings.Repeat("x", 100), map[int]string{5: "\xff\xff\xff"})
	},
	"more data than agreed": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x25, sn), strings.Repeat("x", 1<<20), map[int]string{})
	},
	"unknown opcode":     func(p pdu, sn uint32) []byte { return with(p.reply(0x3e, sn), "", nil) },
	"initiator's opcode": func(p pdu, sn uint32) []byte { return with(p.reply(0x01, sn), "", nil) },
	"data out of bounds": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x25, sn), "abcd", map[int]string{40: "\x7f\xff\xff\xf0"})
	},
	"data at the last bit": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x25, sn), "abcd", map[int]string{40: "\xff\xff\xff\xff"})
	},
	"wrong DataSN": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x25, sn), "abcd", map[int]string{36: "\x00\x00\x00\x09"})
	},
	"wrong task": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x21, sn), "", map[int]string{16: "\xab\xcd\xef\x01"})
	},
	"reserved task": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x25, sn), "abcd", map[int]string{16: "\xff\xff\xff\xff"})
	},
	"additional header": func(p pdu, sn uint32) []byte {
		return append(with(p.reply(0x21, sn), "", map[int]string{4: "\xff"}), make([]byte, 255*4)...)
	},
	"R2T for a read": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x31, sn), "", map[int]string{20: "\x00\x00\x00\x01", 44: "\xff\xff\xff\xff"})
	},
	"R2T for nothing": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x31, sn), "", map[int]string{16: "\x12\x34\x56\x78", 44: "\x00\x00\x02\x00"})
	},
	"sense longer than its data": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x21, sn), "\xff\xff\x70\x00", map[int]string{3: "\x02"})
	},
	"wrong StatSN": func(p pdu, sn uint32) []byte { return with(p.reply(0x21, sn+1000), "", nil) },
	"text unasked": func(p pdu, sn uint32) []byte { return with(p.reply(0x24, sn), "TargetName=x\x00", nil) },
	"login again":  func(p pdu, sn uint32) []byte { return with(p.reply(0x23, sn), "", nil) },
	"logout unasked": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x26, sn), "", nil)
	},
	"task management unasked": func(p pdu, sn uint32) []byte { return with(p.reply(0x22, sn), "", nil) },
	"reject of nothing":       func(p pdu, sn uint32) []byte { return with(p.reply(0x3f, sn), "", map[int]string{2: "\x04"}) },
	"reject of garbage": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x3f, sn), strings.Repeat("\xee", 48), map[int]string{2: "\x04", 16: "\xff\xff\xff\xff"})
	},
	"async with bad sense": func(p pdu, sn uint32) []byte {
		return append(with(p.reply(0x32, sn), "\xff\xff", map[int]string{16: "\xff\xff\xff\xff"}), with(p.reply(0x3d, sn), "", nil)...)
	},
	"ping with a tag of nobody": func(p pdu, sn uint32) []byte {
		return with(p.reply(0x20, sn), "", map[int]string{16: "\x11\x22\x33\x44"})
	},
	"half a header":    func(p pdu, sn uint32) []byte { return with(p.reply(0x25, sn), "", nil)[:20] },
	"half of the data": func(p pdu, sn uint32) []byte { return with(p.reply(0x25, sn), strings.Repeat("x", 512), nil)[:300] },
	"nothing at all":   func(pdu, uint32) []byte { return nil },
	"ones":             func(pdu, uint32) []byte { return bytes.Repeat([]byte{0xff}, 4096) },
	"zeroes":           func(pdu, uint32) []byte { return make([]byte, 4096) },
}

// TestHostileTargets logs in at targets that then send nonsense: the daemon survives,
// says why it left, and tries again.
func TestHostileTargets(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "-o", "kern.iscsi.ping_timeout=2", "-o", "kern.iscsi.arena_size=4m")
	wantRepelled(t, d, attackers())
}

// attackers are targets that send an attack after the first command.
func attackers() map[string]func(net.Conn) {
	list := map[string]func(net.Conn){}
	for what, attack := range attacks {
		list[what] = func(c net.Conn) {
			sn, err := logIn(c)
			if err != nil {
				return
			}
			p, err := receive(c)
			if err != nil {
				return
			}
			_, _ = c.Write(attack(p, sn))
			if what == "nothing at all" {
				_, _ = io.Copy(io.Discard, c)
			}
		}
	}
	return list
}

// wantRepelled adds sessions with hostile targets, and removes each when the daemon
// has said what is wrong with it and has tried again.
func wantRepelled(t *testing.T, d *daemon, targets map[string]func(net.Conn)) {
	t.Helper()
	servers := map[string]*server{}
	for what, handle := range targets {
		s := newHandler(t, handle)
		servers[what] = s
		d.ok("-A", "-p", s.portal, "-t", nameFor(what))
	}
	for what, s := range servers {
		got := d.until(nameFor(what), "what is wrong", func(s session) bool { return s.LastFailure != "" })
		if got.LastFailure == "EOF" || strings.ContainsFunc(got.LastFailure, unicode.IsControl) {
			t.Errorf("%s: what is wrong is not well said: %q", what, got.LastFailure)
		}
		if !d.says(s.portal + " (" + nameFor(what) + "): ") {
			t.Errorf("%s: the log does not tell of it", what)
		}
		eventually(t, what+": another attempt", func() bool { return s.accepted.Load() >= 2 })
		d.ok("-R", "-p", s.portal)
		t.Logf("%s: %s", what, got.LastFailure)
	}
}

// nameFor makes a target's name of a description.
func nameFor(what string) string {
	return "iqn.2026-11.example:" + strings.NewReplacer(" ", "-", "'", "").Replace(strings.ToLower(what))
}

// TestHostileLogins meets targets that send nonsense during login.
func TestHostileLogins(t *testing.T) {
	t.Parallel()
	answer := func(data string, edits map[int]string) func(net.Conn) {
		return func(c net.Conn) {
			p, err := receive(c)
			if err != nil {
				return
			}
			_, _ = c.Write(with(loginAnswer(&p, 1), data, edits))
			_, _ = io.Copy(io.Discard, c)
		}
	}
	forever := func(data string, edits map[int]string) func(net.Conn) {
		return func(c net.Conn) {
			for sn := uint32(1); ; sn++ {
				p, err := receive(c)
				if err != nil {
					return
				}
				if _, err := c.Write(with(loginAnswer(&p, sn), data, edits)); err != nil {
					return
				}
			}
		}
	}
	d := newDaemon(t, "-t", "5", "-o", "kern.iscsi.login_timeout=2", "-o", "kern.iscsi.arena_size=4m")
	wantRepelled(t, d, map[string]func(net.Conn){
		"oversize":           answer("", map[int]string{5: "\xff\xff\xff"}),
		"too much":           answer(strings.Repeat("x", 100_000), nil),
		"wrong tag":          answer("AuthMethod=None\x00", map[int]string{16: "\xde\xad\xbe\xef"}),
		"wrong ISID":         answer("AuthMethod=None\x00", map[int]string{8: "\xde\xad\xbe\xef"}),
		"wrong version":      answer("AuthMethod=None\x00", map[int]string{2: "\x05\x05"}),
		"wrong stage":        answer("AuthMethod=None\x00", map[int]string{1: "\x87"}),
		"no key":             answer("just text\x00\x00\x00=\x00", nil),
		"no end of a key":    answer("AuthMethod=None", nil),
		"other method":       answer("AuthMethod=KRB5\x00", nil),
		"huge numbers":       answer("AuthMethod=None\x00MaxBurstLength=99999999999999999999\x00", nil),
		"same key":           answer(strings.Repeat("AuthMethod=None\x00", 50), nil),
		"control characters": answer("AuthMethod=\x1b[2J\x07\x00", nil),
		"always more":        forever(strings.Repeat("X-k=v\x00", 100), map[int]string{1: "\x40"}),
		"never done":         forever("", map[int]string{1: "\x00"}),
		"data instead":       answer("abcd", map[int]string{0: "\x25"}),
		"unknown status":     answer("", map[int]string{36: "\x09\x09"}),
		"moved to nowhere":   answer("", map[int]string{36: "\x01\x01"}),
		"moved to nonsense":  answer("TargetAddress=[::1%lo]:70000,x\x00", map[int]string{36: "\x01\x02"}),
	})
}

// TestGoodBesideHostile uses a disk while the same daemon deals with hostile targets.
func TestGoodBesideHostile(t *testing.T) {
	t.Parallel()
	const name = "iqn.2026-11.example:good"
	g, d := newTgtd(t), newDaemon(t, "-o", "kern.iscsi.arena_size=4m")
	tid := g.target(name)
	g.lun(tid, 1, 16)
	for what, handle := range attackers() {
		d.ok("-A", "-p", newHandler(t, handle).portal, "-t", nameFor(what))
	}
	d.ok("-A", "-p", g.portal(), "-t", name)
	fio(t, d.disk(name, 1), "--bs=32k", "--size=8M", "--iodepth=8")
	if s := d.session(name); s.Errors != 0 || s.Reconnections != 0 {
		t.Errorf("%d errors, %d reconnections beside hostile targets", s.Errors, s.Reconnections)
	}
	d.ok("-R", "-a")
}
