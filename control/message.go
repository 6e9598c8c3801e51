package control

import (
	"syscall"

	"iscsictl/conf"
)

// request is one of its members.
type request struct {
	Hello      *helloRequest    `json:"hello,omitempty"`
	Add        *config          `json:"add,omitempty"`
	Modify     *modifyRequest   `json:"modify,omitempty"`
	Remove     *Selection       `json:"remove,omitempty"`
	List       *struct{}        `json:"list,omitempty"`
	Rescan     *Selection       `json:"rescan,omitempty"`
	Discover   *config          `json:"discover,omitempty"`
	Tunables   *struct{}        `json:"tunables,omitempty"`
	SetTunable *setTunableValue `json:"setTunable,omitempty"`
}

// members counts what a request asks for.
func (r *request) members() int {
	n := 0
	for _, there := range []bool{
		r.Hello != nil, r.Add != nil, r.Modify != nil, r.Remove != nil, r.List != nil,
		r.Rescan != nil, r.Discover != nil, r.Tunables != nil, r.SetTunable != nil,
	} {
		if there {
			n++
		}
	}
	return n
}

// helloRequest is the same in all versions of the protocol.
type helloRequest struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

type modifyRequest struct {
	ID      uint32  `json:"id"`
	Replace *config `json:"replace,omitempty"`
	Portal  *string `json:"portal,omitempty"`
	Target  *string `json:"target,omitempty"`
	User    *string `json:"user,omitempty"`
	Secret  *string `json:"secret,omitempty"`
	Enable  *bool   `json:"enable,omitempty"`
}

type setTunableValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// reply is one of its members, or none where there is nothing to tell. Sessions
// are not among them on the sending side: see server.list.
type reply struct {
	Error    *wireError  `json:"error,omitempty"`
	Hello    *helloReply `json:"hello,omitempty"`
	ID       *uint32     `json:"id,omitempty"`
	Removed  []uint32    `json:"removed,omitempty"`
	Sessions []Session   `json:"sessions,omitempty"`
	Entries  []*config   `json:"entries,omitempty"`
	Tunables []Tunable   `json:"tunables,omitempty"`
}

// helloReply says what was agreed on, and who answers. It is the same in all
// versions of the protocol.
type helloReply struct {
	Min     int    `json:"min"`
	Max     int    `json:"max"`
	Version int    `json:"version"`
	Daemon  string `json:"daemon"`
}

// agree returns the highest version that both sides speak.
func agree(theirs helloRequest) (int, error) {
	version := min(theirs.Max, MaxVersion)
	if version < theirs.Min || version < MinVersion {
		return 0, Errorf(syscall.EPROTONOSUPPORT,
			"iscsid speaks versions %d to %d of the control protocol, iscsictl %d to %d; restart iscsid after an upgrade",
			MinVersion, MaxVersion, theirs.Min, theirs.Max)
	}
	return version, nil
}

// modification returns what is to be changed.
func (m *modifyRequest) modification() (Modification, error) {
	change := Modification{
		Portal: m.Portal, Target: m.Target, User: m.User, Secret: m.Secret, Enable: m.Enable,
	}
	if m.Replace == nil {
		return change, nil
	}
	if change != (Modification{}) {
		return change, Errorf(syscall.EINVAL, "replace and single settings are mutually exclusive")
	}
	whole, err := m.Replace.valid()
	change.Replace = &whole
	return change, err
}

// modifyRequestOf is the reverse.
func modifyRequestOf(id uint32, m Modification) *modifyRequest {
	r := &modifyRequest{
		ID: id, Portal: m.Portal, Target: m.Target, User: m.User, Secret: m.Secret, Enable: m.Enable,
	}
	if m.Replace != nil {
		r.Replace = configOf(*m.Replace)
	}
	return r
}

// entriesOf is what discovery has found, without the secrets, which the asker has.
func entriesOf(found []conf.Session) []*config {
	entries := make([]*config, len(found))
	for i := range found {
		entries[i] = configOf(found[i])
		entries[i].Secret, entries[i].MutualSecret = "", ""
	}
	return entries
}
