package target

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"iscsictl/iscsi"
	"iscsictl/scsi"
)

// login is the state of a connection that is logging in (RFC 7143 §6.3).
type login struct {
	begun bool
	req   iscsi.LoginRequest // the last
	first iscsi.LoginRequest
	stage iscsi.Stage

	text    []byte   // of a request that goes on
	answer  []byte   // what is left of an answer that goes on
	goesOn  bool     // the last response was not the whole answer
	nextTo  bool     // the answer's last piece grants the transition
	chunk   int      // most bytes in one answer, 0: what a PDU may have
	endless bool     // by a fault
	forced  []string // key=value by faults

	initiator string
	discovery bool
	node      *node
	named     bool // names were checked and the portal group was told

	auth       *chapState // nil: no authentication is asked for
	authMethod string     // as chosen, "": not yet
	authed     bool
	keys       *negotiation
}

func newLogin() *login { return &login{} }

// loginError ends a login with a status.
type loginError struct {
	status iscsi.LoginStatus
	reason error
}

func (e *loginError) Error() string { return fmt.Sprintf("login: %v: %v", e.status, e.reason) }

func (e *loginError) Unwrap() error { return e.reason }

func loginFailure(status iscsi.LoginStatus, format string, args ...any) error {
	return &loginError{status, fmt.Errorf(format, args...)}
}

// onLogin takes a login request.
func (c *conn) onLogin(h *iscsi.BHS) error {
	l := c.login
	if err := l.req.Decode(h); err != nil {
		return c.failLogin(loginFailure(iscsi.LoginInitiatorError, "%w", err))
	}
	if _, err := c.collect(h); err != nil {
		return err
	}
	err := c.checkLogin(h)
	if err == nil {
		err = c.stepLogin()
	}
	var failure *loginError
	if errors.As(err, &failure) {
		return c.failLogin(failure)
	}
	return err
}

// checkLogin checks what must hold for every login request of a connection.
func (c *conn) checkLogin(h *iscsi.BHS) error {
	l, r := c.login, &c.login.req
	if !l.begun {
		l.begun, l.first, l.stage = true, *r, r.CurrentStage
		c.expCmdSN = r.CmdSN
		if r.VersionMin > iscsi.Version {
			return loginFailure(iscsi.LoginUnsupportedVersion, "version %d at least", r.VersionMin)
		}
		return nil
	}
	f := &l.first
	switch {
	case r.ISID != f.ISID, r.TSIH != f.TSIH, r.CID != f.CID, r.InitiatorTaskTag != f.InitiatorTaskTag:
		return loginFailure(iscsi.LoginInitiatorError, "ISID, TSIH, CID or task tag changed within the login")
	case r.CmdSN != f.CmdSN:
		return loginFailure(iscsi.LoginInitiatorError, "CmdSN changed from %d to %d within the login", f.CmdSN, r.CmdSN)
	case r.CurrentStage != l.stage:
		return loginFailure(iscsi.LoginInitiatorError, "current stage is %v, not %v", l.stage, r.CurrentStage)
	case h.ExpStatSN() != c.statSN:
		return loginFailure(iscsi.LoginInitiatorError, "ExpStatSN %d instead of %d", h.ExpStatSN(), c.statSN)
	}
	return nil
}

func (c *conn) stepLogin() error {
	l := c.login
	if l.goesOn { // the initiator lets us go on
		if len(c.data) > 0 {
			return loginFailure(iscsi.LoginInitiatorError, "text in answer to an incomplete login response")
		}
		return c.sendLogin()
	}
	if len(l.text)+len(c.data) > maxText {
		return loginFailure(iscsi.LoginInitiatorError, "more than %d bytes of text", maxText)
	}
	l.text = append(l.text, c.data...)
	if l.req.Continue {
		l.nextTo = false
		return c.sendLogin()
	}
	keys, err := splitKeys(l.text)
	l.text = l.text[:0]
	if err != nil {
		return loginFailure(iscsi.LoginInitiatorError, "%w", err)
	}
	if l.answer, err = c.answerLogin(keys); err != nil {
		return err
	}
	l.answer = force(l.answer, l.forced)
	l.forced = nil
	if l.req.Transit && l.auth != nil && l.authMethod == "" {
		return loginFailure(iscsi.LoginAuthenticationFailure, "the initiator offers no authentication")
	}
	l.nextTo = l.req.Transit && l.mayLeave()
	return c.sendLogin()
}

// force puts pairs into text, in place of those with the same key.
func force(text []byte, pairs []string) []byte {
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		kept, err := splitKeys(text)
		if err != nil {
			return text
		}
		text = nil
		for _, kv := range kept {
			if kv.key != key {
				text = appendKey(text, kv.key, kv.value)
			}
		}
		text = appendKey(text, key, value)
	}
	return text
}

