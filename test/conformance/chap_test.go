package conformance

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"testing"

	"iscsictl/target"
)

const chapSuite = "CHAP"

const (
	user, secret             = "alice", "an-initiators-secret"
	targetUser, targetSecret = "vault", "the-targets-own-one"
)

var (
	chapLines   = []string{"chapIName = " + user, "chapSecret = " + secret}
	mutualLines = append([]string{"tgtChapName = " + targetUser, "tgtChapSecret = " + targetSecret}, chapLines...)
)

func chap() []group {
	return []group{
		{chapSuite, "CHAP_A", []item{
			{"CHAP 1.1", "a list of algorithms, MD5 among them", "§12.1.3", algorithms, ""},
			{"CHAP 1.2", "an algorithm that was not offered ends the login", "§12.1.3", refusedCHAP("CHAP_A=99"), ""},
			{"CHAP 1.3", "a target that refuses lists is offered MD5 alone", "§12.1.3", refusesLists, ""},
		}},
		{chapSuite, "CHAP_I", []item{
			{"CHAP 2.1", "the identifier goes into the response", "RFC 1994 §4.1", response(false, 0), ""},
			{"CHAP 2.2", "an identifier above 255 ends the login", "§12.1.3", refusedCHAP("CHAP_I=256"), ""},
			{"CHAP 2.3", "one that is no number ends it", "§12.1.3", refusedCHAP("CHAP_I=one"), ""},
		}},
		{chapSuite, "CHAP_C", []item{
			{"CHAP 3.1", "a challenge of one byte", "§12.1.3", response(false, 1), ""},
			{"CHAP 3.2", "a challenge of 1024 bytes", "§12.1.3", response(false, 1024), ""},
			{"CHAP 3.3", "a challenge in base64", "§6.1", response(true, 0), ""},
			{"CHAP 3.4", "a challenge above 1024 bytes ends the login", "§12.1.3", refusedCHAP("CHAP_C=0x" + strings.Repeat("ab", 1025)), ""},
			{"CHAP 3.5", "an empty one ends it", "§12.1.3", refusedCHAP("CHAP_C=0x"), ""},
			{"CHAP 3.6", "one that is not binary ends it", "§6.1", refusedCHAP("CHAP_C=abcd"), ""},
			{"CHAP 3.7", "keys out of order end it", "§12.1.3", refusedCHAP("CHAP_R=0x00112233445566778899aabbccddeeff"), ""},
			{"CHAP 3.8", "the initiator's challenge is not the target's", "§9.2.1", ownChallenge, ""},
		}},
		{chapSuite, "CHAP_N", []item{
			{"CHAP 4.1", "the initiator's name", "§12.1.3", response(false, 0), ""},
			{"CHAP 4.2", "another name of the target's ends the login", "§12.1.3", mutualRefused("CHAP_N=other"), ""},
			{"CHAP 4.3", "no name of the target's ends it", "§12.1.3", noProof, ""},
		}},
		{chapSuite, "CHAP_R", []item{
			{"CHAP 5.1", "mutual authentication", "§12.1.3", mutual, ""},
			{"CHAP 5.2", "a wrong response of the target ends the login", "§12.1.3", mutualRefused("CHAP_R=0x00112233445566778899aabbccddeeff"), ""},
			{"CHAP 5.3", "a response of a wrong length ends it", "§12.1.3", mutualRefused("CHAP_R=0x00"), ""},
		}},
	}
}

func withCHAP(c target.CHAP) target.Target {
	c.Users = []target.Credential{{Name: user, Secret: secret}}
	return target.Target{CHAP: &c}
}

// algorithms: §12.1.3: MD5 is 5 and must be there; the others are IANA's.
func algorithms(t *testing.T) {
	g := newRig(t, withCHAP(target.CHAP{}))
	g.up(chapLines...)
	list := strings.Split(g.offer("CHAP_A"), ",")
	md5 := false
	for _, a := range list {
		n, err := strconv.Atoi(a)
		if err != nil || n < 5 || n > 8 {
			t.Errorf("algorithm %q", a)
		}
		md5 = md5 || n == 5
	}
	if !md5 {
		t.Errorf("CHAP_A=%s has no MD5", strings.Join(list, ","))
	}
}

func refusesLists(t *testing.T) {
	g := newRig(t, withCHAP(target.CHAP{RefuseLists: true}))
	g.same(g.up(chapLines...), 0, 4096)
	var asked []string
	for _, p := range all(g.trace(), loginRequest) {
		if v, ok := p.text("CHAP_A"); ok {
			asked = append(asked, v)
		}
	}
	if n := len(asked); n < 2 || asked[n-1] != "5" {
		t.Errorf("CHAP_A: %q", asked)
	}
}

