package target

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"iscsictl/iscsi"
)

// Config says what a Server offers. The zero value of a field means its
// default; New checks everything.
type Config struct {
	Targets []Target `json:"targets"`
	// Portals are listed in the answers to SendTargets beside the listeners
	// that the server serves. Command iscsitarget listens on them.
	Portals []Portal `json:"portals,omitempty"`
	// Discovery asks initiators of discovery sessions for CHAP.
	Discovery *CHAP   `json:"discovery_chap,omitempty"`
	Faults    []Fault `json:"faults,omitempty"`

	// LoginTimeout is how long a connection may take to log in; default 30 s.
	LoginTimeout Duration `json:"login_timeout,omitempty"`
	// NOPInterval makes the target ping every session that often with NOP-In,
	// and drop the connection when the answer is not there by the next time.
	NOPInterval Duration `json:"nop_interval,omitempty"`

	Logger *slog.Logger `json:"-"` // default: discards
	Rand   io.Reader    `json:"-"` // CHAP challenges; default crypto/rand
}

// A Portal is an address of the target and its portal group tag
// (RFC 7143 §4.1).
type Portal struct {
	Address string `json:"address"`       // host:port; [host]:port for IPv6
	Tag     int    `json:"tag,omitempty"` // portal group, 0 to 65535; default 1
	// ISER makes it a portal for iSER on software iWARP. SendTargets lists the
	// portals of the same kind as the one that was asked at.
	ISER  bool  `json:"iser,omitempty"`
	IWARP IWARP `json:"iwarp,omitzero"` // of an iSER portal
}

// IWARP shapes the iWARP of an iSER portal, mostly for tests of initiators.
// Its zero value is as it should be.
type IWARP struct {
	NoCRC    bool `json:"no_crc,omitempty"`   // no CRC unless the initiator asks for it
	MULPDU   int  `json:"mulpdu,omitempty"`   // bytes of the longest ULPDU that is sent; default: what TCP's segments take
	Revision int  `json:"revision,omitempty"` // of MPA: 1 or 2 (default)

	Markers     bool `json:"markers,omitempty"`      // demand markers
	CorruptCRC  int  `json:"corrupt_crc,omitempty"`  // the n-th FPDU that is sent has a wrong CRC
	SkipMSN     int  `json:"skip_msn,omitempty"`     // before the n-th Send a message sequence number is left out
	ExceedReads bool `json:"exceed_reads,omitempty"` // twice as many RDMA Reads at a time as negotiated
}

// A Target is one iSCSI target node.
type Target struct {
	Name  string `json:"name"` // iSCSI name, RFC 7143 §4.2.7
	Alias string `json:"alias,omitempty"`
	// Tags are the portal groups through which the target is reached; all if
	// empty.
	Tags []int `json:"tags,omitempty"`
	LUNs []LUN `json:"luns"`
	CHAP *CHAP `json:"chap,omitempty"`
	// Initiators are the names that may log in; all if empty.
	Initiators []string `json:"initiators,omitempty"`
	// Keys are the target's side of the negotiation: the value of each
	// operational key of RFC 7143 §13, as it would be written in a login PDU.
	// HeaderDigest and DataDigest list what is allowed. Defaults are in
	// DefaultKeys. A key that neither side brings up keeps the RFC's default,
	// whatever is said here: see Offer.
	Keys map[string]string `json:"keys,omitempty"`
	// Offer names keys that the target proposes when the initiator has not.
	Offer []string `json:"offer,omitempty"`
	// Window is the number of commands that may be outstanding; default 128.
	Window int `json:"window,omitempty"`
	// Redirect answers every login with another address.
	Redirect *Redirect `json:"redirect,omitempty"`
	// SeparateStatus sends a SCSI Response after the data of a read even
	// where the last Data-In could carry the status.
	SeparateStatus bool `json:"separate_status,omitempty"`
	// FlatLUNs reports LUNs in the flat space format (SAM-5 §4.7.7.3) also
	// below 256.
	FlatLUNs bool `json:"flat_luns,omitempty"`
	// NoPowerOn leaves out the unit attention 29/00 of a new session.
	NoPowerOn bool `json:"no_power_on,omitempty"`
	// TextChunk, if not 0, is the most bytes of text in a PDU of a login or
	// text answer, below what the initiator can take.
	TextChunk int `json:"text_chunk,omitempty"`
}

// A Redirect sends initiators elsewhere (login status 0101 or 0102).
type Redirect struct {
	Address   string `json:"address"` // host:port[,tag]
	Permanent bool   `json:"permanent,omitempty"`
}

