package chap_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"iscsictl/session/chap"
)

// vectors were computed with openssl dgst and Python's hashlib over
// identifier, secret, challenge: 0x2a, "initiatorsecret1", 10..1f for the
// initiator; 0x39, "targetsecret0001", 40.. (as long as the hash) for the target.
var vectors = []struct {
	algorithm chap.Algorithm
	number    string
	response  string
	challenge string // ours, from random()
	target    string // the target's answer to it
	target64  string
	own       string // what our own secret would have given
}{
	{
		chap.MD5, "5", "39a13857992f15f071f223eaab2b0cea",
		"0x404142434445464748494a4b4c4d4e4f",
		"d1bafe57583658dd455b94e0caf7ebbf", "0b0br+V1g2WN1FW5Tgyvfrvw==",
		"3f49c8f33dddc775bd1c1b35a8e50b96",
	},
	{
		chap.SHA1, "6", "2b608e83da489985a36e99536ace2acc2a249df6",
		"0x404142434445464748494a4b4c4d4e4f50515253",
		"7dd32fc231ef547c18c9311e54c86a2f07535570", "0bfdMvwjHvVHwYyTEeVMhqLwdTVXA=",
		"d9df2e5204a71fcb755388a726df18ee841fb3e5",
	},
	{
		chap.SHA256, "7", "1e0bf4287da5ed4fd502f478d1c45d62556b422cf047187b4bdbd5c777d6ec5e",
		"0x404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f",
		"bf8e85c6f561e5d7bfeec66541ea4404217764e7e8933fc410f35c48af5ac01e", "0bv46FxvVh5de/7sZlQepEBCF3ZOfokz/EEPNcSK9awB4=",
		"cdcaa97916d34d366dc798c7085003a3b3cd8cf655f32c2ab3b958278af4a962",
	},
	{
		chap.SHA3_256, "8", "0ad67164930d1b7c416e4695dd199f914a51757457382dd82bc7a70008aed84c",
		"0x404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f",
		"70977f229583079eca8018ba9bfebcbed944e99c2d878c1eb1fa3e098a2e7860", "0bcJd/IpWDB57KgBi6m/68vtlE6Zwth4wesfo+CYoueGA=",
		"e517339bdf46f475bee40be08d8b44f34b1db445c56fdb901f495011980e5b7a",
	},
}

const (
	challengeHex = "0x101112131415161718191A1b1c1d1e1f"
	challenge64  = "0bEBESExQVFhcYGRobHB0eHw=="
)

// random yields identifier 0x39 (57) and then 0x40 and up.
func random() io.Reader {
	b := []byte{0x39}
	for i := range 64 {
		b = append(b, byte(0x40+i))
	}
	return bytes.NewReader(b)
}

func mutual() chap.Config {
	return chap.Config{
		User: "alice", Secret: "initiatorsecret1",
		MutualUser: "bob", MutualSecret: "targetsecret0001",
	}
}

func TestExchange(t *testing.T) {
	for _, v := range vectors {
		for _, challenge := range []string{challengeHex, challenge64} {
			for _, response := range []string{"0x" + v.target, "0X" + strings.ToUpper(v.target), v.target64} {
				e, err := chap.New(mutual(), random())
				if err != nil {
					t.Fatal(err)
				}
				a, err := e.Answer(v.number, "0x2a", challenge)
				if err != nil {
					t.Fatalf("%v: %v", v.algorithm, err)
				}
				want := chap.Answer{Name: "alice", Response: "0x" + v.response, Identifier: "57", Challenge: v.challenge}
				if a != want {
					t.Errorf("%v: got %+v, want %+v", v.algorithm, a, want)
				}
				if e.Algorithm() != v.algorithm {
					t.Errorf("algorithm %v, want %v", e.Algorithm(), v.algorithm)
				}
				if err := e.Verify("bob", response); err != nil {
					t.Errorf("%v: %v: %v", v.algorithm, response, err)
				}
			}
		}
	}
}

func TestOneWay(t *testing.T) {
	e, err := chap.New(chap.Config{User: "alice", Secret: "initiatorsecret1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Offer(); got != "8,7,6,5" {
		t.Errorf("offer %q, want the strongest first", got)
	}
	a, err := e.Answer("5", "42", challengeHex)
	if want := (chap.Answer{Name: "alice", Response: "0x" + vectors[0].response}); err != nil || a != want {
		t.Errorf("got %+v, %v, want %+v", a, err, want)
	}
	if err := e.Verify("bob", "0x"+vectors[0].target); err == nil {
		t.Error("verified a target that was not asked")
	}
}

func TestAnswerRefuses(t *testing.T) {
	for name, c := range map[string][3]string{
		"algorithm not offered":  {"5", "42", challengeHex},
		"algorithm unknown":      {"9", "42", challengeHex},
		"algorithm modulo 256":   {"263", "42", challengeHex},
		"algorithm list":         {"7,8", "42", challengeHex},
		"algorithm empty":        {"", "42", challengeHex},
		"identifier above 255":   {"7", "256", challengeHex},
		"identifier negative":    {"7", "-1", challengeHex},
		"identifier empty":       {"7", "", challengeHex},
		"challenge empty":        {"7", "42", "0x"},
		"challenge empty base64": {"7", "42", "0b"},
		"challenge bare":         {"7", "42", "abcd"},
		"challenge no hex":       {"7", "42", "0xzz"},
		"challenge 1025 bytes":   {"7", "42", "0x" + strings.Repeat("ab", 1025)},
		"challenge is ours":      {"7", "42", vectors[2].challenge},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := mutual()
			cfg.Algorithms = []chap.Algorithm{chap.SHA3_256, chap.SHA256}
			e, err := chap.New(cfg, random())
			if err != nil {
				t.Fatal(err)
			}
			if a, err := e.Answer(c[0], c[1], c[2]); err == nil {
				t.Errorf("answered %+v", a)
			}
		})
	}
}

