package target

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"iscsictl/iscsi"
)

var smallLUN = LUN{Size: 1 << 20}

func TestNegotiation(t *testing.T) {
	tests := []struct{ own, key, offer, answer string }{
		{"", "HeaderDigest", "None", "None"},
		{"", "HeaderDigest", "CRC32C,None", "CRC32C"},
		{"", "HeaderDigest", "None,CRC32C", "None"},
		{"None", "DataDigest", "CRC32C,None", "None"},
		{"CRC32C", "DataDigest", "None,X-other,CRC32C", "CRC32C"},
		{"", "MaxBurstLength", "16776192", "1048576"},
		{"", "MaxBurstLength", "0x1000", "4096"},
		{"512", "FirstBurstLength", "65536", "512"},
		{"", "DefaultTime2Wait", "2", "2"},
		{"5", "DefaultTime2Wait", "2", "5"},
		{"", "DefaultTime2Retain", "20", "0"},
		{"", "InitialR2T", "No", "No"},
		{"Yes", "InitialR2T", "No", "Yes"},
		{"", "InitialR2T", "Yes", "Yes"},
		{"No", "ImmediateData", "Yes", "No"},
		{"", "ImmediateData", "Yes", "Yes"},
		{"", "MaxConnections", "8", "1"},
		{"4", "MaxOutstandingR2T", "8", "4"},
		{"No", "DataPDUInOrder", "No", "No"},
		{"", "DataSequenceInOrder", "No", "Yes"},
		{"", "ErrorRecoveryLevel", "2", "0"},
		{"", "IFMarker", "Yes", "No"},
		{"", "OFMarkInt", "2048", "Reject"},
		{"", "X-com.example.key", "1", "NotUnderstood"},
		{"", "RDMAExtensions", "Yes", "No"},
		{"", "InitiatorAlias", "host", ""},
	}
	for _, tt := range tests {
		keys := map[string]string{}
		if tt.own != "" {
			keys[tt.key] = tt.own
		}
		own, err := newOwnKeys(keys, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := newNegotiation(own, false, false).take(tt.key, tt.offer)
		if err != nil || got != tt.answer {
			t.Errorf("%s=%s with own %q: got %q, %v; want %q", tt.key, tt.offer, tt.own, got, err, tt.answer)
		}
	}
}

func TestNegotiationRefuses(t *testing.T) {
	own, err := newOwnKeys(map[string]string{"HeaderDigest": "CRC32C"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range []string{
		"HeaderDigest=None", "InitialR2T=yes", "MaxBurstLength=511", "MaxBurstLength=16777216", "MaxBurstLength=-1",
		"MaxRecvDataSegmentLength=100", "MaxRecvDataSegmentLength=", "ErrorRecoveryLevel=3", "MaxConnections=0", "FirstBurstLength=1 ",
	} {
		key, value, _ := strings.Cut(kv, "=")
		if got, err := newNegotiation(own, false, false).take(key, value); err == nil {
			t.Errorf("%s: answered %q, want an error", kv, got)
		}
	}
	n := newNegotiation(own, false, false)
	if _, err := n.take("ImmediateData", "Yes"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.take("ImmediateData", "Yes"); err == nil {
		t.Error("a key was negotiated twice")
	}
}

func TestLogin(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.Targets[0].Alias = "a disk"
	s, address := serve(t, conf)
	c := mustLogin(t, address, "HeaderDigest=CRC32C,None", "MaxRecvDataSegmentLength=4096", "InitialR2T=No")
	for key, want := range map[string]string{
		"TargetPortalGroupTag": "1", "TargetAlias": "a disk", "HeaderDigest": "CRC32C",
		"MaxRecvDataSegmentLength": "262144", "InitialR2T": "No",
	} {
		if c.answers[key] != want {
			t.Errorf("%s=%q, want %q", key, c.answers[key], want)
		}
	}
	list := s.Sessions()
	if len(list) != 1 {
		t.Fatalf("%d sessions", len(list))
	}
	i := list[0]
	if i.Initiator != testInitiator || i.Target != testTarget || i.ISID != c.isid || i.TSIH != c.tsih || i.TSIH == 0 ||
		!i.Params.HeaderDigest || i.Params.MaxSend != 4096 || i.Params.InitialR2T || i.Params.MaxRecv != 262144 {
		t.Errorf("session %+v", i)
	}
	c.good(0, testUnitReady(), 0, nil)
}

func TestLoginStatus(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.Targets = append(conf.Targets,
		Target{Name: testTarget + "2", LUNs: []LUN{smallLUN}, Initiators: []string{"iqn.other"}},
		Target{Name: testTarget + "3", LUNs: []LUN{smallLUN}, Tags: []int{2}},
		Target{Name: testTarget + "4", LUNs: []LUN{smallLUN}, CHAP: &CHAP{Users: []Credential{{"u", "s"}}}},
		Target{Name: testTarget + "5", Redirect: &Redirect{Address: "192.0.2.1:3260,1", Permanent: true}})
	_, address := serve(t, conf)
	name := "InitiatorName=" + testInitiator
	tests := []struct {
		what   string
		stage  iscsi.Stage
		text   []byte
		status iscsi.LoginStatus
	}{
		{"no initiator name", iscsi.StageOperational, pairs("TargetName=" + testTarget), iscsi.LoginMissingParameter},
		{"no target name", iscsi.StageOperational, pairs(name), iscsi.LoginMissingParameter},
		{"unknown target", iscsi.StageOperational, pairs(name, "TargetName=iqn.x"), iscsi.LoginNotFound},
		{"wrong portal group", iscsi.StageOperational, pairs(name, "TargetName="+testTarget+"3"), iscsi.LoginNotFound},
		{"unknown session type", iscsi.StageOperational, pairs(name, "SessionType=Odd"), iscsi.LoginSessionTypeUnsupported},
		{"stranger", iscsi.StageOperational, pairs(name, "TargetName="+testTarget+"2"), iscsi.LoginAuthorizationFailure},
		{"authentication left out", iscsi.StageOperational, pairs(name, "TargetName="+testTarget+"4"), iscsi.LoginAuthenticationFailure},
		{"no method in common", iscsi.StageSecurity, pairs(name, "TargetName="+testTarget+"4", "AuthMethod=None"), iscsi.LoginAuthenticationFailure},
		{"no method at all", iscsi.StageSecurity, pairs(name, "TargetName="+testTarget+"4"), iscsi.LoginAuthenticationFailure},
		{"unwanted method", iscsi.StageSecurity, pairs(name, "TargetName="+testTarget, "AuthMethod=CHAP"), iscsi.LoginAuthenticationFailure},
		{"redirect", iscsi.StageOperational, pairs(name, "TargetName="+testTarget+"5"), iscsi.LoginTargetMovedPermanently},
		{"bad text", iscsi.StageOperational, []byte("InitiatorName"), iscsi.LoginInitiatorError},
		{"bad value", iscsi.StageOperational, normal("MaxBurstLength=x"), iscsi.LoginInitiatorError},
	}
	for _, tt := range tests {
		c := dial(t, address)
		if _, err := c.loginStep(tt.stage, iscsi.StageFullFeature, tt.text); err == nil {
			t.Errorf("%s: logged in", tt.what)
		}
		if c.status != tt.status {
			t.Errorf("%s: status %v, want %v", tt.what, c.status, tt.status)
		}
		if tt.what == "redirect" && c.answers["TargetAddress"] != "192.0.2.1:3260,1" {
			t.Errorf("redirect to %q", c.answers["TargetAddress"])
		}
		c.gone()
	}
}

func TestLoginTSIH(t *testing.T) {
	_, address := serve(t, oneTarget(smallLUN))
	first := mustLogin(t, address)
	for tsih, want := range map[uint16]iscsi.LoginStatus{
		first.tsih: iscsi.LoginTooManyConnections, first.tsih + 1: iscsi.LoginSessionDoesNotExist,
	} {
		c := dial(t, address)
		c.tsih = tsih
		if err := c.login(); err == nil || c.status != want {
			t.Errorf("TSIH %d: status %v, want %v", tsih, c.status, want)
		}
	}
	first.good(0, testUnitReady(), 0, nil)
}

// TestLoginPieces sends and receives text in several PDUs.
func TestLoginPieces(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.Targets[0].TextChunk = 10
	_, address := serve(t, conf)
	c := dial(t, address)
	text := normal("InitialR2T=No", "MaxBurstLength=4096", "X-long="+strings.Repeat("x", 3000))
	for len(text) > 700 {
		r := iscsi.LoginRequest{
			Continue: true, CurrentStage: iscsi.StageOperational, ISID: c.isid, InitiatorTaskTag: 1,
			CmdSN: c.cmdSN, ExpStatSN: c.statSN,
		}
		var h iscsi.BHS
		r.Encode(&h)
		c.mustSend(&h, text[:700])
		text = text[700:]
		p := c.mustReceive(iscsi.OpLoginResponse)
		if len(p.data) > 0 || p.h.Final() {
			t.Fatalf("answer to an incomplete request: %q", p.data)
		}
	}
	transit, err := c.loginStep(iscsi.StageOperational, iscsi.StageFullFeature, text)
	if err != nil || !transit {
		t.Fatal(transit, err)
	}
	if c.pieces < 5 || c.answers["MaxBurstLength"] != "4096" || c.answers["X-long"] != "NotUnderstood" {
		t.Errorf("%d pieces, %v", c.pieces, c.answers)
	}
	c.good(0, testUnitReady(), 0, nil)
}

// TestOffer has the target propose keys; the login waits for the answer.
func TestOffer(t *testing.T) {
	conf := oneTarget(smallLUN)
	conf.Targets[0].Keys = map[string]string{"MaxBurstLength": "8192"}
	conf.Targets[0].Offer = []string{"MaxBurstLength", "InitialR2T"}
	s, address := serve(t, conf)
	c := dial(t, address)
	transit, err := c.loginStep(iscsi.StageOperational, iscsi.StageFullFeature, normal("InitialR2T=Yes"))
	if err != nil || transit || c.answers["MaxBurstLength"] != "8192" {
		t.Fatal(transit, err, c.answers)
	}
	transit, err = c.loginStep(iscsi.StageOperational, iscsi.StageFullFeature, pairs("MaxBurstLength=4096"))
	if err != nil || !transit {
		t.Fatal(transit, err)
	}
	if p := s.Sessions()[0].Params; p.MaxBurstLength != 4096 || !p.InitialR2T {
		t.Errorf("%+v", p)
	}
}

// chapHashes are the algorithms, apart from the target's own table.
var chapHashes = map[int]func(b []byte) []byte{
	5: func(b []byte) []byte { return chapResponse(b[0], string(b[1:]), nil) },
	6: func(b []byte) []byte { s := sha1.Sum(b); return s[:] },
	7: func(b []byte) []byte { s := sha256.Sum256(b); return s[:] },
	8: func(b []byte) []byte { s := sha3.Sum256(b); return s[:] },
}

// chapLogin authenticates; challenge returns what the target is challenged
// with, nil for one-way.
func (c *client) chapLogin(algorithms, secret string, challenge func(theirs []byte) []byte, base64 bool) error {
	if _, err := c.loginStep(iscsi.StageSecurity, iscsi.StageOperational, normal("AuthMethod=CHAP,None")); err != nil {
		return err
	}
	if _, err := c.loginStep(iscsi.StageSecurity, iscsi.StageOperational, pairs("CHAP_A="+algorithms)); err != nil {
		return err
	}
	algorithm, err := strconv.Atoi(c.answers["CHAP_A"])
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(c.answers["CHAP_I"])
	if err != nil {
		return err
	}
	theirs, err := iscsi.ParseBinary(c.answers["CHAP_C"])
	if err != nil {
		return err
	}
	hash := chapHashes[algorithm]
	response := hash(append(append([]byte{byte(id)}, secret...), theirs...))
	encode := iscsi.AppendHex
	if base64 {
		encode = iscsi.AppendBase64
	}
	text := pairs("CHAP_N=user", "CHAP_R="+string(encode(nil, response)))
	var ours []byte
	if challenge != nil {
		ours = challenge(theirs)
		text = append(text, pairs("CHAP_I=33", "CHAP_C="+string(encode(nil, ours)))...)
	}
	transit, err := c.loginStep(iscsi.StageSecurity, iscsi.StageOperational, text)
	if err != nil {
		return err
	}
	if !transit {
		return fmt.Errorf("authenticated, but not let on")
	}
	if challenge != nil {
		got, err := iscsi.ParseBinary(c.answers["CHAP_R"])
		want := hash(append(append([]byte{33}, "secret of the target"...), ours...))
		if err != nil || !bytes.Equal(got, want) || c.answers["CHAP_N"] != "disk" {
			return fmt.Errorf("target answers %s with %x", c.answers["CHAP_N"], got)
		}
	}
	_, err = c.loginStep(iscsi.StageOperational, iscsi.StageFullFeature, nil)
	return err
}

func TestCHAP(t *testing.T) {
	const secret = "secret of the user"
	ours := func([]byte) []byte { return pattern(24, 1) }
	reflect := func(theirs []byte) []byte { return theirs }
	tests := []struct {
		what       string
		chap       CHAP
		algorithms string
		secret     string
		challenge  func([]byte) []byte
		base64     bool
		ok         bool
		chosen     string
	}{
		{"MD5", CHAP{}, "5", secret, nil, false, true, "5"},
		{"SHA1", CHAP{}, "6", secret, nil, false, true, "6"},
		{"SHA-256", CHAP{}, "7", secret, nil, false, true, "7"},
		{"SHA3-256", CHAP{}, "8", secret, nil, false, true, "8"},
		{"order of the initiator", CHAP{}, "8,7,6,5", secret, ours, false, true, "8"},
		{"only MD5 here", CHAP{Algorithms: []string{"MD5"}}, "8,7,6,5", secret, ours, false, true, "5"},
		{"base64, long challenge", CHAP{Base64: true, Challenge: 1024}, "7", secret, ours, true, true, "7"},
		{"mutual", CHAP{}, "5", secret, ours, false, true, "5"},
		{"nothing in common", CHAP{Algorithms: []string{"SHA1"}}, "5,7", secret, nil, false, false, ""},
		{"list refused", CHAP{RefuseLists: true}, "7,5", secret, nil, false, false, ""},
		{"list of one", CHAP{RefuseLists: true}, "5", secret, nil, false, true, "5"},
		{"wrong secret", CHAP{}, "5", "guess", nil, false, false, ""},
		{"reflected challenge", CHAP{}, "5", secret, reflect, false, false, ""},
		{"empty challenge", CHAP{}, "5", secret, func([]byte) []byte { return nil }, false, false, ""},
	}
	for _, tt := range tests {
		conf := oneTarget(smallLUN)
		tt.chap.Users = []Credential{{"other", "x"}, {"user", secret}}
		tt.chap.Mutual = &Credential{"disk", "secret of the target"}
		conf.Targets[0].CHAP = &tt.chap
		s, address := serve(t, conf)
		c := dial(t, address)
		err := c.chapLogin(tt.algorithms, tt.secret, tt.challenge, tt.base64)
		switch {
		case tt.ok && err != nil:
			t.Errorf("%s: %v", tt.what, err)
		case !tt.ok && (err == nil || c.status != iscsi.LoginAuthenticationFailure):
			t.Errorf("%s: %v, status %v; want an authentication failure", tt.what, err, c.status)
		case tt.ok:
			if got := s.Sessions()[0].User; got != "user" || c.answers["CHAP_A"] != tt.chosen {
				t.Errorf("%s: user %q, algorithm %s, want %s", tt.what, got, c.answers["CHAP_A"], tt.chosen)
			}
			c.good(0, testUnitReady(), 0, nil)
		}
	}
}

func TestDiscovery(t *testing.T) {
	conf := Config{Portals: []Portal{{Address: "[2001:db8::1]:3260", Tag: 2}, {Address: "192.0.2.9:860", Tag: 1}}}
	for i := range 300 {
		conf.Targets = append(conf.Targets, Target{Name: fmt.Sprintf("%s-%03d", testTarget, i), Tags: []int{1 + i%2}})
	}
	_, address := serve(t, conf)
	c := dial(t, address)
	_, err := c.loginStep(iscsi.StageOperational, iscsi.StageFullFeature,
		pairs("InitiatorName="+testInitiator, "SessionType=Discovery", "MaxRecvDataSegmentLength=512", "ImmediateData=Yes"))
	if err != nil || c.answers["ImmediateData"] != "Irrelevant" {
		t.Fatal(err, c.answers)
	}
	text, pieces := c.text("SendTargets=All")
	if pieces < 20 {
		t.Errorf("%d pieces", pieces)
	}
	var want []string
	for i := range 300 {
		want = append(want, fmt.Sprintf("TargetName=%s-%03d", testTarget, i))
		if i%2 == 0 {
			want = append(want, "TargetAddress="+address+",1", "TargetAddress=192.0.2.9:860,1")
		} else {
			want = append(want, "TargetAddress=[2001:db8::1]:3260,2")
		}
	}
	equal(t, "SendTargets=All", text, pairs(want...))
	text, _ = c.text("SendTargets=" + testTarget + "-001")
	equal(t, "SendTargets of one", text, pairs(want[3:5]...))
	// A discovery session has no commands.
	var h iscsi.BHS
	(&iscsi.SCSICommand{Final: true, InitiatorTaskTag: 9, CmdSN: c.cmdSN, ExpStatSN: c.statSN}).Encode(&h)
	c.mustSend(&h, nil)
	c.mustReceive(iscsi.OpReject)
}

func TestSendTargetsInNormalSession(t *testing.T) {
	_, address := serve(t, oneTarget(smallLUN))
	c := mustLogin(t, address)
	text, _ := c.text("SendTargets=")
	equal(t, "SendTargets=", text, pairs("TargetName="+testTarget, "TargetAddress="+address+",1"))
	text, _ = c.text("SendTargets=All")
	equal(t, "SendTargets=All", text, pairs("SendTargets=Reject"))
}

// text carries out a text request and returns the whole answer.
func (c *client) text(keys ...string) (answer []byte, pieces int) {
	c.t.Helper()
	q := iscsi.TextRequest{Final: true, InitiatorTaskTag: 77, TargetTransferTag: iscsi.ReservedTag}
	text := pairs(keys...)
	for {
		q.CmdSN, q.ExpStatSN = c.cmdSN, c.statSN
		c.cmdSN++
		var h iscsi.BHS
		q.Encode(&h)
		c.mustSend(&h, text)
		p := c.mustReceive(iscsi.OpTextResponse)
		var r iscsi.TextResponse
		if err := r.Decode(&p.h); err != nil {
			c.t.Fatal(err)
		}
		answer, text, pieces = append(answer, p.data...), nil, pieces+1
		if r.Final {
			return answer, pieces
		}
		q.TargetTransferTag = r.TargetTransferTag
	}
}