// A LUN is one logical unit of a target. Without File and Null its blocks are
// in memory, which is taken as blocks are written.
type LUN struct {
	Number    int    `json:"lun"`                  // 0 to 16383
	Size      Size   `json:"size,omitempty"`       // bytes, whole blocks; with File default the file's
	BlockSize int    `json:"block_size,omitempty"` // bytes: 512 (default) to 4096, a power of two
	File      string `json:"file,omitempty"`       // path; made if it does not exist and Size is given
	// Null reads as Pattern and drops what is written: the fastest unit.
	Null    bool  `json:"null,omitempty"`
	Pattern uint8 `json:"pattern,omitempty"`
	// Thin offers UNMAP and reports thin provisioning (LBPME).
	Thin     bool `json:"thin,omitempty"`
	ReadOnly bool `json:"read_only,omitempty"`
	// WriteCache reports a volatile write cache (WCE), so that initiators
	// send SYNCHRONIZE CACHE or FUA.
	WriteCache bool `json:"write_cache,omitempty"`
	// MaxTransfer is the longest read or write in bytes, reported in VPD page
	// B0; default 16m.
	MaxTransfer Size   `json:"max_transfer,omitempty"`
	Product     string `json:"product,omitempty"` // at most 16 characters
	Serial      string `json:"serial,omitempty"`  // at most 32; default from target name and LUN
}

// Limits of a configuration.
const (
	maxLUN        = 16383 // flat space addressing has 14 bits
	maxWindow     = 65536
	maxUnitSize   = 1 << 46
	maxTransfer   = 1 << 30
	defaultWindow = 128
	defaultTag    = 1
)

// ReadConfig reads a Config in JSON and refuses fields that it does not know.
func ReadConfig(r io.Reader) (Config, error) {
	var c Config
	d := json.NewDecoder(io.LimitReader(r, 16<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Config{}, fmt.Errorf("target configuration: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("target configuration: something follows the closing brace")
	}
	for _, p := range c.Portals {
		if err := p.check(); err != nil {
			return Config{}, fmt.Errorf("target configuration: %w", err)
		}
	}
	return c, nil
}

func (c *Config) setDefaults() {
	if c.LoginTimeout == 0 {
		c.LoginTimeout = Duration(30 * time.Second)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func (p Portal) check() error {
	if _, _, err := net.SplitHostPort(p.Address); err != nil {
		return fmt.Errorf("portal %q: %w", p.Address, err)
	}
	if p.Tag < 0 || p.Tag > 65535 {
		return fmt.Errorf("portal %s: tag %d is not in 0 to 65535", p.Address, p.Tag)
	}
	if p.IWARP != (IWARP{}) && !p.ISER {
		return fmt.Errorf("portal %s: iwarp is for iSER portals only", p.Address)
	}
	if w := p.IWARP; w.Revision < 0 || w.Revision > 2 || w.MULPDU < 0 || w.MULPDU > 65535 || w.CorruptCRC < 0 || w.SkipMSN < 0 {
		return fmt.Errorf("portal %s: iwarp: a number is out of range", p.Address)
	}
	return nil
}

func (t *Target) check() error {
	if err := checkName(t.Name); err != nil {
		return err
	}
	for _, tag := range t.Tags {
		if tag < 0 || tag > 65535 {
			return fmt.Errorf("portal group tag %d is not in 0 to 65535", tag)
		}
	}
	if t.Window < 0 || t.Window > maxWindow {
		return fmt.Errorf("command window %d is not in 1 to %d", t.Window, maxWindow)
	}
	if t.TextChunk < 0 {
		return fmt.Errorf("text chunk %d is negative", t.TextChunk)
	}
	if t.CHAP != nil {
		if err := t.CHAP.check(); err != nil {
			return err
		}
	}
	_, err := newOwnKeys(t.Keys, t.Offer)
	return err
}

func checkName(name string) error {
	if name == "" {
		return errors.New("a target has no name")
	}
	if len(name) > iscsi.MaxNameLen {
		return fmt.Errorf("name %.40s...: %d bytes, at most %d are allowed", name, len(name), iscsi.MaxNameLen)
	}
	for _, b := range []byte(name) {
		if b <= ' ' || b == 0x7f || b == ',' || b == '=' {
			return fmt.Errorf("name %q: spaces, commas, equal signs and control characters are not allowed", name)
		}
	}
	return nil
}

func (l *LUN) check() error {
	if l.Number < 0 || l.Number > maxLUN {
		return fmt.Errorf("number is not in 0 to %d", maxLUN)
	}
	if b := l.BlockSize; b < 512 || b > 4096 || b&(b-1) != 0 {
		return fmt.Errorf("block size %d: want 512, 1024, 2048 or 4096", b)
	}
	if l.Null && l.File != "" {
		return errors.New("null and file exclude each other")
	}
	if l.Size > maxUnitSize {
		return fmt.Errorf("size %v is above %v", l.Size, Size(maxUnitSize))
	}
	if l.Size < 0 || l.Size%Size(l.BlockSize) != 0 {
		return fmt.Errorf("size %v is not a multiple of the block size %d", l.Size, l.BlockSize)
	}
	if l.Size == 0 && l.File == "" {
		return errors.New("no size")
	}
	if l.MaxTransfer < Size(l.BlockSize) || l.MaxTransfer > maxTransfer {
		return fmt.Errorf("longest transfer %v is not in one block to %v", l.MaxTransfer, Size(maxTransfer))
	}
	if len(l.Product) > 16 || len(l.Serial) > 32 {
		return errors.New("product (16) or serial (32 characters) too long")
	}
	return nil
}
