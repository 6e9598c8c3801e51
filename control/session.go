package control

import "time"

// Session is what the daemon tells of a session. It holds no secret.
type Session struct {
	ID       uint32 `json:"id"`
	Nickname string `json:"nickname,omitempty"`

	InitiatorName    string `json:"initiatorName"`
	InitiatorAddress string `json:"initiatorAddress,omitempty"`
	InitiatorAlias   string `json:"initiatorAlias,omitempty"`

	TargetName    string `json:"targetName,omitempty"` // empty: discovery
	TargetAddress string `json:"targetAddress"`        // as configured
	TargetAlias   string `json:"targetAlias,omitempty"`
	// Redirect is the portal that the target has permanently moved to
	// (RFC 7143 §11.13.5, status 0x0102), or empty.
	Redirect string `json:"redirect,omitempty"`

	// Settings of the session's own, or -1 where it has none; times in seconds.
	DSCP            int `json:"dscp"`
	PCP             int `json:"pcp"`
	PingTimeout     int `json:"pingTimeout"`
	LoginTimeout    int `json:"loginTimeout"`
	CommandTimeout  int `json:"commandTimeout"`
	RecoveryTimeout int `json:"recoveryTimeout"`
	// Device is the kind of devices that the session asks for; empty: the best.
	Device string `json:"device,omitempty"`

	User            string `json:"user,omitempty"`
	SecretSet       bool   `json:"secretSet,omitempty"`
	MutualUser      string `json:"mutualUser,omitempty"`
	MutualSecretSet bool   `json:"mutualSecretSet,omitempty"`

	Discovery bool   `json:"discovery,omitempty"`
	Enable    bool   `json:"enable"`
	Connected bool   `json:"connected"`
	Scanning  bool   `json:"scanning,omitempty"` // connected, and not all disks are there yet
	Reason    string `json:"reason,omitempty"`   // of the last failure, until connected

	// As negotiated (RFC 7143 §13); before the first login the defaults of
	// NewSession, after a drop those of the last connection. Sizes in bytes.
	HeaderDigest             bool `json:"headerDigest"` // CRC32C
	DataDigest               bool `json:"dataDigest"`   // CRC32C
	MaxRecvDataSegmentLength int  `json:"maxRecvDataSegmentLength"`
	MaxSendDataSegmentLength int  `json:"maxSendDataSegmentLength"`
	MaxBurstLength           int  `json:"maxBurstLength"`
	FirstBurstLength         int  `json:"firstBurstLength"`
	ImmediateData            bool `json:"immediateData"`

	ISER          bool   `json:"iser"`
	OffloadDriver string `json:"offloadDriver,omitempty"` // in use; empty: none

	// Facts say what else there is to know of the connection, with RDMA for
	// instance its device.
	Facts []Fact `json:"facts,omitempty"`

	Devices []Device `json:"devices,omitempty"`
	// Notes say what there is no device for, and why; one sentence each:
	// "no LUNs", "LUN 2: not a disk (tape)".
	Notes    []string `json:"notes,omitempty"`
	Counters Counters `json:"counters"`
}

// Fact is something to be shown of a connection.
type Fact struct {
	Name  string `json:"name"`  // in lowerCamelCase
	Label string `json:"label"` // for people
	Value string `json:"value"`
}

// NewSession returns a session with what the listing shows before the first login.
func NewSession() Session {
	return Session{
		DSCP: -1, PCP: -1,
		PingTimeout: -1, LoginTimeout: -1, CommandTimeout: -1, RecoveryTimeout: -1,
		Enable:                   true,
		MaxRecvDataSegmentLength: 8192,
		MaxSendDataSegmentLength: 8192,
		MaxBurstLength:           262144,
		FirstBurstLength:         65536,
	}
}

// Device is a disk of a session as the host sees it.
type Device struct {
	LUN     uint64 `json:"lun"`            // as people write it
	Name    string `json:"name"`           // "loop0", or a full path
	Backend string `json:"backend"`        // "loop", "socket", …
	Note    string `json:"note,omitempty"` // what to know of it, such as what the host could not be told
	// Outlives says that the device goes on existing when the daemon dies.
	Outlives bool `json:"outlives,omitempty"`
	// PathOf is the session that has the device, where this one's logical
	// unit is the same; 0: the device is this session's.
	PathOf uint32 `json:"pathOf,omitempty"`
}

// Counters is what a session has done since it was added.
type Counters struct {
	Requests     uint64 `json:"requests"`     // of the host, completed
	BytesRead    uint64 `json:"bytesRead"`    // of payload
	BytesWritten uint64 `json:"bytesWritten"` // of payload
	Errors       uint64 `json:"errors"`       // requests that failed
	Reconnects   uint64 `json:"reconnects"`   // connections after the first
	LastFailure  string `json:"lastFailure,omitempty"`
	// LastFailureTime is when that was; the zero time where nothing failed.
	LastFailureTime time.Time `json:"lastFailureTime,omitzero"`
}
