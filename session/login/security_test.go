package login_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"iscsictl/iscsi"
	"iscsictl/session/chap"
	"iscsictl/session/login"
)

func TestOneWayCHAP(t *testing.T) {
	for name, script := range map[string][]answer{
		"usual":                  {{keys: "AuthMethod=CHAP"}, {keys: challenge}, {next: operational}, agree},
		"challenge after CHAP_A": {{keys: "AuthMethod=CHAP"}, {keys: "CHAP_A=7"}, {keys: "CHAP_I=42|CHAP_C=0x101112131415161718191a1b1c1d1e1f"}, {next: operational}, agree},
		"thinks it over":         {{keys: "AuthMethod=CHAP"}, {}, {keys: challenge}, {}, {next: operational}, agree},
	} {
		t.Run(name, func(t *testing.T) {
			reqs, res, err := run(t, oneWay(), script...)
			if err != nil {
				t.Fatal(err)
			}
			var said []string
			for _, r := range reqs {
				if r.CurrentStage == security && r.keys != "" {
					said = append(said, r.keys)
				}
				if asks := strings.HasPrefix(r.keys, "CHAP_A="); asks && r.Transit {
					t.Error("T with CHAP_A")
				}
			}
			want := []string{first + "AuthMethod=None,CHAP", "CHAP_A=8,7,6,5", ourResponse}
			if strings.Join(said, "\n") != strings.Join(want, "\n") {
				t.Errorf("said %q\nwant %q", said, want)
			}
			if res.AuthMethod != "CHAP" || res.Algorithm != chap.SHA256 || res.Mutual {
				t.Errorf("result %+v", res)
			}
		})
	}
}

// With one-way CHAP configured, a target may do without.
func TestOneWaySkipped(t *testing.T) {
	reqs, res, err := run(t, oneWay(), none, agree)
	if err != nil || len(reqs) != 2 || res.AuthMethod != "None" || res.Algorithm != 0 {
		t.Errorf("%v, %+v", err, res)
	}
}

func TestMutualCHAP(t *testing.T) {
	for name, script := range map[string][]answer{
		"usual":                      {{keys: "AuthMethod=CHAP"}, {keys: challenge}, {next: operational, keys: theirAnswer}, agree},
		"proof, then the transition": {{keys: "AuthMethod=CHAP"}, {keys: challenge}, {keys: theirAnswer}, {next: operational}, agree},
		"proof in two":               {{keys: "AuthMethod=CHAP"}, {keys: challenge}, {keys: theirAnswer[:10]}, {next: operational, keys: theirAnswer[11:]}, agree},
	} {
		t.Run(name, func(t *testing.T) {
			reqs, res, err := run(t, mutual(), script...)
			if err != nil {
				t.Fatal(err)
			}
			if reqs[0].keys != first+"AuthMethod=CHAP" || reqs[0].Transit {
				t.Errorf("first request: T %v, %s", reqs[0].Transit, reqs[0].keys)
			}
			if reqs[2].keys != ourResponse+" "+ourChallenge || !reqs[2].Transit || reqs[2].NextStage != operational {
				t.Errorf("third request: T %v, %s", reqs[2].Transit, reqs[2].keys)
			}
			if res.AuthMethod != "CHAP" || !res.Mutual || res.Algorithm != chap.SHA256 || len(res.Warnings) > 0 {
				t.Errorf("result %+v", res)
			}
		})
	}
}