func refusedCHAP(text string) func(*testing.T) {
	return func(t *testing.T) {
		// At the request that has CHAP_A.
		g := newRig(t, withCHAP(target.CHAP{}), target.Fault{Action: target.ActionAnswer, Text: text, Connection: 1, Nth: 2})
		g.refused(text, chapLines...)
	}
}

// proof returns the login request that has CHAP_R.
func (g *rig) proof() *pdu {
	for _, p := range all(g.trace(), loginRequest) {
		if _, ok := p.text("CHAP_R"); ok {
			return p
		}
	}
	return nil
}

// response: RFC 1994 §4.1: the hash of identifier, secret and challenge.
func response(base64 bool, challenge int) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, withCHAP(target.CHAP{Base64: base64, Challenge: challenge, Algorithms: []string{"MD5"}}))
		g.up(chapLines...)
		p := g.proof()
		var id, given string
		for _, q := range all(g.trace(), loginResponse) {
			if v, ok := q.text("CHAP_C"); ok {
				given = v
				id, _ = q.text("CHAP_I")
			}
		}
		n, err := strconv.Atoi(id)
		if err != nil {
			t.Fatal(err)
		}
		want := md5.Sum(append(append([]byte{byte(n)}, secret...), binaryValue(t, given)...))
		got, _ := p.text("CHAP_R")
		if !bytes.Equal(binaryValue(t, got), want[:]) {
			t.Errorf("CHAP_R=%s, not %x", got, want)
		}
		if name, _ := p.text("CHAP_N"); name != user {
			t.Errorf("CHAP_N=%s", name)
		}
	}
}

// binaryValue reads a binary value (§6.1).
func binaryValue(t *testing.T, text string) []byte {
	t.Helper()
	var b []byte
	var err error
	switch {
	case strings.HasPrefix(text, "0x"):
		b, err = hex.DecodeString(text[2:])
	case strings.HasPrefix(text, "0b"):
		b, err = base64.StdEncoding.DecodeString(text[2:])
	default:
		t.Fatalf("%q is no binary value", text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func withMutual() target.Target {
	return withCHAP(target.CHAP{Mutual: &target.Credential{Name: targetUser, Secret: targetSecret}})
}

// ownChallenge: §9.2.1: a challenge that is the other's own would let it be
// reflected. Each is new.
func ownChallenge(t *testing.T) {
	g := newRig(t, withMutual())
	c := g.up(mutualLines...)
	g.server.DropAll()
	g.same(c, 0, 4096)
	seen := map[string]bool{}
	for _, p := range g.trace() {
		v, ok := p.text("CHAP_C")
		if !ok || p.opcode() != loginRequest && p.opcode() != loginResponse {
			continue
		}
		if seen[strings.ToLower(v)] {
			t.Errorf("the challenge %s comes twice", v)
		}
		if n := len(binaryValue(t, v)); p.sent && n < 16 {
			t.Errorf("a challenge of %d bytes", n)
		}
		seen[strings.ToLower(v)] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d challenges in two logins", len(seen))
	}
}

func mutualRefused(text string) func(*testing.T) {
	return func(t *testing.T) {
		g := newRig(t, withMutual(), target.Fault{Action: target.ActionAnswer, Text: text, Connection: 1, Nth: 3})
		g.refused(text, mutualLines...)
	}
}

// noProof: a target that does not answer the initiator's challenge.
func noProof(t *testing.T) {
	g := newRig(t, withCHAP(target.CHAP{}))
	g.fails("", mutualLines...)
	if n := len(all(g.trace(), scsiCommand)); n > 0 {
		t.Errorf("%d commands to a target that has not shown who it is", n)
	}
}

func mutual(t *testing.T) {
	g := newRig(t, withCHAP(target.CHAP{Algorithms: []string{"MD5"}, Mutual: &target.Credential{Name: targetUser, Secret: targetSecret}}))
	g.same(g.up(mutualLines...), 0, 4096)
	p := g.proof()
	id, _ := p.text("CHAP_I")
	challenge, _ := p.text("CHAP_C")
	n, _ := strconv.Atoi(id)
	text := append(append([]byte{byte(n)}, targetSecret...), binaryValue(t, challenge)...)
	want := md5.Sum(text)
	for _, q := range all(g.trace(), loginResponse) {
		if v, ok := q.text("CHAP_R"); ok {
			if got := binaryValue(t, v); !bytes.Equal(got, want[:]) {
				t.Errorf("CHAP_R=%s is not the answer to the initiator's challenge", v)
			}
			return
		}
	}
	t.Error("the target has not answered")
}