// answerLogin goes through the keys of one complete request.
func (c *conn) answerLogin(keys []keyValue) ([]byte, error) {
	l := c.login
	var text []byte
	if !l.named {
		if err := c.identify(keys); err != nil {
			return nil, err
		}
		l.named = true
		if l.node != nil {
			if l.node.Alias != "" {
				text = appendKey(text, "TargetAlias", l.node.Alias)
			}
			text = appendKey(text, "TargetPortalGroupTag", fmt.Sprint(c.tag))
		}
	}
	text, err := l.security(keys, text)
	if err != nil {
		return nil, err
	}
	for _, kv := range keys {
		if l.ownBusiness(kv.key) {
			continue
		}
		if l.stage == iscsi.StageSecurity && keyIndex(kv.key) >= 0 && kv.key != operationalKeys[keyProtocolLevel].name {
			return nil, loginFailure(iscsi.LoginInitiatorError, "key %s in the security stage", kv.key)
		}
		answer, err := l.keys.take(kv.key, kv.value)
		if err != nil {
			return nil, loginFailure(iscsi.LoginInitiatorError, "%w", err)
		}
		if answer != "" {
			text = appendKey(text, kv.key, answer)
		}
	}
	if l.stage == iscsi.StageOperational {
		text = l.keys.proposals(text)
	}
	return text, nil
}

// ownBusiness tells whether a key was handled by identify or security.
func (l *login) ownBusiness(key string) bool {
	switch key {
	case "InitiatorName", "InitiatorAlias", "TargetName", "SessionType", "AuthMethod":
		return true
	}
	return strings.HasPrefix(key, "CHAP_")
}

// identify finds out who wants what. Names come with the first request.
func (c *conn) identify(keys []keyValue) error {
	l := c.login
	target := ""
	for _, kv := range keys {
		switch kv.key {
		case "InitiatorName":
			l.initiator = kv.value
		case "TargetName":
			target = kv.value
		case "SessionType":
			if kv.value != "Discovery" && kv.value != "Normal" {
				return loginFailure(iscsi.LoginSessionTypeUnsupported, "SessionType=%.40q", kv.value)
			}
			l.discovery = kv.value == "Discovery"
		}
	}
	if l.initiator == "" || len(l.initiator) > iscsi.MaxNameLen {
		return loginFailure(iscsi.LoginMissingParameter, "InitiatorName is missing or too long")
	}
	if l.discovery {
		own, err := newOwnKeys(nil, nil)
		if err != nil {
			return err
		}
		l.keys = newNegotiation(own, true, c.iser)
		l.setAuth(c, c.server.conf.Discovery)
		return nil
	}
	if target == "" {
		return loginFailure(iscsi.LoginMissingParameter, "TargetName is missing")
	}
	n := c.server.node(target)
	if n == nil || !n.reachable(c.tag) {
		return loginFailure(iscsi.LoginNotFound, "no target %.230q in portal group %d", target, c.tag)
	}
	l.node = n
	if l.chunk == 0 {
		l.chunk = n.TextChunk
	}
	l.keys = newNegotiation(n.own, false, c.iser)
	if n.Redirect != nil {
		return c.redirect(n.Redirect)
	}
	if len(n.Initiators) > 0 && !slices.Contains(n.Initiators, l.initiator) {
		return loginFailure(iscsi.LoginAuthorizationFailure, "initiator %s is not among those of %s", l.initiator, n.Name)
	}
	l.setAuth(c, n.CHAP)
	return nil
}

func (l *login) setAuth(c *conn, conf *CHAP) {
	if conf != nil {
		l.auth = &chapState{conf: conf, rand: c.server.rand}
	}
}

// redirect answers with another address and ends the connection.
func (c *conn) redirect(r *Redirect) error {
	status := iscsi.LoginTargetMovedTemporarily
	if r.Permanent {
		status = iscsi.LoginTargetMovedPermanently
	}
	c.sendLoginStatus(status, appendKey(nil, "TargetAddress", r.Address))
	c.log.Info("login redirected", "address", r.Address, "permanent", r.Permanent)
	return errDone
}

// security carries out the security stage (RFC 7143 §12.1).
func (l *login) security(keys []keyValue, text []byte) ([]byte, error) {
	chap := make(map[string]string)
	methods := ""
	for _, kv := range keys {
		switch {
		case kv.key == "AuthMethod":
			methods = kv.value
		case strings.HasPrefix(kv.key, "CHAP_"):
			if _, twice := chap[kv.key]; twice {
				return nil, loginFailure(iscsi.LoginInitiatorError, "%s is there twice", kv.key)
			}
			chap[kv.key] = kv.value
		}
	}
	if l.stage != iscsi.StageSecurity {
		switch {
		case l.auth != nil && !l.authed:
			return nil, loginFailure(iscsi.LoginAuthenticationFailure, "the initiator left out authentication")
		case methods != "" || len(chap) > 0:
			return nil, loginFailure(iscsi.LoginInitiatorError, "security keys after the security stage")
		}
		return text, nil
	}
	if methods != "" {
		if l.authMethod != "" {
			return nil, loginFailure(iscsi.LoginInitiatorError, "AuthMethod is negotiated twice")
		}
		var err error
		if text, err = l.chooseMethod(methods, text); err != nil {
			return nil, err
		}
	}
	if len(chap) == 0 {
		return text, nil
	}
	if l.authMethod != "CHAP" {
		return nil, loginFailure(iscsi.LoginAuthenticationFailure, "CHAP keys without AuthMethod=CHAP")
	}
	text, err := l.auth.step(chap, text)
	if err != nil {
		return nil, &loginError{iscsi.LoginAuthenticationFailure, err}
	}
	l.authed = l.auth.done
	return text, nil
}

