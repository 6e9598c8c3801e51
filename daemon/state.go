package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"iscsictl/conf"
)

// state is what must outlive the daemon. It holds secrets.
type state struct {
	BootID   string            `json:"bootId"` // of the boot that all but LastID belongs to
	LastID   uint32            `json:"lastId"` // session ids are never used again
	Tunables map[string]string `json:"tunables,omitempty"`
	Sessions []savedSession    `json:"sessions,omitempty"`
}

type savedSession struct {
	ID      uint32        `json:"id"`
	ISID    []byte        `json:"isid"`
	Config  conf.Session  `json:"config"`
	Devices []savedDevice `json:"devices,omitempty"`
}

// savedDevice is a device that goes on existing when the daemon dies.
type savedDevice struct {
	LUN     uint64 `json:"lun"`
	Backend string `json:"backend"`
	Path    string `json:"path"`
	// Identity is the disk's, so that a device is given back to no other.
	Identity string `json:"identity"`
}

const (
	stateFile   = "state"
	stateFormat = "iscsid-state 1" // the first line, with the CRC-32 of what follows
	stateMax    = 64 << 20
)

// store is the file of the state.
type store struct{ dir string }

// load reads the state. A file that cannot be understood is set aside under
// another name, which the error tells, and what is returned is empty.
func (s store) load() (state, error) {
	path := filepath.Join(s.dir, stateFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, fmt.Errorf("state: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, stateMax+1))
	if err != nil {
		return state{}, fmt.Errorf("state: %w", err)
	}
	st, err := decodeState(data)
	if err == nil {
		return st, nil
	}
	aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().Unix())
	if moved := os.Rename(path, aside); moved != nil {
		return state{}, fmt.Errorf("state: %s: %w, and it cannot be set aside: %w", path, err, moved)
	}
	return state{}, fmt.Errorf("state: %s: %w; it is kept as %s, and the sessions are to be added anew", path, err, aside)
}

func decodeState(data []byte) (st state, err error) {
	head, body, found := bytes.Cut(data, []byte("\n"))
	var sum uint32
	switch format, number, _ := strings.Cut(string(head), " crc "); {
	case len(data) > stateMax:
		return st, fmt.Errorf("the file has more than %d bytes", stateMax)
	case !found || !strings.HasPrefix(format, "iscsid-state "):
		return st, errors.New("not a state file of iscsid")
	case format != stateFormat:
		return st, fmt.Errorf("%q was written by another version; this one reads %q", format, stateFormat)
	default:
		if _, err := fmt.Sscanf(number, "%08x", &sum); err != nil || sum != checksum(body) {
			return st, errors.New("the file is damaged (its checksum is wrong)")
		}
	}
	if err := json.Unmarshal(body, &st); err != nil {
		return state{}, fmt.Errorf("the file is damaged: %w", err)
	}
	for _, one := range st.Sessions {
		if len(one.ISID) != 6 || one.ID == 0 || one.ID > st.LastID {
			return state{}, errors.New("the file is damaged: a session has no proper id")
		}
	}
	return st, nil
}

// save writes the state: whole, or not at all.
func (s store) save(st state) error {
	body, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	f, err := os.CreateTemp(s.dir, stateFile+".new-") // with mode 0600
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer os.Remove(f.Name()) // is gone where all went well
	_, err = fmt.Fprintf(f, "%s crc %08x\n%s", stateFormat, checksum(body), body)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, stateFile))
	}
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

// bootID names this boot of the machine, or "" where that cannot be known.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func checksum(body []byte) uint32 { return crc32.ChecksumIEEE(body) }