func TestAnswerBounds(t *testing.T) {
	for _, c := range [][2]string{{"0", "0x01"}, {"255", "0x" + strings.Repeat("ab", 1024)}} {
		e, err := chap.New(mutual(), random())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Answer("7", c[0], c[1]); err != nil {
			t.Errorf("identifier %s: %v", c[0], err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	v := vectors[2]
	other, _ := hex.DecodeString(v.target)
	other[31] ^= 1
	for name, c := range map[string][2]string{
		"another name":           {"mallory", "0x" + v.target},
		"name in another case":   {"Bob", "0x" + v.target},
		"long name":              {strings.Repeat("b", 256), "0x" + v.target},
		"one bit wrong":          {"bob", "0x" + hex.EncodeToString(other)},
		"cut short":              {"bob", "0x" + v.target[:62]},
		"too long":               {"bob", "0x" + v.target + "00"},
		"empty":                  {"bob", "0x"},
		"our response":           {"bob", "0x" + v.response},
		"our secret":             {"bob", "0x" + v.own},
		"another hash":           {"bob", "0x" + vectors[3].target},
		"neither hex nor base64": {"bob", v.target},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := chap.New(mutual(), random())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.Answer("7", "42", challengeHex); err != nil {
				t.Fatal(err)
			}
			if err := e.Verify(c[0], c[1]); err == nil {
				t.Error("verified")
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	edit := func(f func(*chap.Config)) chap.Config {
		c := mutual()
		f(&c)
		return c
	}
	for name, c := range map[string]chap.Config{
		"no user":               edit(func(c *chap.Config) { c.User = "" }),
		"no secret":             edit(func(c *chap.Config) { c.Secret = "" }),
		"no mutual user":        edit(func(c *chap.Config) { c.MutualUser = "" }),
		"no mutual secret":      edit(func(c *chap.Config) { c.MutualSecret = "" }),
		"long user":             edit(func(c *chap.Config) { c.User = strings.Repeat("u", 256) }),
		"NUL in user":           edit(func(c *chap.Config) { c.User = "a\x00b" }),
		"unknown algorithm":     edit(func(c *chap.Config) { c.Algorithms = []chap.Algorithm{4} }),
		"algorithm named twice": edit(func(c *chap.Config) { c.Algorithms = []chap.Algorithm{5, 5} }),
	} {
		if _, err := chap.New(c, random()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	same := edit(func(c *chap.Config) { c.MutualSecret = c.Secret })
	if _, err := chap.New(same, random()); !errors.Is(err, chap.ErrSameSecret) {
		t.Errorf("same secret both ways: %v", err)
	}
	if _, err := chap.New(mutual(), nil); err == nil {
		t.Error("mutual without randomness: accepted")
	}
}

func TestNoRandomness(t *testing.T) {
	e, err := chap.New(mutual(), bytes.NewReader(make([]byte, 16)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Answer("5", "42", challengeHex); err == nil {
		t.Error("a challenge was made of too few random bytes")
	}
}

func TestWarnings(t *testing.T) {
	c := chap.Config{User: "alice", Secret: "elevenbytes", MutualUser: "bob", MutualSecret: "twelve bytes"}
	got := c.Warnings()
	if len(got) != 1 || !strings.HasPrefix(got[0], "chapSecret has 11 bytes") {
		t.Errorf("got %q", got)
	}
	if strings.Contains(strings.Join(got, ""), "eleven") {
		t.Error("the secret is in the warning")
	}
	c.MutualSecret = "short"
	if got := c.Warnings(); len(got) != 2 || !strings.HasPrefix(got[1], "tgtChapSecret has 5 bytes") {
		t.Errorf("got %q", got)
	}
}

func TestAlgorithmNames(t *testing.T) {
	for _, a := range chap.All() {
		if got, ok := chap.ParseAlgorithm(strings.ToLower(a.String())); !ok || got != a {
			t.Errorf("%v: got %v, %v", a, got, ok)
		}
	}
	if a, ok := chap.ParseAlgorithm("CRC32C"); ok {
		t.Errorf("CRC32C is %v", a)
	}
	if _, err := chap.Response(4, 0, "s", nil); err == nil {
		t.Error("algorithm 4 gave a response")
	}
}

func FuzzExchange(f *testing.F) {
	f.Add("7", "42", challengeHex, "bob", "0x"+vectors[2].target)
	f.Add("5", "0", challenge64, "bob", vectors[0].target64)
	f.Add("", "", "0x", "", "0b=")
	f.Fuzz(func(t *testing.T, a, i, c, n, r string) {
		e, err := chap.New(mutual(), random())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Answer(a, i, c); err != nil {
			return
		}
		if err := e.Verify(n, r); err != nil {
			return
		}
		// Only the right response passes, however it is written.
		for _, v := range vectors {
			if v.algorithm == e.Algorithm() {
				if want, _ := hex.DecodeString(v.target); n != "bob" || !means(r, want) {
					t.Errorf("verified %q, %q", n, r)
				}
			}
		}
	})
}

// means says whether a binary value stands for want.
func means(value string, want []byte) bool {
	if len(value) < 2 {
		return false
	}
	if value[1] == 'x' || value[1] == 'X' {
		return strings.EqualFold(value[2:], hex.EncodeToString(want))
	}
	got, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value[2:], "="))
	return err == nil && bytes.Equal(got, want)
}