func (l *login) chooseMethod(list string, text []byte) ([]byte, error) {
	want := "None"
	if l.auth != nil {
		want = "CHAP"
	}
	if !slices.Contains(strings.Split(list, ","), want) {
		return nil, loginFailure(iscsi.LoginAuthenticationFailure, "AuthMethod=%.80s: %s is wanted", list, want)
	}
	l.authMethod = want
	return appendKey(text, "AuthMethod", want), nil
}

// mayLeave tells whether the target is through with the current stage.
func (l *login) mayLeave() bool {
	if l.auth != nil && !l.authed {
		return false
	}
	return l.keys == nil || !l.keys.open()
}

// sendLogin sends the answer, or its next piece.
func (c *conn) sendLogin() error {
	l := c.login
	most := 8192 // the initiator's MaxRecvDataSegmentLength is not in force yet
	if l.chunk > 0 {
		most = min(most, l.chunk)
	}
	piece := l.answer[:min(len(l.answer), most)]
	l.answer = l.answer[len(piece):]
	r := iscsi.LoginResponse{
		CurrentStage: l.stage, ISID: l.first.ISID, TSIH: l.first.TSIH, InitiatorTaskTag: l.first.InitiatorTaskTag,
		DataSegmentLength: len(piece),
	}
	if l.endless {
		l.answer, piece = nil, append([]byte(nil), "X-endless=1\x00"...)
		r.DataSegmentLength = len(piece)
	}
	l.goesOn = len(l.answer) > 0 || l.endless
	r.Continue = l.goesOn
	if l.nextTo && !r.Continue {
		r.Transit, r.NextStage = true, l.req.NextStage
	}
	if r.Transit && r.NextStage == iscsi.StageFullFeature {
		if err := c.establish(); err != nil {
			return err
		}
		r.TSIH = c.session.tsih
	}
	r.StatSN = c.nextStatSN()
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Encode(&c.h)
	c.send(piece, false)
	if r.Transit {
		l.stage, l.nextTo = r.NextStage, false
	}
	if c.session != nil {
		c.established()
	}
	return nil
}

// failLogin tells the initiator why and ends the connection.
func (c *conn) failLogin(err error) error {
	var failure *loginError
	if errors.As(err, &failure) {
		c.sendLoginStatus(failure.status, nil)
		_ = c.flush()
	}
	return err
}

func (c *conn) sendLoginStatus(status iscsi.LoginStatus, text []byte) {
	l := c.login
	r := iscsi.LoginResponse{
		CurrentStage: l.stage, ISID: l.req.ISID, TSIH: l.req.TSIH, InitiatorTaskTag: l.req.InitiatorTaskTag,
		StatSN: c.nextStatSN(), Status: status, DataSegmentLength: len(text),
	}
	r.ExpCmdSN, r.MaxCmdSN = c.window()
	r.Encode(&c.h)
	c.send(text, false)
}

// establish makes the session that the login has led to.
func (c *conn) establish() error {
	l := c.login
	if l.node != nil && c.iser && !l.keys.seen[keyRDMAExtensions] {
		return loginFailure(iscsi.LoginMissingParameter, "an iSER connection without RDMAExtensions=Yes")
	}
	s := &session{
		initiator: l.initiator, isid: l.first.ISID, cid: l.first.CID,
		node: l.node, params: l.keys.params(), tasks: make(map[uint32]*task),
	}
	if l.auth != nil {
		s.user = l.auth.user
	}
	return c.server.register(c, s, l.first.TSIH)
}

// established begins full-feature phase, after the last login response.
func (c *conn) established() {
	s := c.session
	c.login = nil
	if s.node != nil && !s.node.NoPowerOn {
		s.attendAll(scsi.CodeReset)
	}
	target := "(discovery)"
	if s.node != nil {
		target = s.node.Name
	}
	c.log.Info("session established", "target", target, "initiator", s.initiator, "isid", fmt.Sprintf("%x", s.isid),
		"tsih", s.tsih, "user", s.user, "parameters", s.params)
	if d := time.Duration(c.server.conf.NOPInterval); d > 0 && s.node != nil {
		go c.keepPinging(d)
	}
}

// keepPinging pings at intervals, and drops the connection where the answer
// did not come in one.
func (c *conn) keepPinging(interval time.Duration) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-t.C:
		}
		c.do(func() {
			if c.session.ping != 0 {
				c.log.Warn("no answer to NOP-In, connection dropped")
				c.close()
				return
			}
			c.sendPing()
		})
	}
}