func TestAuthenticationRefused(t *testing.T) {
	wrong := strings.Replace(theirAnswer, "0xbf", "0xbe", 1)
	chapThen := func(more ...answer) []answer {
		return append([]answer{{keys: "AuthMethod=CHAP"}, {keys: challenge}}, more...)
	}
	for name, c := range map[string]struct {
		cfg    login.Config
		script []answer
		want   error // nil: another error
	}{
		"CHAP wanted":                  {normal(), []answer{{keys: "AuthMethod=CHAP"}}, login.ErrAuthenticationRequired},
		"None rejected":                {normal(), []answer{{keys: "AuthMethod=Reject"}}, login.ErrAuthenticationRequired},
		"Kerberos wanted":              {normal(), []answer{{keys: "AuthMethod=KRB5"}}, login.ErrUnsupportedAuthMethod},
		"Kerberos wanted for CHAP":     {oneWay(), []answer{{keys: "AuthMethod=KRB5"}}, login.ErrUnsupportedAuthMethod},
		"all rejected":                 {oneWay(), []answer{{keys: "AuthMethod=Reject"}}, login.ErrUnsupportedAuthMethod},
		"a list":                       {oneWay(), []answer{{keys: "AuthMethod=None,CHAP"}}, login.ErrUnsupportedAuthMethod},
		"CHAP chosen and left":         {oneWay(), []answer{{next: operational, keys: "AuthMethod=CHAP"}}, nil},
		"CHAP_A chosen and left":       {oneWay(), []answer{{keys: "AuthMethod=CHAP"}, {next: operational}}, nil},
		"algorithm not offered":        {onlyMD5(oneWay()), []answer{{keys: "AuthMethod=CHAP"}, {keys: challenge}}, nil},
		"bad identifier":               {oneWay(), []answer{{keys: "AuthMethod=CHAP"}, {keys: "CHAP_A=7|CHAP_I=256|CHAP_C=0x01"}}, nil},
		"CHAP_N unasked":               {oneWay(), chapThen(answer{next: operational, keys: theirAnswer}), nil},
		"mutual, None":                 {mutual(), []answer{{keys: "AuthMethod=None"}}, login.ErrMutualCHAPFailed},
		"mutual, stage left":           {mutual(), []answer{{next: operational}}, nil},
		"mutual, stage left with None": {mutual(), []answer{none}, nil},
		"mutual, no proof":             {mutual(), chapThen(answer{next: operational}), login.ErrMutualCHAPFailed},
		"mutual, half a proof":         {mutual(), chapThen(answer{next: operational, keys: "CHAP_N=bob"}), login.ErrMutualCHAPFailed},
		"mutual, wrong proof":          {mutual(), chapThen(answer{next: operational, keys: wrong}), login.ErrMutualCHAPFailed},
		"mutual, wrong proof early":    {mutual(), chapThen(answer{keys: wrong}), login.ErrMutualCHAPFailed},
		"mutual, another name":         {mutual(), chapThen(answer{next: operational, keys: strings.Replace(theirAnswer, "bob", "eve", 1)}), login.ErrMutualCHAPFailed},
		"mutual, our own response":     {mutual(), chapThen(answer{next: operational, keys: strings.ReplaceAll(strings.Replace(ourResponse, "alice", "bob", 1), " ", "|")}), login.ErrMutualCHAPFailed},
		"mutual, our challenge":        {mutual(), []answer{{keys: "AuthMethod=CHAP"}, {keys: "CHAP_A=7|CHAP_I=57|" + strings.Fields(ourChallenge)[1]}}, nil},
		"AuthMethod twice":             {oneWay(), []answer{{keys: "AuthMethod=CHAP"}, {keys: challenge + "|AuthMethod=CHAP"}}, nil},
		"challenge twice":              {oneWay(), chapThen(answer{keys: challenge}), nil},
		"challenge with AuthMethod":    {oneWay(), []answer{{keys: "AuthMethod=CHAP|" + challenge}}, nil},
		"challenge without CHAP":       {normal(), []answer{{keys: "AuthMethod=None|" + challenge}}, nil},
		"operational key":              {normal(), []answer{{keys: "AuthMethod=None|MaxBurstLength=512"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := run(t, c.cfg, c.script...)
			var refused *login.AlgorithmRefused
			switch {
			case err == nil, errors.Is(err, errScriptEnds), errors.As(err, &refused):
				t.Errorf("got %v", err)
			case c.want != nil && (!errors.Is(err, c.want) || login.Reason(err) != c.want.Error()):
				t.Errorf("got %v (%s), want %v", err, login.Reason(err), c.want)
			case strings.Contains(err.Error(), "secret0001"), strings.Contains(err.Error(), "secret1"):
				t.Errorf("the message has a secret: %v", err)
			}
		})
	}
}

// Old targets that cannot take a list of algorithms.
func TestAlgorithmsRefused(t *testing.T) {
	status := func(s iscsi.LoginStatus) answer {
		return answer{edit: func(p *iscsi.LoginResponse) { p.Status = s }}
	}
	for name, c := range map[string]struct {
		answer answer
		reason string
	}{
		"Reject":                 {answer{keys: "CHAP_A=Reject"}, ""},
		"initiator error":        {status(0x0200), "Initiator error"},
		"authentication failure": {status(0x0201), "Authentication failure"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := run(t, oneWay(), answer{keys: "AuthMethod=CHAP"}, c.answer)
			var refused *login.AlgorithmRefused
			if !errors.As(err, &refused) || len(refused.Offered) != 4 {
				t.Errorf("got %v", err)
			}
			if c.reason != "" && login.Reason(err) != c.reason {
				t.Errorf("reason %q, want %q", login.Reason(err), c.reason)
			}
			if _, _, err := run(t, onlyMD5(oneWay()), answer{keys: "AuthMethod=CHAP"}, c.answer); err == nil || errors.As(err, &refused) {
				t.Errorf("MD5 alone: got %v", err)
			}
		})
	}
	var refused *login.AlgorithmRefused
	if _, _, err := run(t, oneWay(), answer{keys: "AuthMethod=CHAP"}, status(0x0301)); err == nil || errors.As(err, &refused) {
		t.Errorf("service unavailable: got %v", err)
	}
	// A wrong secret is no matter of the algorithm.
	if _, _, err := run(t, oneWay(), answer{keys: "AuthMethod=CHAP"}, answer{keys: challenge}, status(0x0201)); err == nil || errors.As(err, &refused) {
		t.Errorf("authentication failure: got %v", err)
	}
	// tgt means SHA-1 by the number of SHA-256.
	if _, _, err := run(t, oneWay(), answer{keys: "AuthMethod=CHAP"}, answer{keys: challenge}, status(0x0200)); !errors.As(err, &refused) {
		t.Errorf("initiator error after a response with SHA-256: got %v", err)
	}
}

func TestLost(t *testing.T) {
	for i, want := range []bool{false, true, false, false} {
		m := login.New(oneWay())
		h, _, _, err := m.Next(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for j, a := range []answer{{keys: "AuthMethod=CHAP"}, {keys: challenge}, {next: operational}}[:i] {
			var r request
			if err := r.Decode(&h); err != nil {
				t.Fatal(err)
			}
			rh, data := a.encode(&r, j)
			if h, _, _, err = m.Next(&rh, data); err != nil {
				t.Fatal(err)
			}
		}
		var refused *login.AlgorithmRefused
		err = m.Lost(io.ErrUnexpectedEOF)
		if errors.As(err, &refused) != want || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("lost after %d answers: %v", i, err)
		}
		if errors.Is(err, login.ErrNoVerdict) != (i == 2) {
			t.Errorf("lost after %d answers, which the credentials precede at 2: %v", i, err)
		}
	}
}

func TestSecretWarning(t *testing.T) {
	cfg := oneWay()
	cfg.CHAP.Secret = "short"
	_, res, err := run(t, cfg, none, agree)
	if err != nil || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "chapSecret") {
		t.Errorf("%v, %q", err, res.Warnings)
	}
}
