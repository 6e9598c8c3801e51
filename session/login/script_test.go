package login_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"iscsictl/iscsi"
	"iscsictl/session/chap"
	"iscsictl/session/login"
	"iscsictl/transport"
)

const (
	security    = iscsi.StageSecurity
	operational = iscsi.StageOperational
	fullFeature = iscsi.StageFullFeature
)

// request is a request of the initiator, decoded.
type request struct {
	iscsi.LoginRequest
	keys string // key=value, with a blank between pairs; text as it is where it goes on
}

// answer is what a scripted target answers: a transition to next (0: none),
// keys, and what is unusual about the header.
type answer struct {
	next iscsi.Stage
	keys string // key=value|key=value
	raw  []byte // the text as it is on the wire, if not nil
	more bool   // the C bit
	edit func(*iscsi.LoginResponse)
}

var (
	isid = [6]byte{0x80, 1, 2, 3, 4, 5}

	errScriptEnds = errors.New("the script has no more answers")
)

const (
	initiatorTaskTag = 0x11223344
	targetStatSN     = 1000 // of the first answer
)

func text(keys string) []byte {
	if keys == "" {
		return nil
	}
	return []byte(strings.ReplaceAll(keys, "|", "\x00") + "\x00")
}

// run logs in to a scripted target.
func run(t testing.TB, cfg login.Config, script ...answer) (reqs []request, res login.Result, err error) {
	t.Helper()
	m := login.New(cfg)
	h, data, done, err := m.Next(nil, nil)
	for i := 0; ; i++ {
		if err != nil || done {
			if err == nil && i < len(script) {
				t.Errorf("done with %d answers to go", len(script)-i)
			}
			return reqs, m.Result(), err
		}
		var r request
		if err := r.Decode(&h); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if r.DataSegmentLength != len(data) || len(data) > 8192 {
			t.Fatalf("request %d: length %d, data of %d", i, r.DataSegmentLength, len(data))
		}
		r.keys = strings.TrimRight(strings.ReplaceAll(string(data), "\x00", " "), " ")
		reqs = append(reqs, r)
		if i == len(script) {
			return reqs, m.Result(), errScriptEnds
		}
		rh, rdata := script[i].encode(&r, i)
		h, data, done, err = m.Next(&rh, rdata)
	}
}

func (a answer) encode(r *request, i int) (h iscsi.BHS, data []byte) {
	data = text(a.keys)
	if a.raw != nil {
		data = a.raw
	}
	p := iscsi.LoginResponse{
		Transit:           a.next != 0,
		NextStage:         a.next,
		Continue:          a.more,
		CurrentStage:      r.CurrentStage,
		ISID:              r.ISID,
		InitiatorTaskTag:  r.InitiatorTaskTag,
		StatSN:            targetStatSN + uint32(i),
		ExpCmdSN:          r.CmdSN,
		MaxCmdSN:          r.CmdSN + 31,
		DataSegmentLength: len(data),
	}
	if a.next == fullFeature {
		p.TSIH = 7
	}
	if a.edit != nil {
		a.edit(&p)
	}
	p.Encode(&h)
	return h, data
}

// normal is the configuration of a session with nothing special about it.
func normal() login.Config {
	return login.Config{
		InitiatorName: "iqn.2012-06.com.example:host", InitiatorAlias: "host", TargetName: "iqn.2012-06.com.example:target0",
		ISID: isid, CID: 3, CmdSN: 77, InitiatorTaskTag: initiatorTaskTag,
		Offers: transport.Offers{
			Digests: true, MaxRecvDataSegmentLength: 262144, MaxBurstLength: 1048576, FirstBurstLength: 131072,
			ImmediateData: true, InitialR2T: false, MaxOutstandingR2T: 4,
		},
	}
}

func with(edit func(*login.Config)) login.Config {
	c := normal()
	edit(&c)
	return c
}

const first = "InitiatorName=iqn.2012-06.com.example:host InitiatorAlias=host SessionType=Normal TargetName=iqn.2012-06.com.example:target0 "

const offered = "iSCSIProtocolLevel=2 HeaderDigest=None DataDigest=None MaxConnections=1 InitialR2T=No ImmediateData=Yes " +
	"MaxRecvDataSegmentLength=262144 MaxBurstLength=1048576 FirstBurstLength=131072 DefaultTime2Wait=0 DefaultTime2Retain=0 " +
	"MaxOutstandingR2T=4 DataPDUInOrder=Yes DataSequenceInOrder=Yes ErrorRecoveryLevel=0"

// agreed answers all of offered.
const agreed = "iSCSIProtocolLevel=1|HeaderDigest=None|DataDigest=None|MaxConnections=1|InitialR2T=Yes|ImmediateData=Yes|" +
	"MaxRecvDataSegmentLength=65536|MaxBurstLength=262144|FirstBurstLength=65536|DefaultTime2Wait=2|DefaultTime2Retain=0|" +
	"MaxOutstandingR2T=1|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|ErrorRecoveryLevel=0"

// agreedBut replaces or removes (value "") one key of agreed.
func agreedBut(key, value string) string {
	var out []string
	for _, kv := range strings.Split(agreed, "|") {
		if k, _, _ := strings.Cut(kv, "="); k != key {
			out = append(out, kv)
		} else if value != "" {
			out = append(out, key+"="+value)
		}
	}
	return strings.Join(out, "|")
}

var (
	none  = answer{next: operational, keys: "AuthMethod=None|TargetPortalGroupTag=1"}
	agree = answer{next: fullFeature, keys: agreed}
)

// random yields identifier 57 and a challenge of 40, 41, ...
func random() io.Reader {
	b := []byte{57}
	for i := range 64 {
		b = append(b, byte(0x40+i))
	}
	return bytes.NewReader(b)
}

func oneWay() login.Config {
	return with(func(c *login.Config) {
		c.CHAP = &login.CHAPConfig{User: "alice", Secret: "initiatorsecret1"}
	})
}

func mutual() login.Config {
	return with(func(c *login.Config) {
		c.CHAP = &login.CHAPConfig{User: "alice", Secret: "initiatorsecret1", MutualUser: "bob", MutualSecret: "targetsecret0001"}
		c.Rand = random()
	})
}

func onlyMD5(c login.Config) login.Config {
	c.CHAP.Algorithms = []chap.Algorithm{chap.MD5}
	return c
}

// The values of package chap's test, for SHA-256.
const (
	challenge    = "CHAP_A=7|CHAP_I=42|CHAP_C=0x101112131415161718191a1b1c1d1e1f"
	ourResponse  = "CHAP_N=alice CHAP_R=0x1e0bf4287da5ed4fd502f478d1c45d62556b422cf047187b4bdbd5c777d6ec5e"
	ourChallenge = "CHAP_I=57 CHAP_C=0x404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
	theirAnswer  = "CHAP_N=bob|CHAP_R=0xbf8e85c6f561e5d7bfeec66541ea4404217764e7e8933fc410f35c48af5ac01e"
)
