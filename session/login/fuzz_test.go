package login_test

import (
	"strings"
	"testing"

	"iscsictl/iscsi"
	"iscsictl/session/login"
)

// dictionary is what fuzzed targets like to say.
var dictionary = func() []string {
	d := strings.Split(agreed+"|"+challenge+"|"+theirAnswer, "|")
	return append(d, "AuthMethod=None", "AuthMethod=CHAP", "AuthMethod=Reject", "CHAP_A=Reject", "CHAP_A=5", "CHAP_A=8",
		"TargetPortalGroupTag=1", "TargetAlias=a", "TargetAddress=h:1", "MaxBurstLength=512", "MaxBurstLength=Irrelevant",
		"HeaderDigest=CRC32C", "DataDigest=CRC32C", "IFMarker=No", "TaskReporting=RFC3720", "X-a=1", "X-b=Reject", "RDMAExtensions=No")
}()

// source turns the fuzzer's bytes into choices.
type source struct{ data []byte }

func (s *source) byte() byte {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return b
}

// answer makes up an answer: mostly a fitting header with keys of the
// dictionary, at times spoilt.
func (s *source) answer(r *request, i int) (iscsi.BHS, []byte) {
	flags := s.byte()
	var keys []byte
	for range s.byte() % 24 {
		if n := int(s.byte()); n < 2*len(dictionary) {
			keys = append(append(keys, dictionary[n%len(dictionary)]...), 0)
		} else {
			n = min(n-2*len(dictionary), len(s.data))
			keys = append(keys, s.data[:n]...)
			s.data = s.data[n:]
		}
	}
	a := answer{raw: keys, more: flags&0x01 != 0, edit: func(p *iscsi.LoginResponse) {
		if flags&0x02 != 0 {
			p.Status = iscsi.LoginStatus(s.byte())<<8 | iscsi.LoginStatus(s.byte())
		}
	}}
	if flags&0x04 != 0 && r.Transit {
		a.next = r.NextStage
	}
	h, data := a.encode(r, i)
	if flags&0x80 != 0 {
		h[s.byte()%48] ^= s.byte()
	}
	return h, data
}

func FuzzNext(f *testing.F) {
	index := func(keys string) (b []byte) {
		for _, kv := range strings.Split(keys, "|") {
			for i, d := range dictionary {
				if d == kv {
					b = append(b, byte(i))
				}
			}
		}
		return append([]byte{byte(len(b))}, b...)
	}
	seed := func(kind byte, parts ...any) {
		b := []byte{kind}
		for _, p := range parts {
			switch p := p.(type) {
			case int:
				b = append(b, byte(p))
			case string:
				b = append(b, index(p)...)
			}
		}
		f.Add(b)
	}
	seed(0, 4, "AuthMethod=None|TargetPortalGroupTag=1", 4, agreed)
	seed(1, 0, "AuthMethod=CHAP", 0, challenge, 4, "", 4, agreed)
	seed(2, 0, "AuthMethod=CHAP", 0, challenge, 4, theirAnswer, 1, "X-a=1", 4, agreed)
	seed(3, 4, "AuthMethod=None", 4, "HeaderDigest=None|DataDigest=None")
	seed(0, 2, "TargetAddress=h:1", 1, 1)
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &source{data}
		cfg := []func() login.Config{normal, oneWay, mutual, func() login.Config {
			return with(func(c *login.Config) { c.Discovery = true })
		}}[s.byte()%4]()
		cfg.Offers.Extra = []iscsi.KeyValue{{Key: "RDMAExtensions", Value: "Yes"}}
		fuzzOne(t, cfg, s)
	})
}

// fuzzOne logs in and checks what must hold whatever the target says.
func fuzzOne(t *testing.T, cfg login.Config, s *source) {
	m := login.New(cfg)
	h, out, done, err := m.Next(nil, nil)
	for i := 0; err == nil && !done; i++ {
		if i > 256 {
			t.Fatal("no end")
		}
		var r request
		if err := r.Decode(&h); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if len(out) > 8192 || len(out) != r.DataSegmentLength || r.Continue && r.Transit {
			t.Fatalf("request %d: %+v with %d bytes", i, r.LoginRequest, len(out))
		}
		rh, data := s.answer(&r, i)
		h, out, done, err = m.Next(&rh, data)
	}
	if err != nil {
		checkError(t, m.Lost(err))
		return
	}
	res := m.Result()
	p := res.Params
	switch mutual := cfg.CHAP != nil && cfg.CHAP.Mutual(); {
	case mutual && !res.Mutual:
		t.Errorf("the target was not authenticated: %+v", res)
	case cfg.CHAP == nil && res.AuthMethod != "None":
		t.Errorf("CHAP without a secret: %+v", res)
	case p.MaxSendDataSegmentLength < 512, p.MaxSendDataSegmentLength > 1<<24-1,
		p.MaxBurstLength < 512, p.MaxBurstLength > 1048576, p.MaxOutstandingR2T < 1, p.MaxOutstandingR2T > 4,
		p.FirstBurstLength > p.MaxBurstLength, !p.DataPDUInOrder, !p.DataSequenceInOrder, p.ErrorRecoveryLevel != 0:
		t.Errorf("params %+v", p)
	case p.HeaderDigest, p.DataDigest, res.TSIH == 0, len(res.Warnings) > 32, len(res.TargetAlias) > 255:
		t.Errorf("result %+v", res)
	}
}

func checkError(t *testing.T, err error) {
	reason := login.Reason(err)
	if reason == "" || len(err.Error()) > 2000 || strings.ContainsAny(err.Error(), "\n\x00\x1b") {
		t.Errorf("message %q, reason %q", err, reason)
	}
}
